"""Shapes that a file states of its values, against those that ONNX's own inference finds."""

from __future__ import annotations

import onnx

from onnxprune.graph.infer import declared_shape
from onnxprune.graph.tensors import copied, outlined


def without_wrong_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int, str | None]:
    """(``model``, or a copy of it without the value_info that inference contradicts; how many those were; the first
    line of what the full check of ``onnx.checker`` then still holds against it).

    Nothing is taken out where that does not settle the check.  Cost: one inference of all shapes, a few where the
    check fails.
    """
    outline = outlined(model)
    found = objection(outline)
    if found is None or not model.graph.value_info:
        return model, 0, found
    stated = list(outline.graph.value_info)
    del outline.graph.value_info[:]
    if objection(outline) is not None:
        return model, 0, found
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
    """The first line of what the full check of ``onnx.checker``, inference of shapes included, holds against it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker throws whatever its C++ side throws
        return str(error).strip().splitlines()[0]
    return None


def _contradicts(stated: onnx.TypeProto, inferred: onnx.TypeProto | None) -> bool:
    if inferred is None:
        return False
    said, found = declared_shape(stated), declared_shape(inferred)
    if said is None or found is None:
        return False
    return len(said) != len(found) or any(
        a is not None and b is not None and a != b for a, b in zip(said, found, strict=True)
    )
