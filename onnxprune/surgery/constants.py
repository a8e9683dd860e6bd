"""New values for a model's constants; everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.graph.tensors import copy_but, map_tensors
from onnxprune.graph.view import view

Array = np.ndarray


def with_constants(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy of ``model`` with other numbers in its constants: ``values`` by value id, of initializers and of Constant
    nodes, those in bodies included.

    Each keeps its shape, and its element type: values are rounded to it.  A tensor whose bytes stay the same keeps its
    form in the file.  Cost: one copy of the model.

    Raises:
        KeyError: where there is no such constant.
        ValueError: where the shape of a value is not that of the constant.
    """
    graph = view(model)
    stored = dict(graph.initializers)
    for node in graph.nodes:
        value = node.attribute("value")
        if node.op == "Constant" and not node.domain and value is not None and node.outputs[0] is not None:
            stored[node.outputs[0]] = value.t
    changed = {id(stored[name]): array for name, array in values.items()}

    def change(tensor: onnx.TensorProto) -> onnx.TensorProto:
        return tensor if id(tensor) not in changed else _with_values(tensor, changed[id(tensor)])

    return map_tensors(model, change)


def _with_values(tensor: onnx.TensorProto, array: Array) -> onnx.TensorProto:
    before = numpy_helper.to_array(tensor)
    if array.shape != before.shape:
        raise ValueError(f"constant '{tensor.name}' has shape {before.shape}, got values of shape {array.shape}")
    after = np.ascontiguousarray(array.astype(before.dtype))
    if after.tobytes() == before.tobytes():
        return tensor
    made = copy_but(tensor, {"raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"})
    made.raw_data = numpy_helper.from_array(after, tensor.name).raw_data
    return made
