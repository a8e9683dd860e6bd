"""What the rest of a graph makes of other weights, without running again what comes before them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.outputs import stack
from onnxprune.engine.segment import Runner, Use
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.engine.store import Store
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph

Array = np.ndarray
#: Places in the list of nodes: the first, and the one after the last.
_Span = tuple[int, int]
_Piece = tuple[ort.InferenceSession, Sequence[str], Sequence[str]]


#: Sessions that a trial runs at most, other than those whose weights it changes.
MOST_SESSIONS = 64


class Relay(Runner):
    """A runner over ``stops``, ascending node indices.  Nodes between two stops share a session, made once; only
    those whose weights change get another, so that a trial costs the rest of the graph and a small session.

    Where there are many stops, pieces that a trial does not change share sessions: what a session costs to call does
    not grow with the square of the graph.
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
        self._bounds = sorted({0, *stops, len(graph.nodes)})
        places = [node.index for node in self._nodes]
        # Where in the list of nodes each stop stands, and the pieces that lie between.
        self._starts = [bisect_left(places, stop) for stop in self._bounds]
        self._pieces = [piece for piece in pairwise(self._starts) if piece[0] < piece[1]]
        self._chunk = -(-len(self._pieces) // MOST_SESSIONS)
        self._sessions: dict[_Span, _Piece] = {}
        self._outputs = tuple(outputs)
        self.held = set(outputs)

    def advance(self, index: int) -> None:
        """Move on to the stop ``index``, piece by piece."""
        for stop in self._bounds[bisect_right(self._bounds, self._cursor) : bisect_right(self._bounds, index)]:
            super().advance(stop)
        first = self._first()
        self._sessions = {span: piece for span, piece in self._sessions.items() if span[0] >= first}

    def _first(self) -> int:
        """The place in the list of nodes of the first one that was not executed."""
        return self._starts[bisect_left(self._bounds, self._cursor)]

    def outcome(self, replaced: Mapping[Use, Array]) -> list[Array]:
        """Each output over all batches, if the nodes from the last stop on had the constants ``replaced``."""
        pieces = [self._piece(span, replaced) for span in self._spans({index for index, _ in replaced})]
        found: list[list[Array]] = [[] for _ in self._outputs]
        for batch in range(self.count):
            known: dict[str, Array] = {}
            for session, inputs, wanted in pieces:
                if wanted:
                    feeds = {v: known[v] if v in known else self.get(v, batch) for v in inputs}
                    known.update(zip(wanted, run(session, feeds, wanted), strict=True))
            for column, value in zip(found, self._outputs, strict=True):
                column.append(np.atleast_1d(known[value] if value in known else self.get(value, batch)))
        return [stack(column) for column in found]

    def _spans(self, changed: Set[int]) -> list[_Span]:
        """Runs of nodes from the last stop on: the pieces with ``changed`` nodes alone, the others in chunks."""
        first = self._first()
        spans: list[_Span] = []
        chunk_of_last = -1
        for number, (start, end) in enumerate(self._pieces):
            if start < first:
                continue
            alone = any(self._nodes[k].index in changed for k in range(start, end))
            chunk = -1 if alone else number // self._chunk
            if chunk >= 0 and chunk == chunk_of_last:
                spans[-1] = spans[-1][0], end
            else:
                spans.append((start, end))
            chunk_of_last = chunk
        return spans

    def _piece(self, span: _Span, replaced: Mapping[Use, Array]) -> _Piece:
        nodes = self._nodes[slice(*span)]
        inside = {node.index for node in nodes}
        mine = {use: array for use, array in replaced.items() if use[0] in inside}
        if not mine and span in self._sessions:
            return self._sessions[span]
        wanted = self._wanted(nodes)
        model, inputs = self._model(nodes, wanted, mine)
        made = (open_session(model, self.engine), inputs, wanted)
        if not mine:
            self._sessions[span] = made
        return made
