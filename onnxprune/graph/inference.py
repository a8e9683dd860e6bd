"""Shape inference of one node, from everything known before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import numpy_helper

from onnxprune.graph.folding import SMALL
from onnxprune.graph.infer import NEWEST, declared_shape, infer_outputs, newest_schema
from onnxprune.graph.known import Known
from onnxprune.graph.view import Node

#: Operators of the default domain without shape inference in onnx.  Their output has the shape of their input.
SHAPE_KEPT = frozenset({"GroupNormalization", "MeanVarianceNormalization", "SimplifiedLayerNormalization"})
#: Operators that slide a window.  If it is longer than its input, inference continues, but a run would fail.
WINDOWED = frozenset(
    ["Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "AveragePool", "LpPool", "MaxPool"]
)


def infer(known: Known, node: Node) -> None:
    """Record the types and shapes that inference knows of the node's outputs."""
    if node.domain == "" and node.op in SHAPE_KEPT and node.outputs and node.outputs[0] is not None:
        known.alias(node.outputs[0], node.inputs[0])
        return
    schema = _schema(known, node)
    types = None if schema is None else _input_types(known, node)
    if schema is None or types is None:
        return
    inferred = _inferred(known, node, schema, types)
    if inferred is None:
        # The checker and the final run judge the model.  Here the value stays unknown.
        known.contradictions.add(node.index)
        _take_stated(known, node)
        return
    for name, value in zip(node.proto.output, node.outputs, strict=True):
        if value is not None and name in inferred and inferred[name].HasField("tensor_type"):
            _record(known, node, value, inferred[name])
    if node.op == "Reshape" and not _same_count(known, node.inputs[0], node.outputs[0]):
        known.contradictions.add(node.index)


def _schema(known: Known, node: Node) -> onnx.defs.OpSchema | None:
    """The operator's schema in the model's opset; ``None`` if onnx does not know the operator."""
    version = known.graph.opsets.get(node.domain)
    if version is None or not onnx.defs.has(node.proto.op_type, version, node.domain):
        return None
    return onnx.defs.get_schema(node.proto.op_type, version, node.domain)


def _input_types(known: Known, node: Node) -> dict[str, onnx.TypeProto] | None:
    """Types of the node's inputs, by their names in the node; ``None`` if one is unknown."""
    types: dict[str, onnx.TypeProto] = {}
    for name, value in zip(node.proto.input, node.inputs, strict=True):
        kind = None if value is None else known.type_of(value)
        if value is not None and kind is None:
            return None
        if kind is not None:
            types[name] = kind
    return types


def _inferred(
    known: Known, node: Node, schema: onnx.defs.OpSchema, types: Mapping[str, onnx.TypeProto]
) -> Mapping[str, onnx.TypeProto] | None:
    """Output types by ``schema`` or, if that leaves shapes open, by the operator's newest version."""
    data = {}
    for name, value in zip(node.proto.input, node.inputs, strict=True):
        constant = known.value(value)
        if constant is not None and constant.size <= SMALL and constant.dtype.kind in "iufb":
            data[name] = numpy_helper.from_array(constant)

    def attempt(
        version: onnx.defs.OpSchema, imports: Sequence[onnx.OperatorSetIdProto]
    ) -> Mapping[str, onnx.TypeProto] | None:
        try:
            return infer_outputs(node, version, types, data, imports)
        except Exception:
            return None

    inferred = attempt(schema, known.imports)
    if not _has_shapes(inferred) and (newest := newest_schema(node, schema)) is not None:
        # Exporters use what only a later version of the operator allows (a negative axis), and runtimes accept it.
        later = attempt(newest, NEWEST)
        inferred = later if _has_shapes(later) else inferred
    return inferred


def _record(known: Known, node: Node, value: str, inferred: onnx.TypeProto) -> None:
    """Record the inferred type and shape of one output."""
    kind = inferred.tensor_type
    known.dtypes[value] = int(kind.elem_type)
    dims = declared_shape(inferred)
    if dims is None:
        return
    known.partial[value] = dims
    least = 1 if node.op in WINDOWED and not _is_empty(known, node) else 0
    # Inference computes negative sizes if a window is larger than its input.
    if any(dim.HasField("dim_value") and dim.dim_value < least for dim in kind.shape.dim):
        known.contradictions.add(node.index)
    if all(d is not None for d in dims):
        known.shapes[value] = tuple(d for d in dims if d is not None)


def _take_stated(known: Known, node: Node) -> None:
    """Take the sizes that a Reshape states, although they contradict its input.

    The input's size may be a guess, if it depends on the data.  The stated sizes hold all the same.  Only the size
    that the Reshape leaves open counts as changing.
    """
    if node.op != "Reshape" or len(node.inputs) < 2:
        return
    source, out = node.inputs[0], node.outputs[0] if node.outputs else None
    target = known.value(node.inputs[1])
    shape = known.before.get(out or "")
    if target is None or shape is None or out is None or source not in known.dtypes or node.inputs[1] in known.sized:
        return
    stated = target.ravel().tolist()
    if 0 not in stated and len(stated) == len(shape):
        sizes = tuple(old + known.grown if size < 0 else size for size, old in zip(stated, shape, strict=True))
        known.put(out, known.dtypes[source], sizes)


def _same_count(known: Known, one: str | None, other: str | None) -> bool:
    """Whether two values have the same number of elements; True if a shape is unknown."""
    before, after = known.shapes.get(one or ""), known.shapes.get(other or "")
    return before is None or after is None or math.prod(before) == math.prod(after)


def _is_empty(known: Known, node: Node) -> bool:
    return any(0 in known.shapes.get(value, ()) for value in node.inputs if value is not None)


def _has_shapes(inferred: Mapping[str, onnx.TypeProto] | None) -> bool:
    return inferred is not None and all(declared_shape(kind) is not None for kind in inferred.values())
