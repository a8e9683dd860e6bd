"""Run a graph piece by piece over many batches.  Each node runs once per batch, in graph order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.engine.session import Engine, open_session, run
from onnxprune.engine.store import Store
from onnxprune.graph.facts import Facts
from onnxprune.graph.layout import layout_of
from onnxprune.graph.uses import Use, kept_in_half
from onnxprune.graph.view import Graph, Node

Array = np.ndarray


class Runner:
    """A cursor over the main graph.  ``advance(n)`` executes the remaining nodes with an index below ``n``.

    A :class:`Store` holds values while a later node needs them, or while they are in ``held``.  ``replaced`` gives
    arrays for uses of constants.  The runner reads it when a node runs, so weights may be decided along the way.  The
    runner does not execute nodes in ``given``; its caller puts their outputs.
    """

    def __init__(
        self,
        graph: Graph,
        facts: Facts,
        store: Store,
        prefix: str,
        batches: Sequence[Mapping[str, Array]] | Callable[[], Iterable[Mapping[str, Array]]],
        engine: Engine,
    ) -> None:
        self.graph = graph
        self.store = store
        self.engine = engine
        self.replaced: dict[Use, Array] = {}
        self.held: set[str] = set()
        self.given: frozenset[int] = frozenset()
        self._prefix = prefix
        self._types = facts.dtypes
        self._facts = facts
        self._cursor = 0
        self._nodes = [n for n in graph.nodes if not n.scope and n.index not in facts.folded and not _is_constant(n)]
        self._sparse = {tensor.values.name: tensor for tensor in graph.model.graph.sparse_initializer}
        self._constants: dict[str, Array] = {}
        for node in graph.nodes:
            if node.index in facts.folded:
                self._constants.update(
                    {o: facts.values[o] for o in node.outputs if o is not None and o in facts.values}
                )
        inner = list(graph.bodies[1:])
        self._inner = {o for n in graph.nodes if n.scope for o in n.outputs if o is not None}
        self._inner |= {b.scope + t.name for b in inner for t in b.proto.initializer} | {
            i for b in inner for i in b.inputs
        }
        self._last_use = self._uses()
        self.count = 0
        for feeds in batches() if callable(batches) else batches:
            for name, array in feeds.items():
                if name in self._last_use:
                    store.put(prefix + name, self.count, array)
            self.count += 1

    def _uses(self) -> dict[str, int]:
        """Value -> index of the last main-graph node that reads it; a reader in a body counts as the body's owner."""
        last: dict[str, int] = {}
        owner = 0
        for node in self.graph.nodes:
            owner = node.index if not node.scope else owner
            for value in node.inputs:
                if value is not None:
                    last[value] = owner
        return last

    def has(self, value: str) -> bool:
        return self.store.has(self._prefix + value)

    def get(self, value: str, batch: int) -> Array:
        """The array of a value in one batch.  A constant, such as a constant output, has the same array in all batches."""
        fixed = None if self.has(value) else self.constant(value)
        return self.store.get(self._prefix + value, batch) if fixed is None else fixed

    def put(self, value: str, batch: int, array: Array) -> None:
        """Replace the array of ``value``.  Nodes that run later read the new array."""
        self.store.put(self._prefix + value, batch, array)

    def constant(self, value: str) -> Array | None:
        # Folded values come from the original graph.  A layout of a stored array must come from this graph.
        layout = layout_of(self.graph, self._facts, value)
        if layout is not None and layout.stored != value and layout.stored in self.graph.constants:
            array = self.graph.constants[layout.stored].transpose(layout.axes)
            wide = kept_in_half(self.graph, layout.stored)
            return np.ascontiguousarray(array, oh.tensor_dtype_to_np_dtype(self._types[value]) if wide else None)
        if value in self._constants:
            return self._constants[value]
        return self.graph.constants.get(value, None)

    def advance(self, index: int) -> None:
        """Execute every node with an index below ``index``."""
        ends = (bisect_left(self._nodes, end, key=_place) for end in (self._cursor, index))
        piece = [n for n in self._nodes[slice(*ends)] if n.index not in self.given]
        self._cursor = max(self._cursor, index)
        if piece:
            self._run(piece)
        self.release()

    def release(self) -> None:
        """Drop values that no later node reads."""
        for name in [v for v in self.store.values() if v.startswith(self._prefix)]:
            value = name[len(self._prefix) :]
            if value not in self.held and self._last_use.get(value, -1) < self._cursor:
                self.store.drop(name)

    def _wanted(self, piece: list[Node]) -> list[str]:
        """Outputs of ``piece`` that later nodes read, or that are in ``held``."""
        made = {o for n in piece for o in n.outputs if o is not None}
        return sorted(v for v in made if self._last_use.get(v, -1) > piece[-1].index or v in self.held)

    def _run(self, piece: list[Node]) -> None:
        wanted = self._wanted(piece)
        if not wanted:
            return
        model, inputs = self._model(piece, wanted, self.replaced)
        session = open_session(model, self.engine)
        names = {name: self._prefix + name for name in inputs}
        for batch in range(self.count):
            for value, array in zip(wanted, run(session, self.store.feeds(names, batch), wanted), strict=True):
                self.store.put(self._prefix + value, batch, array)

    def _model(
        self, piece: list[Node], wanted: list[str], replaced: Mapping[Use, Array]
    ) -> tuple[onnx.ModelProto, list[str]]:
        made = {o for n in piece for o in n.outputs if o is not None}
        nodes: list[onnx.NodeProto] = []
        initializers: dict[str, onnx.TensorProto] = {}
        inputs: dict[str, None] = {}
        sparse: dict[str, onnx.SparseTensorProto] = {}
        for node in piece:
            proto = node.proto
            changes = {slot: a for (index, slot), a in replaced.items() if index == node.index}
            if changes:
                proto = onnx.NodeProto()
                proto.CopyFrom(node.proto)
                for slot, array in changes.items():
                    name = f"onnxprune.{node.index}.{slot}"
                    while len(proto.input) <= slot:
                        proto.input.append("")
                    proto.input[slot] = name
                    initializers[name] = numpy_helper.from_array(array, name)
            nodes.append(proto)
            for slot, value in enumerate([*node.inputs, *self._captured(node)]):
                if value is None or value in made or slot in changes or value in self._inner:
                    continue
                constant = self.graph.initializers.get(value)
                if constant is not None and not value.startswith("onnxprune."):
                    initializers[value] = constant
                    continue
                if value in self._sparse:
                    sparse[value] = self._sparse[value]
                    continue
                known = self.constant(value)
                if known is not None:
                    initializers[value] = numpy_helper.from_array(known, value)
                else:
                    inputs[value] = None
        specs = [oh.make_tensor_value_info(v, self._type(v), None) for v in inputs]
        graph = oh.make_graph(nodes, "piece", specs, [onnx.ValueInfoProto(name=v) for v in wanted])
        graph.initializer.extend(initializers.values())
        graph.sparse_initializer.extend(sparse.values())
        model = oh.make_model(
            graph, opset_imports=self.graph.model.opset_import, ir_version=self.graph.model.ir_version
        )
        model.functions.extend(self.graph.model.functions)
        return model, list(inputs)

    def _type(self, value: str) -> int:
        if self.has(value):
            return int(oh.np_dtype_to_tensor_dtype(self.get(value, 0).dtype))
        return self._types[value]

    def _captured(self, node: Node) -> list[str]:
        """Outer values that the bodies of ``node`` read."""
        if not any(True for _ in node.bodies()):
            return []
        captured: dict[str, None] = {}
        for index in range(node.index + 1, len(self.graph.nodes)):
            inner = self.graph.nodes[index]
            if not inner.scope:
                break
            captured.update({v: None for v in inner.inputs if v is not None and v not in self._inner})
        return list(captured)


def _place(node: Node) -> int:
    return node.index


def _is_constant(node: Node) -> bool:
    return node.op == "Constant" and node.domain == ""
