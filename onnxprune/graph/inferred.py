"""Check the shapes that a file states for its values against ONNX's own inference."""

from __future__ import annotations

import onnx

from onnxprune.graph.infer import declared_shape
from onnxprune.graph.tensors import copied, outlined


def without_wrong_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int, str | None]:
    """(``model``, or a copy without the value_info that inference contradicts; how many of them; the remaining objection).

    The objection is the first line of the full check of ``onnx.checker``, or ``None``.  Removes nothing if removal does
    not settle the check.  Cost: one inference of all shapes, or a few if the check fails.
    """
    outline = outlined(model)
    fault = objection(outline)
    if fault is None or not model.graph.value_info:
        return model, 0, fault
    stated = list(outline.graph.value_info)
    del outline.graph.value_info[:]
    if objection(outline) is not None:
        return model, 0, fault
    inferred = onnx.shape_inference.infer_shapes(outline, data_prop=True)
    known = {value.name: value.type for value in inferred.graph.value_info}
    wrong = {value.name for value in stated if _contradicts(value.type, known.get(value.name))}
    outline.graph.value_info.extend(value for value in stated if value.name not in wrong)
    if objection(outline) is not None:
        wrong = {value.name for value in stated}
    right = copied(model)
    for place in reversed([k for k, value in enumerate(right.graph.value_info) if value.name in wrong]):
        del right.graph.value_info[place]
    return right, len(wrong), None


def objection(model: onnx.ModelProto) -> str | None:
    """The first line of the objection of ``onnx.checker`` in its full check, shape inference included, or ``None``."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker throws whatever its C++ side throws
        return str(error).strip().splitlines()[0]
    return None


def _contradicts(stated: onnx.TypeProto, inferred: onnx.TypeProto | None) -> bool:
    if inferred is None:
        return False
    left, right = declared_shape(stated), declared_shape(inferred)
    if left is None or right is None:
        return False
    return len(left) != len(right) or any(
        a is not None and b is not None and a != b for a, b in zip(left, right, strict=True)
    )
