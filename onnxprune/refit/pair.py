"""Runs the original and the cut model side by side, over the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.engine.segment import Runner
from onnxprune.graph.view import Node
from onnxprune.refit.hidden import HiddenLayer
from onnxprune.refit.job import LayerJob

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class RunnerPair:
    """``picked``: nodes that pick some elements (a TopK).  ``pruned`` gets their outputs from ``original``.

    ``kept``: values of ``original`` that stay, for later pairs with the same original.
    """

    original: Runner
    pruned: Runner
    picked: tuple[Node, ...]
    kept: frozenset[str] = frozenset()

    def in_order(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]]) -> Iterator[LayerJob]:
        """Yield each of ``jobs`` (in graph order) when its layer's input and its target's activations are computed.

        ``hidden``: index of a reader -> the hidden layers before it.  Their inputs stay until the reader's turn.
        The caller may add constants to ``pruned.replaced`` during a job.  They apply from its layer on.
        """
        self.pruned.given = frozenset(node.index for node in self.picked)
        done = -1
        for number, job in enumerate(jobs):
            self.lead(jobs[number:], hidden, done)
            for value in (o for node in self.picked if done < node.index < job.index for o in _outputs(node)):
                for batch in range(self.pruned.count):
                    self.pruned.put(value, batch, self.original.get(value, batch))
            self.pruned.advance(job.index)
            done = job.index
            if self.pruned.has(job.layer.data) and self.original.has(job.target.value):
                yield job

    def lead(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]], done: int) -> None:
        """Run the original as far as the first of ``jobs`` needs it.  ``done``: index of the job before; -1 at first.

        :meth:`in_order` does this in any case.  An earlier call runs the original while a layer is fitted elsewhere.
        """
        self._hold(jobs, hidden, done)
        self.original.advance(max(jobs[0].target.until + 1, jobs[0].index))

    def _hold(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]], done: int) -> None:
        """Make both runners hold the values that ``jobs`` still need.  ``done``: index of the last node that ran; -1 at first."""
        picked = {o for node in self.picked if node.index > done for o in _outputs(node)}
        self.original.held = {job.target.value for job in jobs} | picked | self.kept
        self.pruned.held = {job.target.other for job in jobs if job.target.other is not None}
        self.pruned.held |= {one.layer.data for job in jobs for one in hidden.get(job.index, ())}


def _outputs(node: Node) -> list[str]:
    return [output for output in node.outputs if output is not None]
