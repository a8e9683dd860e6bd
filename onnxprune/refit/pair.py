"""The original and the cut model side by side, over the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.engine.segment import Runner
from onnxprune.graph.view import Node
from onnxprune.refit.hidden import Hidden
from onnxprune.refit.job import Job

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Pair:
    """``picked``: nodes that pick some elements (a TopK); what they make of the original is given to ``pruned``."""

    original: Runner
    pruned: Runner
    picked: tuple[Node, ...]

    def in_order(self, jobs: Sequence[Job], hidden: Mapping[int, Sequence[Hidden]]) -> Iterator[Job]:
        """Each of ``jobs`` (in graph order) once the input of its layer and the activations of its target are there.

        ``hidden``: per reader's index the hidden layers before it, whose inputs stay until its turn.  Constants that
        ``pruned.replaced`` gains while a job is at work hold from its layer on.
        """
        self.pruned.given = frozenset(node.index for node in self.picked)
        behind = -1
        for number, job in enumerate(jobs):
            self._hold(jobs[number:], hidden, behind)
            self.original.advance(max(job.target.until + 1, job.index))
            for value in (o for node in self.picked if behind < node.index < job.index for o in _outputs(node)):
                for batch in range(self.pruned.count):
                    self.pruned.put(value, batch, self.original.get(value, batch))
            self.pruned.advance(job.index)
            behind = job.index
            if self.pruned.has(job.layer.data) and self.original.has(job.target.value):
                yield job

    def _hold(self, jobs: Sequence[Job], hidden: Mapping[int, Sequence[Hidden]], behind: int) -> None:
        """Keep what ``jobs`` will ask for."""
        picked = {o for node in self.picked if node.index > behind for o in _outputs(node)}
        self.original.held = {job.target.value for job in jobs} | picked
        self.pruned.held = {job.target.other for job in jobs if job.target.other is not None}
        self.pruned.held |= {one.layer.data for job in jobs for one in hidden.get(job.index, ())}


def _outputs(node: Node) -> list[str]:
    return [output for output in node.outputs if output is not None]
