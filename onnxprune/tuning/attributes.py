"""Attributes of a node as its torch function reads them."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from onnxprune.tuning.operators.types import to_torch


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """Numbers, text and lists as Python's, tensors as torch's; bodies are left out.

    Raises:
        Unsupported: for a tensor of a type that torch does not compute.
    """
    found: dict[str, object] = {}
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
        found[attribute.name] = value
    return found
