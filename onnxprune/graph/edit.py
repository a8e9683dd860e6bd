"""The only way to change a model: edits on a copy of the protobuf.  Whatever no edit names keeps its bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.graph.tensors import DATA_FIELDS, all_tensors, copy_but, map_tensors
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Body, Graph, Node, view

Array = np.ndarray

# Copy tensors with more elements last, so that a tensor which an edit replaces is never copied.
_LARGE = 1 << 14


class Editor:
    """One editing session on a copy of ``graph.model``; ``finish`` returns the new model.

    Edits name nodes of ``graph`` and its value ids.  Nodes keep their names and their order.  Whatever no edit names
    keeps its bytes: functions, metadata, annotations, unknown fields.  Cost: one copy of the model.

    >>> from onnx import parser
    >>> graph = view(parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) '
    ...                                 '<float[2] w = {1, 2}> { y = Add (x, w) }'))
    >>> editor = Editor(graph)
    >>> editor.rewire(graph.nodes[0], 1, editor.add("w_new", np.float32([3, 4])))
    >>> [tensor.name for tensor in editor.finish().graph.initializer]
    ['w_new']
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        sources = list(all_tensors(graph.model))
        late = {id(tensor) for tensor in sources if math.prod(tensor.dims) > _LARGE}
        self._model = map_tensors(graph.model, lambda t: onnx.TensorProto(name=t.name) if id(t) in late else t)
        pairs = zip(sources, all_tensors(self._model), strict=True)
        # Protobuf keeps one Python object per referenced message, so ids stay valid.
        self._late = {id(target): (source, target) for source, target in pairs if id(source) in late}
        self._copy = view(self._model)
        self._made: dict[str, onnx.TensorProto] = {}
        self._rewired: dict[Use, str] = {}
        self._inserted: list[tuple[Node, onnx.NodeProto]] = []

    # -- constants

    def store(self, value: str, array: Array) -> bool:
        """Replace the numbers of the initializer or Constant node ``value``, and restate its shape.

        Returns ``False`` and does nothing if the value is not such a constant.
        """
        target = self._tensor(value)
        if target is None:
            return False
        before = self.graph.constants.get(value)
        if before is not None and same_array(before, array):
            return True
        source, _ = self._late.get(id(target), (target, target))
        made = copy_but(source, DATA_FIELDS)
        made.MergeFrom(numpy_helper.from_array(array))
        if id(target) in self._late:
            self._late[id(target)] = made, target
        else:
            target.CopyFrom(made)
        self.restate(value, dict(enumerate(array.shape)))
        return True

    def add(self, stem: str, array: Array) -> str:
        """Add a constant and return its name.  It is stored in the innermost graph visible to all its readers."""
        name = self.unused(stem)
        self._made[name] = numpy_helper.from_array(array, name)
        return name

    def _tensor(self, value: str) -> onnx.TensorProto | None:
        producer = self._copy.producer.get(value)
        if producer is None:
            return self._copy.initializers.get(value)
        node = self._copy.nodes[producer]
        stored = node.attribute("value") if node.op == "Constant" and node.domain == "" else None
        return None if stored is None else stored.t

    # -- nodes

    def input(self, node: Node, slot: int) -> str:
        """The name that the node now reads at ``slot``; empty if it reads nothing."""
        inputs = self._copy.nodes[node.index].proto.input
        return str(inputs[slot]) if slot < len(inputs) else ""

    def rewire(self, node: Node, slot: int, name: str) -> None:
        """Make the node read ``name`` at ``slot``.  ``finish`` removes an initializer that nothing reads any more."""
        inputs = self._copy.nodes[node.index].proto.input
        inputs.extend([""] * (slot + 1 - len(inputs)))
        inputs[slot] = name
        self._rewired[node.index, slot] = name

    def attribute(self, node: Node, name: str, value: int | float | tuple[int, ...] | None) -> None:
        """Set an attribute; ``None`` removes it."""
        attributes = self._copy.nodes[node.index].proto.attribute
        place = next((k for k, attribute in enumerate(attributes) if attribute.name == name), None)
        if value is None:
            if place is not None:
                del attributes[place]
            return
        # onnx cannot infer the type of an empty list.
        kind = onnx.AttributeProto.INTS if isinstance(value, tuple) else None
        made = onnx.helper.make_attribute(name, value, attr_type=kind)
        if place is None:
            attributes.append(made)
            return
        if attributes[place].HasField("doc_string"):
            made.doc_string = attributes[place].doc_string
        attributes[place].CopyFrom(made)

    def insert(self, before: Node, op: str, inputs: Iterable[str], output: str) -> None:
        """Insert a node of the default domain in front of ``before``, after nodes inserted there earlier."""
        made = onnx.helper.make_node(op, list(inputs), [output], name=self.unused(f"{op}_mask"))
        self._inserted.append((before, made))

    # -- stated shapes

    def restate(self, value: str, sizes: Mapping[int, int]) -> None:
        """Change the sizes (axis → size) that the model states for a value.  Sizes that it leaves open stay open."""
        for info in self._stated.get(value, ()):
            dims = info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ()
            for axis, dim in enumerate(dims):
                if axis in sizes and dim.HasField("dim_value"):
                    dim.dim_value = sizes[axis]

    @cached_property
    def _stated(self) -> dict[str, list[onnx.ValueInfoProto]]:
        stated: dict[str, list[onnx.ValueInfoProto]] = {}
        for body in self._copy.bodies:
            inner = [body.scope + info.name for info in body.proto.value_info]
            for values, infos in (
                (body.inputs, body.proto.input),
                (body.outputs, body.proto.output),
                (inner, body.proto.value_info),
            ):
                for value, info in zip(values, infos, strict=True):
                    stated.setdefault(value, []).append(info)
        return stated

    # -- names

    def unused(self, stem: str) -> str:
        """``stem``, with a number appended if the model already has that name."""
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    @cached_property
    def _names(self) -> set[str]:
        names: set[str] = set()
        for body in self._copy.bodies:
            for part in (body.proto.input, body.proto.output, body.proto.initializer, body.proto.value_info):
                names.update(one.name for one in part)
            names.update(sparse.values.name for sparse in body.proto.sparse_initializer)
            for node in body.proto.node:
                names.update((node.name, *node.input, *node.output))
        return names

    # -- the end

    def finish(self) -> onnx.ModelProto:
        """The new model.  Ends the session."""
        self._drop_unread()
        scopes: dict[str, list[str]] = {name: [] for name in self._made}
        reads = [(name, self.graph.nodes[index].scope) for (index, _), name in self._rewired.items()]
        reads += [(name, before.scope) for before, node in self._inserted for name in node.input]
        for name, scope in reads:
            if name in scopes:
                scopes[name].append(scope)
        for name, tensor in self._made.items():
            if scopes[name]:
                home = self._innermost(scopes[name])
                home.proto.initializer.append(tensor)
                if self._model.ir_version < 4 and not home.scope:
                    # Before IR version 4, every initializer of the main graph must be an input as well.
                    home.proto.input.append(oh.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        bodies = {body.scope: body.proto for body in self._copy.bodies}
        # Insert from the end, so that earlier positions stay valid.
        for _, before, node in sorted(
            ((k, before, node) for k, (before, node) in enumerate(self._inserted)),
            key=lambda entry: (-entry[1].position, -entry[0]),
        ):
            bodies[before.scope].node.insert(before.position, node)
        for source, target in self._late.values():
            target.CopyFrom(source)
        return self._model

    def _innermost(self, scopes: list[str]) -> Body:
        outer = [body for body in self._copy.bodies if all(scope.startswith(body.scope) for scope in scopes)]
        return max(outer, key=lambda body: len(body.scope))

    def _drop_unread(self) -> None:
        """Remove initializers that lost their last reader in this session."""
        read = {value for body in self.graph.bodies for value in body.outputs}
        read |= {
            value
            for value, uses in self.graph.consumers.items()
            if any(use not in self._rewired or self._passed_on(use) for use in uses)
        }
        freed = {value for index, _ in self._rewired for value in self.graph.nodes[index].inputs} - read
        for body in self._copy.bodies:
            names = {tensor.name for tensor in body.proto.initializer if body.scope + tensor.name in freed}
            for tensor in body.proto.initializer:
                if tensor.name in names:
                    self._late.pop(id(tensor), None)
            forget(body.proto, names)

    def _passed_on(self, use: Use) -> bool:
        """Whether a node inserted in front of the reader now reads the value that it used to read."""
        index, slot = use
        before = self.graph.nodes[index].proto.input[slot]
        return any(node.index == index and before in made.input for node, made in self._inserted)


def forget(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove initializers of a graph in place, with their inputs, value_info and annotations."""
    stored = {tensor.name for tensor in graph.initializer if tensor.name in names}
    _remove(graph.initializer, [tensor.name in stored for tensor in graph.initializer])
    _remove(graph.input, [value.name in stored for value in graph.input])
    forget_notes(graph, names)


def forget_notes(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove value_info and quantization annotations of values that the graph no longer has."""
    _remove(graph.value_info, [value.name in names for value in graph.value_info])
    _remove(graph.quantization_annotation, [note.tensor_name in names for note in graph.quantization_annotation])


def _remove(items: object, gone: list[bool]) -> None:
    for place in reversed(range(len(gone))):
        if gone[place]:
            del items[place]  # type: ignore[attr-defined]


def same_array(a: Array, b: Array) -> bool:
    """Same type, shape and bits."""
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())
