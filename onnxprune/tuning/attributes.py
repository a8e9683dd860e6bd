"""Attributes of a node in the form that its torch function reads."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from onnxprune.tuning.operators.types import to_torch


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """Numbers, text and lists as Python values, tensors as torch tensors.  Leaves out bodies.

    Raises:
        Unsupported: torch does not compute the type of a tensor.
    """
    values: dict[str, object] = {}
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            continue
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = to_torch(numpy_helper.to_array(value))
        elif isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str)):
            value = [v.decode() if isinstance(v, bytes) else v for v in value]
        values[attribute.name] = value
    return values
