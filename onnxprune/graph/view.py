"""A read-only view of a model: nodes of the main graph and of every If/Loop/Scan body in one flat order.

A *value id* names a value: the tensor's name in the main graph, ``<owner>/<attribute>::<name>`` inside a body.  So two
bodies may use the same tensor name.  A name that a body does not define refers to the enclosing graph, as in ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from weakref import WeakValueDictionary

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.graph.tensors import bodies_of

Array = np.ndarray
#: From this many bytes on, a decoded constant is not cached for the next reader.
LARGE = 1 << 22


@dataclass(frozen=True, eq=False)
class Node:
    """One node.  ``inputs`` and ``outputs`` are value ids, ``None`` for an empty optional slot.

    ``position`` is its index in the node list of its own graph; ``scope`` names that graph.
    """

    index: int
    position: int
    proto: onnx.NodeProto
    scope: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]

    @property
    def op(self) -> str:
        return str(self.proto.op_type)

    @property
    def domain(self) -> str:
        domain = str(self.proto.domain)
        return "" if domain == "ai.onnx" else domain

    @property
    def label(self) -> str:
        """The node's name in messages: its name or, for a nameless node, its operator and first output."""
        if self.proto.name:
            return str(self.proto.name)
        return f"{self.op}->{next((o for o in self.outputs if o), '?')}"

    def attribute(self, name: str) -> onnx.AttributeProto | None:
        return next((a for a in self.proto.attribute if a.name == name), None)

    def integer(self, name: str, default: int) -> int:
        stated = self.attribute(name)
        return default if stated is None else int(stated.i)

    def integers(self, name: str) -> tuple[int, ...] | None:
        stated = self.attribute(name)
        return None if stated is None else tuple(int(i) for i in stated.ints)

    def string(self, name: str, default: str) -> str:
        stated = self.attribute(name)
        return default if stated is None else stated.s.decode()

    def bodies(self) -> Iterator[tuple[str, onnx.GraphProto]]:
        for attribute in self.proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.name, attribute.g
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for position, graph in enumerate(attribute.graphs):
                    yield f"{attribute.name}[{position}]", graph


@dataclass(frozen=True, eq=False)
class Body:
    """The inputs and outputs of one graph, as value ids.  The main graph has owner ``None``."""

    owner: int | None
    attribute: str
    scope: str
    proto: onnx.GraphProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """The flattened, topologically ordered view of ``model``.  Never modifies it."""

    model: onnx.ModelProto
    nodes: tuple[Node, ...]
    bodies: tuple[Body, ...]
    initializers: Mapping[str, onnx.TensorProto]
    types: Mapping[str, onnx.TypeProto]

    @property
    def main(self) -> Body:
        return self.bodies[0]

    @cached_property
    def opsets(self) -> Mapping[str, int]:
        return {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in self.model.opset_import}

    @cached_property
    def functions(self) -> frozenset[tuple[str, str]]:
        return frozenset((f.domain, f.name) for f in self.model.functions)

    @cached_property
    def producer(self) -> Mapping[str, int]:
        return {out: node.index for node in self.nodes for out in node.outputs if out is not None}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """Value id -> ((node index, input slot), ...).  Includes nodes of bodies that capture the value."""
        uses: dict[str, list[tuple[int, int]]] = {}
        for node in self.nodes:
            for slot, value in enumerate(node.inputs):
                if value is not None:
                    uses.setdefault(value, []).append((node.index, slot))
        return {value: tuple(own) for value, own in uses.items()}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The main graph's inputs that a caller must feed, without initializers listed as inputs."""
        return tuple(name for name in self.main.inputs if name not in self.initializers)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return self.main.outputs

    @cached_property
    def constants(self) -> Mapping[str, Array]:
        """Value id -> array, for initializers and Constant nodes, without sparse tensors and strings."""
        return _Constants(self)

    @cached_property
    def computed_constants(self) -> frozenset[str]:
        """Constants and values that nodes compute from them alone.  Does not look into control flow."""
        constants = set(self.constants)
        for node in self.nodes:
            inputs = [value for value in node.inputs if value is not None]
            if inputs and constants.issuperset(inputs) and not any(True for _ in node.bodies()):
                constants.update(out for out in node.outputs if out is not None)
        return frozenset(constants)

    def body_of(self, node: Node, attribute: str) -> Body:
        return next(b for b in self.bodies if b.owner == node.index and b.attribute == attribute)


class _Constants(Mapping[str, Array]):
    """Decodes each constant on first use.  Caches a large one only while somebody holds it, so that the weights of a
    large model are not all in memory twice."""

    def __init__(self, graph: Graph) -> None:
        self._tensors: dict[str, onnx.TensorProto] = dict(graph.initializers)
        self._cache: dict[str, Array] = {}
        self._large: WeakValueDictionary[str, Array] = WeakValueDictionary()
        for node in graph.nodes:
            if node.op == "Constant" and node.domain == "" and node.outputs and node.outputs[0] is not None:
                value = node.proto.attribute[0] if len(node.proto.attribute) == 1 else None
                if value is None:
                    continue
                if value.name == "value":
                    self._tensors[node.outputs[0]] = value.t
                elif value.name in ("value_float", "value_floats"):
                    data = value.f if value.name == "value_float" else list(value.floats)
                    self._cache[node.outputs[0]] = np.asarray(data, dtype=np.float32)
                elif value.name in ("value_int", "value_ints"):
                    numbers = value.i if value.name == "value_int" else list(value.ints)
                    self._cache[node.outputs[0]] = np.asarray(numbers, dtype=np.int64)
        self._tensors = {k: t for k, t in self._tensors.items() if t.data_type != onnx.TensorProto.STRING}

    def __getitem__(self, key: str) -> Array:
        array = self._cache.get(key, self._large.get(key))
        if array is None:
            array = numpy_helper.to_array(self._tensors[key])
            (self._large if array.nbytes >= LARGE else self._cache)[key] = array
        return array

    def __contains__(self, key: object) -> bool:
        return key in self._tensors or key in self._cache

    def __iter__(self) -> Iterator[str]:
        yield from {**self._tensors, **self._cache}

    def __len__(self) -> int:
        return len({*self._tensors, *self._cache})


def view(model: onnx.ModelProto) -> Graph:
    """Flatten ``model`` into a :class:`Graph`.  Cost: linear in nodes; decodes no weight."""
    nodes: list[Node] = []
    bodies: list[Body] = []
    initializers: dict[str, onnx.TensorProto] = {}
    types: dict[str, onnx.TypeProto] = {}

    def walk(proto: onnx.GraphProto, scope: str, outer: Mapping[str, str], owner: int | None, attribute: str) -> None:
        names = dict(outer)

        def define(name: str) -> str:
            names[name] = scope + name
            return names[name]

        inputs = tuple(define(i.name) for i in proto.input)
        for tensor in proto.initializer:
            initializers[define(tensor.name)] = tensor
        for sparse in proto.sparse_initializer:
            define(sparse.values.name)
        place = len(bodies)
        bodies.append(Body(owner, attribute, scope, proto, inputs, ()))
        for position, node in _sorted(proto, names):
            index = len(nodes)
            # The checker reports an input that nothing defines.  Here it is an unknown value.
            ins = tuple(names.get(i, scope + i) if i else None for i in node.input)
            outs = tuple(define(o) if o else None for o in node.output)
            entry = Node(index, position, node, scope, ins, outs)
            nodes.append(entry)
            for which, body in entry.bodies():
                walk(body, f"{scope}{node.name or node.op_type}#{index}/{which}::", names, index, which)
        outputs = tuple(names.get(o.name, scope + o.name) for o in proto.output)
        bodies[place] = Body(owner, attribute, scope, proto, inputs, outputs)
        for info in [*proto.value_info, *proto.input, *proto.output]:
            if info.HasField("type"):
                types.setdefault(names.get(info.name, scope + info.name), info.type)

    walk(model.graph, "", {}, None, "")
    return Graph(model, tuple(nodes), tuple(bodies), initializers, types)


def _sorted(proto: onnx.GraphProto, known: Mapping[str, str]) -> list[tuple[int, onnx.NodeProto]]:
    """Nodes in an order that defines every value before its use.  onnxruntime accepts files in another order.

    A sorted file keeps its order.  Nodes in a cycle come last.  Cost: linear in nodes and edges, times the logarithm of
    the number of nodes ready at once (Kahn's algorithm).
    """
    maker = {o: place for place, node in enumerate(proto.node) for o in node.output if o and o not in known}
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for place, node in enumerate(proto.node):
        waits.append({maker[i] for i in _reads(node) if i in maker})
        for before in waits[place]:
            readers.setdefault(before, []).append(place)
    ready = [place for place, before in enumerate(waits) if not before]
    order: list[int] = []
    while ready:
        place = heappop(ready)
        order.append(place)
        for reader in readers.get(place, ()):
            waits[reader].discard(place)
            if not waits[reader]:
                heappush(ready, reader)
    order += sorted({*range(len(waits))}.difference(order))
    return [(place, proto.node[place]) for place in order]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for body in bodies_of(attribute):
            own = {i.name for i in body.input} | {t.name for t in body.initializer}
            own |= {o for inner in body.node for o in inner.output}
            for inner in body.node:
                yield from (name for name in _reads(inner) if name not in own)
