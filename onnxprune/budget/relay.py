"""What the rest of a graph makes of other weights, without running again what comes before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.outputs import stack
from onnxprune.engine.segment import Runner, Use
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.engine.store import Store
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node

Array = np.ndarray
_Piece = tuple[ort.InferenceSession, Sequence[str], Sequence[str]]


class Relay(Runner):
    """A runner over ``stops``, ascending node indices.  Nodes between two stops share a session, made once; only
    those whose weights change get another, so that a trial costs the rest of the graph and a small session."""

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
        self._sessions: dict[int, _Piece] = {}
        self._outputs = tuple(outputs)
        self.held = set(outputs)

    def advance(self, index: int) -> None:
        """Move on to the stop ``index``, piece by piece."""
        for stop in self._bounds:
            if self._cursor < stop <= index:
                super().advance(stop)

    def outcome(self, replaced: Mapping[Use, Array]) -> list[Array]:
        """Each output over all batches, if the nodes from the last stop on had the constants ``replaced``."""
        pieces = [
            self._piece(nodes, replaced)
            for start, end in pairwise(self._bounds)
            if start >= self._cursor and (nodes := [n for n in self._nodes if start <= n.index < end])
        ]
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

    def _piece(self, nodes: list[Node], replaced: Mapping[Use, Array]) -> _Piece:
        mine = {use: array for use, array in replaced.items() if any(n.index == use[0] for n in nodes)}
        start = nodes[0].index
        if not mine and start in self._sessions:
            return self._sessions[start]
        wanted = self._wanted(nodes)
        model, inputs = self._model(nodes, wanted, mine)
        made = (open_session(model, self.engine), inputs, wanted)
        if not mine:
            self._sessions[start] = made
        return made
