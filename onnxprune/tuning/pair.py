"""A small model and its original, ready to be compared on any batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.engine.session import Engine
from onnxprune.errors import ModelError
from onnxprune.graph.view import Graph, view
from onnxprune.tuning.function import Failed, Function, Values, build
from onnxprune.tuning.hidden import HiddenValue, by_name, candidates
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.original import AnswerFunction, by_runtime, original_answers
from onnxprune.tuning.parameters import integer_weights, trainable
from onnxprune.tuning.probe import probe
from onnxprune.tuning.program import Block, program_of
from onnxprune.tuning.reach import Reach, reach, squashed
from onnxprune.tuning.recipe import SMALLEST, Optimizer
from onnxprune.tuning.samples import Samples
from onnxprune.tuning.sums import summed_axes
from onnxprune.tuning.target import LossTerm, hidden_error, output_error, output_terms

Array = np.ndarray
Feeds = Mapping[str, Array]
#: Samples that determine scales and matching channels.
LOOKED_AT = 32
#: Weight of the error of each hidden value, relative to that of the outputs.  Outputs say little about a sample, so few
#: samples teach little through them alone.  A residual network of 20 layers at half its MACs, 512 pictures: the class
#: stays for 91.1 % of unseen pictures with 1, 92.2 % with 3, 92.4 % with 10; a third of the MACs, 128 pictures: 82.4 %,
#: 84.2 %, 85.2 %, and 84.5 % with 30.  Networks without sums and with depthwise layers end alike with 1 and with 10.
HIDDEN = 10.0


@dataclass(frozen=True, eq=False)
class ModelPair:
    """A small model as a ``function`` to tune, and its original.

    ``trained`` has the parameters of ``function`` and computes the gradients, with less precision if that is faster.
    ``original`` computes all values to compare.  ``judge`` computes only the values that judge a model: the outputs, or
    hidden values if no output can be compared.  ``outside``: the part of the small model before the tuned part, by
    onnxruntime.  ``effects``: see :class:`onnxprune.tuning.probe.Probed`.
    """

    function: Function
    trained: Function
    original: AnswerFunction
    judge: AnswerFunction
    outside: AnswerFunction | None
    terms: tuple[LossTerm, ...]
    hidden: tuple[HiddenValue, ...]
    effects: Mapping[str, float]
    notes: tuple[str, ...]

    def optimizer(self) -> Optimizer:
        """A fresh optimizer of the function's parameters."""
        named = self.function.parameters
        smallest = [SMALLEST * (self.effects.get(n, 1.0) if w.dim() < 2 else 1.0) for n, w in named.items()]
        sums = [summed_axes(self.function.graph, name) for name in named]
        return Optimizer(list(named), list(named.values()), smallest, sums)

    def losses(self, feeds: Feeds) -> Tensor:
        """The training loss per sample: the output error plus :data:`HIDDEN` times all hidden errors.

        Differentiable in the parameters.
        """
        with torch.no_grad():
            wanted = self.original(feeds)
        return self.apart(self.trained(self.given_of(feeds)), wanted, samples_in(feeds))

    def apart(self, tuned: Values, wanted: Values, count: int) -> Tensor:
        """The output error plus :data:`HIDDEN` times all hidden errors, per sample."""
        parts = [output_error(self.terms, tuned, wanted, count)] if self.terms else []
        parts += [HIDDEN * self._hidden(tuned, wanted, count)] if self.hidden else []
        return torch.stack(parts).sum(0)

    def look(
        self, feeds: Feeds, wanted: Values, parameters: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """(error, whether the class is the same), each per sample.  ``wanted``: the answers of ``judge``.

        The second is ``None`` if the outputs are not class scores.
        """
        tuned, count = self.function(self.given_of(feeds), parameters), samples_in(feeds)
        if not self.terms:
            return self._hidden(tuned, wanted, count), None
        errors = output_error(self.terms, tuned, wanted, count)
        name = self.terms[0].name
        if len(self.terms) > 1 or self.terms[0].kind not in ("logits", "probabilities") or tuned[name].dim() != 2:
            return errors, None
        return errors, tuned[name].argmax(1) == wanted[name].argmax(1)

    def _hidden(self, tuned: Values, wanted: Values, count: int) -> Tensor:
        return torch.stack([hidden_error(h, tuned[h.name], wanted[h.name], count) for h in self.hidden]).sum(0)

    def given_of(self, feeds: Feeds) -> Values:
        device = self.function.device
        given = {name: to_torch(feeds[name]).to(device) for name in self.function.given if name in feeds}
        if self.outside is not None:
            given.update((name, value.to(device)) for name, value in self.outside(feeds).items())
        return given


def samples_in(feeds: Feeds) -> int:
    """The number of samples in a feed: the length of axis 0 if all inputs agree, else 1."""
    sizes = {array.shape[0] for array in feeds.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def pair(
    student: onnx.ModelProto, original: onnx.ModelProto, samples: Samples, engine: Engine, device: torch.device
) -> ModelPair:
    """Make the pair of ``student`` and ``original``.  Cost: a few passes of both models over :data:`LOOKED_AT` samples.

    Raises:
        ModelError: nothing can be tuned.  The message names the operators in the way.
    """
    graph, block = program_of(student)
    whole = view(original)
    # Only constants in the file itself can be written back.
    stored = view(student).constants
    weights = [
        name for name in trainable(graph) if name in stored and stored[name].shape == graph.constants[name].shape
    ]
    one = next(iter(samples.batches(1)))
    seen = probe(student, graph, block, weights, one, engine)
    tuned = reach(graph, block, weights, seen, whole)
    names = candidates(graph, whole, tuned.steps, seen, tuned.targets, tuned.trained)
    looked = _looked(samples)
    theirs = _answers(by_runtime(original, [*tuned.targets, *names], engine), looked)
    mine = _answers(by_runtime(student, [*tuned.targets, *names], engine), looked)
    targets = tuple(n for n in tuned.targets if mine[n].shape == theirs[n].shape)
    hidden = by_name([n for n in (*names, *tuned.targets) if n not in targets], mine, theirs)
    terms = output_terms(targets, theirs, [name for name in targets if squashed(whole, name)])
    if not terms and not hidden:
        raise ModelError("nothing can be tuned: no output of the two models can be compared")
    wanted = list(dict.fromkeys([*(t.name for t in terms), *(h.name for h in hidden)]))
    function = _function(graph, block, tuned, wanted, device)
    outside = by_runtime(student, tuned.outside, engine) if tuned.outside else None
    notes = (*tuned.notes, *_integer_note(len(integer_weights(graph))))
    answers = original_answers(original, wanted, engine, device)
    ends = list(dict.fromkeys(t.name for t in terms)) or wanted
    judge = original_answers(original, ends, engine, device) if ends != wanted else answers
    return ModelPair(function, function, answers, judge, outside, terms, hidden, seen.effects, notes)


def _function(graph: Graph, block: Block, tuned: Reach, wanted: list[str], device: torch.device) -> Function:
    try:
        return build(graph, block, tuned.given, wanted, tuned.trained, device)
    except Failed as failure:
        raise ModelError(f"nothing can be tuned: torch cannot compute {failure}") from failure


def _integer_note(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} weights are stored as integers and stay unchanged: tune before you quantize",)


def _looked(samples: Samples) -> list[Feeds]:
    batches: list[Feeds] = []
    count = 0
    for feeds in samples.batches(8):
        batches.append(feeds)
        count += 8
        if count >= LOOKED_AT:
            break
    return batches


def _answers(answers: AnswerFunction, batches: list[Feeds]) -> dict[str, Array]:
    """Answers to all batches, joined on axis 0.  Leaves out batches with other shapes than the first."""
    parts = [answers(feeds) for feeds in batches]
    joined = {}
    for name in parts[0]:
        arrays = [part[name].cpu().numpy() for part in parts]
        alike = [a for a in arrays if a.ndim and a.shape[1:] == arrays[0].shape[1:]]
        joined[name] = np.concatenate(alike) if alike else arrays[0]
    return joined
