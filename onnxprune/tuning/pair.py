"""A small model and its original, ready to be held against each other on any batch."""

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
from onnxprune.tuning.hidden import Hidden, by_name, candidates
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.original import Answers, by_runtime, original_answers
from onnxprune.tuning.parameters import integer_weights, trainable
from onnxprune.tuning.probe import probe
from onnxprune.tuning.program import Block, program_of
from onnxprune.tuning.reach import Reach, reach, squashed
from onnxprune.tuning.samples import Samples
from onnxprune.tuning.target import Term, hidden_error, output_error, output_terms

Array = np.ndarray
Feeds = Mapping[str, Array]
#: Samples from which scales are taken, and channels matched.
LOOKED_AT = 32


@dataclass(frozen=True, eq=False)
class Pair:
    """``original`` answers all that is compared, ``judge`` what a model is judged by: the outputs; the hidden values
    where no output can be compared.  ``outside``: what onnxruntime computes of the small model, before the part that is
    tuned."""

    function: Function
    original: Answers
    judge: Answers
    outside: Answers | None
    terms: tuple[Term, ...]
    hidden: tuple[Hidden, ...]
    notes: tuple[str, ...]

    def losses(self, feeds: Feeds) -> Tensor:
        """What is trained on, one number per sample: how far the outputs are from the original's, and beside it the
        mean of the hidden errors.  Differentiable in the parameters."""
        with torch.no_grad():
            wanted = self.original(feeds)
        count = samples_in(feeds)
        tuned = self.function(self.given_of(feeds), None)
        parts = [output_error(self.terms, tuned, wanted, count)] if self.terms else []
        parts += [self._hidden(tuned, wanted, count)] if self.hidden else []
        return torch.stack(parts).sum(0)

    def look(
        self, feeds: Feeds, wanted: Values, parameters: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """(how far the small model is from ``wanted``, the answers of ``judge``; whether both say the same class): one
        value per sample each.  The second is ``None`` where the outputs are not class scores."""
        tuned, count = self.function(self.given_of(feeds), parameters), samples_in(feeds)
        if not self.terms:
            return self._hidden(tuned, wanted, count), None
        errors = output_error(self.terms, tuned, wanted, count)
        name = self.terms[0].name
        if len(self.terms) > 1 or self.terms[0].kind not in ("logits", "probabilities") or tuned[name].dim() != 2:
            return errors, None
        return errors, tuned[name].argmax(1) == wanted[name].argmax(1)

    def _hidden(self, tuned: Values, wanted: Values, count: int) -> Tensor:
        return torch.stack([hidden_error(h, tuned[h.name], wanted[h.name], count) for h in self.hidden]).mean(0)

    def given_of(self, feeds: Feeds) -> Values:
        device = self.function.device
        given = {name: to_torch(feeds[name]).to(device) for name in self.function.given if name in feeds}
        if self.outside is not None:
            given.update((name, value.to(device)) for name, value in self.outside(feeds).items())
        return given


def samples_in(feeds: Feeds) -> int:
    """How many samples a feed holds: what its inputs have on axis 0, where they agree."""
    sizes = {array.shape[0] for array in feeds.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def pair(
    student: onnx.ModelProto, original: onnx.ModelProto, samples: Samples, engine: Engine, device: torch.device
) -> Pair:
    """Cost: a few passes of both models over :data:`LOOKED_AT` samples.

    Raises:
        ModelError: where nothing can be tuned, with the operators that are in the way.
    """
    graph, block = program_of(student)
    whole = view(original)
    # Only what is stored in the file itself can be written back.
    stored = view(student).constants
    weights = [
        name for name in trainable(graph) if name in stored and stored[name].shape == graph.constants[name].shape
    ]
    one = next(iter(samples.batches(1)))
    seen = probe(student, graph, block, weights, one, engine)
    found = reach(graph, block, weights, seen, whole)
    names = candidates(graph, whole, found.steps, seen, found.targets, found.trained)
    looked = _looked(samples)
    theirs = _answers(by_runtime(original, [*found.targets, *names], engine), looked)
    mine = _answers(by_runtime(student, [*found.targets, *names], engine), looked)
    targets = tuple(n for n in found.targets if mine[n].shape == theirs[n].shape)
    hidden = by_name([n for n in (*names, *found.targets) if n not in targets], mine, theirs)
    terms = output_terms(targets, theirs, [name for name in targets if squashed(whole, name)])
    if not terms and not hidden:
        raise ModelError("nothing can be tuned: no output of the two models can be compared")
    wanted = list(dict.fromkeys([*(t.name for t in terms), *(h.name for h in hidden)]))
    function = _function(graph, block, found, wanted, device)
    outside = by_runtime(student, found.outside, engine) if found.outside else None
    notes = (*found.notes, *_integer_note(len(integer_weights(graph))))
    answers = original_answers(original, wanted, engine, device)
    ends = list(dict.fromkeys(t.name for t in terms)) or wanted
    judge = original_answers(original, ends, engine, device) if ends != wanted else answers
    return Pair(function, answers, judge, outside, terms, hidden, notes)


def _function(graph: Graph, block: Block, found: Reach, wanted: list[str], device: torch.device) -> Function:
    try:
        return build(graph, block, found.given, wanted, found.trained, device)
    except Failed as failure:
        raise ModelError(f"nothing can be tuned: torch cannot compute {failure}") from failure


def _integer_note(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} weights are kept as integers, and stay as they are: tune before you quantize",)


def _looked(samples: Samples) -> list[Feeds]:
    found: list[Feeds] = []
    count = 0
    for feeds in samples.batches(8):
        found.append(feeds)
        count += 8
        if count >= LOOKED_AT:
            break
    return found


def _answers(answers: Answers, batches: list[Feeds]) -> dict[str, Array]:
    """Answers to all batches, one after the other on axis 0 where they differ in nothing else."""
    parts = [answers(feeds) for feeds in batches]
    found = {}
    for name in parts[0]:
        arrays = [part[name].cpu().numpy() for part in parts]
        alike = [a for a in arrays if a.ndim and a.shape[1:] == arrays[0].shape[1:]]
        found[name] = np.concatenate(alike) if alike else arrays[0]
    return found
