"""Outputs for changed weights.  The part of the graph before the weights does not run again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.outputs import stack
from onnxprune.engine.segment import Runner
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.engine.store import Store
from onnxprune.graph.facts import Facts
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph

Array = np.ndarray
_Piece = tuple[ort.InferenceSession, Sequence[str], Sequence[str]]


class Relay(Runner):
    """A runner that pauses at ``stops`` (ascending node indices) and computes outcomes from there.

    About √(number of stops) fixed cuts divide the nodes after a stop into pieces.  Pieces whose constants do not
    change share their sessions.  So an outcome costs a few runs over the rest of the graph and one small session.
    """

    def __init__(
        self,
        graph: Graph,
        facts: Facts,
        store: Store,
        batches: Iterable[Mapping[str, Array]],
        engine: Engine,
        stops: Iterable[int],
        outputs: Sequence[str],
    ) -> None:
        super().__init__(graph, facts, store, "relay:", list(batches), engine)
        self._stops = sorted(set(stops))
        self._bounds = _every_root(self._stops, len(graph.nodes))
        self._places = [node.index for node in self._nodes]
        self._sessions: dict[int, _Piece] = {}
        self._outputs = tuple(outputs)
        self.held = set(outputs)

    def advance(self, index: int) -> None:
        """Move on to the stop ``index``, stop by stop, so that the pieces are always the same."""
        for stop in self._stops:
            if self._cursor < stop <= index:
                super().advance(stop)

    def outcome(self, replaced: Mapping[Use, Array]) -> list[Array]:
        """Each output over all batches, with the constants ``replaced`` in the nodes from the last stop on."""
        bounds = [self._cursor, *(bound for bound in self._bounds if bound > self._cursor)]
        at = [bisect_left(self._places, bound) for bound in bounds]
        pieces = [self._piece(start, end, replaced) for start, end in pairwise(at) if start < end]
        columns: list[list[Array]] = [[] for _ in self._outputs]
        for batch in range(self.count):
            known: dict[str, Array] = {}
            for session, inputs, wanted in pieces:
                if wanted:
                    feeds = {v: known[v] if v in known else self.get(v, batch) for v in inputs}
                    known.update(zip(wanted, run(session, feeds, wanted), strict=True))
            for column, value in zip(columns, self._outputs, strict=True):
                column.append(np.atleast_1d(known[value] if value in known else self.get(value, batch)))
        return [stack(column) for column in columns]

    def _piece(self, start: int, end: int, replaced: Mapping[Use, Array]) -> _Piece:
        first, last = self._places[start], self._places[end - 1]
        mine = {use: array for use, array in replaced.items() if first <= use[0] <= last}
        if not mine and start in self._sessions:
            return self._sessions[start]
        nodes = self._nodes[start:end]
        wanted = self._wanted(nodes)
        model, inputs = self._model(nodes, wanted, mine)
        made = (open_session(model, self.engine), inputs, wanted)
        if not mine:
            self._sessions[start] = made
        return made


def _every_root(stops: Sequence[int], end: int) -> list[int]:
    """Every √n-th of n ``stops``, with 0 and ``end``.

    Each short piece costs one run and keeps onnxruntime from fusing across it.  Each long piece needs a long session.

    >>> _every_root([3, 5, 8, 13], 20)
    [0, 8, 20]
    """
    every = max(1, round(len(stops) ** 0.5))
    return sorted({0, *stops[every::every], end})
