"""Replace values of a model's constants.  Everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxprune.graph.edit import Editor
from onnxprune.graph.view import view

Array = np.ndarray


def with_constants(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy of ``model`` with other numbers in its constants.

    ``values`` maps value ids of initializers and Constant nodes, also in bodies, to arrays.  A constant keeps its shape
    and its element type, to which the values are rounded.  A tensor whose bytes do not change keeps its form in the
    file.  Cost: one copy of the model.

    Raises:
        KeyError: if there is no such constant.
        ValueError: if an array has another shape than its constant.
    """
    editor = Editor(view(model))
    for value, array in values.items():
        before = editor.graph.constants[value]
        if array.shape != before.shape:
            raise ValueError(f"constant '{value}' has shape {before.shape}, but the values have shape {array.shape}")
        if not editor.store(value, array.astype(before.dtype)):
            raise KeyError(value)
    return editor.finish()
