"""Rounds of refinement: hidden layers step to reduce their reader's residual, then the reader is fitted again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from onnxprune.refit.free import FreeLayer, chain_function
from onnxprune.refit.hidden import HiddenLayer
from onnxprune.refit.job import LayerJob
from onnxprune.refit.one_layer import Prior, fit_layer
from onnxprune.refit.refine import Goal, Link, WeightedLayer, refine
from onnxprune.refit.sampled import Sampler
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted

Array = np.ndarray
Chain = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Refinement:
    """``hidden``: index of a reader -> the hidden layers that lead to it, the nearest first."""

    jobs: Mapping[int, LayerJob]
    hidden: Mapping[int, Sequence[HiddenLayer]]
    sampler: Sampler
    solution: Solution
    rounds: int

    def improve(self, reader: LayerJob, fitted: Refitted, prior: Prior) -> Refitted:
        """Alternate steps and fits while rounds help, at most ``rounds`` times.  ``fitted``: the reader's first fit."""
        pruned = self.sampler.pair.pruned
        leading = takewhile(
            lambda one: one.layer.index in self.solution.weights and pruned.has(one.layer.data),
            self.hidden[reader.index],
        )
        stretch = [(one, self._chain(one)) for one in leading]
        for _ in range(self.rounds):
            # A layer with a later reader in reach is left for that reader to refine.
            better = [
                self._step(stretch[: k + 1], reader)
                for k, (one, _) in enumerate(stretch)
                if self._last_reader(one.layer.index) == reader.index
            ]
            if not any(better):
                break
            again, prior = fit_layer(reader, prior, self.sampler, self.solution)
            if again is not None:
                fitted = Refitted(fitted.node, fitted.before, again.after, fitted.accepted or again.accepted)
        return fitted

    def _last_reader(self, index: int) -> int:
        return max(reader for reader, stretch in self.hidden.items() if any(h.layer.index == index for h in stretch))

    def _step(self, stretch: Sequence[tuple[HiddenLayer, Chain]], reader: LayerJob) -> bool:
        """Refine the farthest hidden layer of ``stretch`` and recompute the activations that depend on it.

        Returns whether it helped.
        """
        hidden = self.jobs[stretch[-1][0].layer.index]
        links = [Link(chain, self._weighted(self.jobs[one.reader.index])) for one, chain in stretch[::-1]]
        scale = reader.target.scale[reader.part.kept_outputs].astype(np.float32)
        goal, farthest = Goal(scale, reader.window, hidden.constant), self._weighted(hidden)
        better = refine(farthest, links, goal, *self.sampler.maps(hidden, reader, farthest.weights.shape))
        if better is None:
            return False
        self.solution.keep(hidden, better)
        pruned = self.sampler.pair.pruned
        for batch in range(pruned.count):
            output = farthest.forward(pruned.get(hidden.layer.data, batch), better)
            for (one, _), link in zip(stretch[::-1], links, strict=True):
                inner = link.chain(output)
                pruned.put(one.reader.data, batch, inner)
                if one.reader is not reader.layer:
                    output = link.reader.forward(inner, link.reader.weights)
        return True

    def _weighted(self, job: LayerJob) -> WeightedLayer:
        pruned = self.sampler.pair.pruned
        free = FreeLayer(pruned.graph, job.layer, pruned.engine)
        return WeightedLayer(free, self.solution.weights[job.index], job.part.stored, job.axis)

    def _chain(self, one: HiddenLayer) -> Chain:
        pruned = self.sampler.pair.pruned
        source, result = one.layer.output, one.reader.data
        return chain_function(pruned.graph, one.chain, source, result, pruned.constant, pruned.engine)
