"""Edits on a copy of a model, made through onnx-graphsurgeon: constants, attributes, shapes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.graph.tensors import bodies_of
from onnxprune.graph.view import Graph, Node, copies_of, kept_in_half, original_of, shared_uses
from onnxprune.surgery.carry import from_surgeon, to_surgeon
from onnxprune.surgery.same import as_bytes

Array = np.ndarray
Use = tuple[int, int]


class Editor:
    """One editing session on a copy of ``graph.model``; ``finish`` gives the new model.

    Nodes are addressed by their index in ``graph``; nothing is renamed and no node changes place.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.surgeon = to_surgeon(graph.model)
        self._bodies: dict[str, gs.Graph] = {"": self.surgeon}
        # Looked up once: inserted nodes shift positions, and bodies come after their owners.
        self._nodes: list[gs.Node] = []
        owned = {body.owner: body for body in reversed(graph.bodies[1:])}
        for node in graph.nodes:
            self._nodes.append(self._bodies[node.scope].nodes[node.position])
            if node.index in owned:
                for body in graph.bodies[1:]:
                    inner = self._nodes[-1].attrs.get(body.attribute) if body.owner == node.index else None
                    if isinstance(inner, gs.Graph):
                        self._bodies[body.scope] = inner
        self._names = {t.name for g in self._bodies.values() for t in g.tensors(check_duplicates=False).values()}

    def node(self, node: Node) -> gs.Node:
        return self._nodes[node.index]

    def constants(self, values: Mapping[Use, Array]) -> None:
        """Give each use (node index, input slot) of a constant the array ``values[use]``.

        A constant whose every use asks for the same array keeps its name and place, as do its copies; otherwise the
        uses that differ get constants of their own, so that no other reader is touched.  What is kept in half precision
        stays so where all who read one Cast of it agree.
        """
        by_value: dict[str, list[Use]] = {}
        for use in values:
            by_value.setdefault(original_of(self.graph, self._value(use)), []).append(use)
        exposed = {o for body in self.graph.bodies for o in body.outputs}
        for value, uses in by_value.items():
            copies, readers = copies_of(self.graph, value), set(shared_uses(self.graph, value))
            same = all(_equal(values[u], values[uses[0]]) for u in uses)
            hidden = exposed.isdisjoint(copies)
            if same and readers == set(uses) and hidden and self._in_place(value, values[uses[0]]):
                self._restate(copies, values[uses[0]].shape)
                continue
            halves = self._halves(value, values)
            askers = {u for copy in copies for u in self.graph.consumers.get(copy, ()) if self._asks(u[0])}
            made: list[tuple[Array, gs.Constant]] = []
            for index, slot in uses:
                place, array = halves.get((index, slot), ((index, slot), values[index, slot]))
                twin = next((c for a, c in made if _equal(a, array)), None)
                if twin is None:
                    twin = gs.Constant(self._fresh(f"{value}_pruned"), array)
                    made.append((array, twin))
                self.rewire(self.graph.nodes[place[0]], place[1], twin)
            if readers == set(uses) and len({values[u].shape for u in uses}) == 1:
                # Who asks for its size would keep the original alive, and get the old size.
                for index, slot in askers:
                    self.rewire(self.graph.nodes[index], slot, made[0][1])

    def _value(self, use: Use) -> str:
        return self.graph.nodes[use[0]].inputs[use[1]] or ""

    def _asks(self, index: int) -> bool:
        """Whether a node only asks for the size of what it reads."""
        return self.graph.nodes[index].op in ("Shape", "Size") and self.graph.nodes[index].domain == ""

    def _in_place(self, value: str, array: Array) -> bool:
        if kept_in_half(self.graph, value):
            array = array.astype(np.float16)
        producer = self.graph.producer.get(value)
        if producer is None:
            index, slot = self.graph.consumers[value][0]
            tensor = self.node(self.graph.nodes[index]).inputs[slot]
            if not isinstance(tensor, gs.Constant):
                return False
            tensor.values = array
            return True
        node = self.graph.nodes[producer]
        if node.op == "Constant" and node.domain == "" and node.attribute("value") is not None:
            self.node(node).attrs["value"] = gs.Constant("", array)
            return True
        return False

    def _halves(self, value: str, values: Mapping[Use, Array]) -> dict[Use, tuple[Use, Array]]:
        """Uses of casts of a constant in half precision -> the input of the Cast, and what to store there."""
        found: dict[Use, tuple[Use, Array]] = {}
        exposed = {o for body in self.graph.bodies for o in body.outputs}
        for name in copies_of(self.graph, value) if kept_in_half(self.graph, value) else ():
            node = self.graph.nodes[self.graph.producer[name]] if name in self.graph.producer else None
            if node is None or node.op != "Cast":
                continue
            uses = shared_uses(self.graph, name)
            arrays = [values[use] for use in uses if use in values]
            if len(arrays) == len(uses) and uses and exposed.isdisjoint(copies_of(self.graph, name)):
                if all(_equal(array, arrays[0]) for array in arrays):
                    self._restate(copies_of(self.graph, name), arrays[0].shape)
                    found.update(dict.fromkeys(uses, ((node.index, 0), arrays[0].astype(np.float16))))
        return found

    def _restate(self, values: Iterable[str], shape: tuple[int, ...]) -> None:
        """What is recorded of the shapes of constants that nodes make: Constant nodes, and copies."""
        for value in values:
            producer = self.graph.producer.get(value)
            for tensor in () if producer is None else self._nodes[producer].outputs:
                if tensor.shape is not None:
                    tensor.shape = list(shape)

    def rewire(self, node: Node, slot: int, tensor: gs.Tensor) -> None:
        inputs = self.node(node).inputs
        while len(inputs) <= slot:
            inputs.append(gs.Variable.empty())
        inputs[slot] = tensor

    def add_input(self, node: Node, slot: int, array: Array) -> None:
        """Give an empty optional input slot a constant of its own."""
        stem = next((o for o in node.proto.output if o), node.proto.op_type)
        self.rewire(node, slot, gs.Constant(self._fresh(f"{stem}_input{slot}"), array))

    def attribute(self, node: Node, name: str, value: int | float | tuple[int, ...] | None) -> None:
        attrs = self.node(node).attrs
        if value is None:
            attrs.pop(name, None)
        else:
            attrs[name] = list(value) if isinstance(value, tuple) else value

    def insert_before(self, node: Node, slot: int, op: str, operand: Array) -> None:
        """Put a two-input node between the node and its input ``slot``."""
        surgeon = self._bodies[node.scope]
        target = self.node(node)
        source = target.inputs[slot]
        out = gs.Variable(self._fresh(f"{source.name}_masked"))
        constant = gs.Constant(self._fresh(f"{source.name}_mask"), operand)
        extra = gs.Node(op, self._fresh(f"{op}_mask"), inputs=[source, constant], outputs=[out])
        surgeon.nodes.insert(surgeon.nodes.index(target), extra)
        target.inputs[slot] = out

    def insert_select(self, node: Node, slot: int, stays: Array, zero: Array, zero_slot: int | None) -> None:
        """Put a Where in front of input ``slot``: what ``stays`` passes, the rest becomes the node's own input
        ``zero_slot`` (a zero point), or ``zero`` where there is none."""
        target = self.node(node)
        source = target.inputs[slot]
        other = gs.Constant(self._fresh(f"{source.name}_zero"), zero)
        if zero_slot is not None and zero_slot < len(target.inputs) and not target.inputs[zero_slot].is_empty():
            other = target.inputs[zero_slot]
        out = gs.Variable(self._fresh(f"{source.name}_masked"))
        constant = gs.Constant(self._fresh(f"{source.name}_mask"), stays)
        extra = gs.Node("Where", self._fresh("Where_mask"), inputs=[constant, source, other], outputs=[out])
        surgeon = self._bodies[node.scope]
        surgeon.nodes.insert(surgeon.nodes.index(target), extra)
        target.inputs[slot] = out

    def shapes(self, sizes: Mapping[str, Mapping[int, int]]) -> None:
        """Rewrite static dims of recorded value shapes: value id -> {axis: size}."""
        for body in self.graph.bodies:
            surgeon = self._bodies.get(body.scope)
            if surgeon is None:
                continue
            for name, tensor in surgeon.tensors(check_duplicates=False).items():
                wanted = sizes.get(body.scope + name)
                if wanted and isinstance(tensor, gs.Variable) and tensor.shape is not None:
                    dims = list(tensor.shape)
                    for axis, size in wanted.items():
                        if axis < len(dims) and isinstance(dims[axis], int):
                            dims[axis] = size
                    tensor.shape = dims

    def _fresh(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def finish(self) -> onnx.ModelProto:
        return from_surgeon(self.surgeon, self.graph.model)


def _equal(a: Array, b: Array) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def sweep(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Drop constants, and nodes computed from them, that a cut left unread.  What was unread before stays.

    Nodes that are not in the original and compute what others do, as copies made for a reader each that it turned out
    to need no difference between, are joined.
    """
    unread_before = _unread(original)
    found = onnx.ModelProto()
    found.CopyFrom(model)
    _join(found.graph, {name for node in original.graph.node for name in node.output})
    while True:
        dead = _unread(found) - unread_before
        if not dead:
            return found
        _remove(found.graph, dead)


def _join(graph: onnx.GraphProto, known: Container[str]) -> None:
    """Let who reads a node that is not ``known`` read the first that does the same; it is left unread."""
    exposed = {output.name for output in graph.output}
    first: dict[bytes, onnx.NodeProto] = {}
    instead: dict[str, str] = {}
    fresh = {node.op_type for node in graph.node if not any(name in known for name in node.output)}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in instead:
                node.input[slot] = instead[name]
        if node.op_type not in fresh or not node.input:
            continue
        new = not any(name in known for name in node.output) and exposed.isdisjoint(node.output)
        bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, attribute=node.attribute)
        same = first.setdefault(as_bytes(bare), node)
        if new and same is not node and len(same.output) == len(node.output):
            instead.update(zip(node.output, same.output, strict=True))


def _unread(model: onnx.ModelProto) -> set[str]:
    made: set[str] = set()
    read: set[str] = set()

    def walk(graph: onnx.GraphProto) -> None:
        made.update(t.name for t in graph.initializer)
        read.update(o.name for o in graph.output)
        for node in graph.node:
            if not any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                made.update(node.output[:1] if len(node.output) == 1 else [])
            read.update(node.input)
            for attribute in node.attribute:
                for body in bodies_of(attribute):
                    walk(body)

    walk(model.graph)
    return {name for name in made - read if name}


def _remove(graph: onnx.GraphProto, dead: Iterable[str]) -> None:
    gone = set(dead)
    for place in reversed([k for k, t in enumerate(graph.initializer) if t.name in gone]):
        del graph.initializer[place]
    for place in reversed([k for k, n in enumerate(graph.node) if len(n.output) == 1 and n.output[0] in gone]):
        del graph.node[place]
    for place in reversed([k for k, i in enumerate(graph.input) if i.name in gone]):
        del graph.input[place]
    for place in reversed([k for k, v in enumerate(graph.value_info) if v.name in gone]):
        del graph.value_info[place]
    for node in graph.node:
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                _remove(body, gone)
