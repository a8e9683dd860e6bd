"""The rows of a refit, from the parts of several workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from onnxprune.cluster.actors import all_results
from onnxprune.cluster.refit_part import LayerRows
from onnxprune.graph.uses import Use
from onnxprune.refit.fit import Rows
from onnxprune.refit.hidden import HiddenLayer
from onnxprune.refit.job import LayerJob
from onnxprune.refit.sampled import BlockRows, rows_of

Array = np.ndarray


class SpreadRows:
    """A :class:`onnxprune.refit.sampled.RowSource` over ``actors``: one
    :class:`onnxprune.cluster.refit_part.RefitPart` per piece, in order, at the beginning of the same refit.

    ``constants``: the weights found so far.  Workers get each of them once.
    """

    def __init__(self, actors: Sequence[Any], constants: Mapping[Use, Array]) -> None:
        self._actors, self._constants = actors, constants
        self._sent: dict[Use, Array] = {}
        self._turns: list[LayerRows] = []

    def in_order(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]]) -> Iterator[LayerJob]:
        known = {job.index: job for job in jobs}
        for done in count():
            new = {use: array for use, array in self._constants.items() if self._sent.get(use) is not array}
            self._sent.update(new)
            answers = all_results([actor.advance(done, new) for actor in self._actors])
            self._turns = [turn for turn in answers if turn is not None]
            if not self._turns:
                return
            # The workers run the original while the caller fits the layer.
            ahead = [actor.lead() for actor in self._actors]
            yield known[self._turns[0][0]]
            all_results(ahead)

    def rows(self, job: LayerJob) -> tuple[Rows, Rows] | None:
        parts: list[BlockRows] = []
        for _, rows in self._turns:
            if rows is None:
                return None
            parts += rows
        # Fits need hundreds of megabytes, and so do the rows: hold them once.
        self._turns = []
        return rows_of(job, parts)
