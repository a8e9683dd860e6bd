"""ONNX's own shape inference of one node, with workarounds for what it rejects from exporters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper as oh
from onnx import shape_inference

from onnxprune.graph.view import Node

#: Opset import of the newest opset that the installed onnx knows.
NEWEST = (oh.make_opsetid("", onnx.defs.onnx_opset_version()),)


def declared_shape(kind: onnx.TypeProto) -> tuple[int | None, ...] | None:
    """Dims of a tensor type, ``None`` per dynamic dim (some files write -1); ``None`` for non-tensors and unknown rank."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in dims)


def newest_schema(node: Node, schema: onnx.defs.OpSchema) -> onnx.defs.OpSchema | None:
    """The newest version of the node's operator; ``None`` if it is ``schema`` or lacks an attribute of the node."""
    if node.domain or not onnx.defs.has(node.proto.op_type):
        return None
    newest = onnx.defs.get_schema(node.proto.op_type)
    same = newest.since_version == schema.since_version
    return None if same or any(a.name not in newest.attributes for a in node.proto.attribute) else newest


def _retyped(kind: onnx.TypeProto, old: int, new: int) -> onnx.TypeProto:
    if kind.tensor_type.elem_type != old:
        return kind
    copy = onnx.TypeProto()
    copy.CopyFrom(kind)
    copy.tensor_type.elem_type = new
    return copy


def infer_outputs(
    node: Node,
    schema: onnx.defs.OpSchema,
    types: Mapping[str, onnx.TypeProto],
    data: Mapping[str, onnx.TensorProto],
    imports: Sequence[onnx.OperatorSetIdProto],
) -> Mapping[str, onnx.TypeProto]:
    """Types of the outputs of ``node``, inferred with ``schema``: output name → type.

    ``types`` and ``data`` map input names to types and known values.  Raises whatever that inference raises.
    """

    def infer(kinds: Mapping[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
        outputs: dict[str, onnx.TypeProto] = shape_inference.infer_node_outputs(
            schema, node.proto, dict(kinds), input_data=dict(data), opset_imports=list(imports)
        )
        return outputs

    try:
        return infer(types)
    except onnx.checker.ValidationError:
        # Exporters use bfloat16 in operator versions that know only the older float types.
        swapped = {name: _retyped(t, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT) for name, t in types.items()}
        if swapped == dict(types):
            raise
        inferred = infer(swapped)
        return {name: _retyped(t, onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16) for name, t in inferred.items()}
