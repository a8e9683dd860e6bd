"""New values for a model's constants; everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxprune.graph.edit import Editor
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
    editor = Editor(view(model))
    for value, array in values.items():
        before = editor.graph.constants[value]
        if array.shape != before.shape:
            raise ValueError(f"constant '{value}' has shape {before.shape}, got values of shape {array.shape}")
        if not editor.store(value, array.astype(before.dtype)):
            raise KeyError(value)
    return editor.finish()
