"""Convert models of opsets that onnxruntime no longer runs, with onnx's own converter."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import version_converter

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import copied

#: The first opset whose operators onnxruntime implements.
FIRST = 7
#: Target opsets to try.  Each changes more than the one before.
TRIED = (7, 9, 11, 13)
#: Operators that once had an attribute for the axis of their second operand.
BINARY = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})


def runnable(
    model: onnx.ModelProto, where: str, objection: Callable[[onnx.ModelProto], str | None]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """(``model``, or a copy in a later opset; what was done, one sentence or none).

    ``objection`` says why onnxruntime does not load a model, or returns ``None`` if it does.  Models from opset 7 on
    stay unchanged, and so do older models that onnxruntime loads.  Cost: a session and a copy, for old models only.

    Raises:
        ModelError: if no conversion makes it run.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), FIRST)
    if opset >= FIRST:
        return model, ()
    refused = objection(model)
    if refused is None:
        return model, ()
    for version in TRIED:
        try:
            converted = _converted(model, opset, version)
        except Exception as error:  # the converter throws whatever its C++ side throws
            refused = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            continue
        refused = objection(converted)
        if refused is None:
            return converted, (f"converted from opset {opset}, which onnxruntime does not run, to opset {version}",)
    raise ModelError(
        f"{where} uses opset {opset}, which onnxruntime does not run, and onnx cannot convert it to a later opset "
        f"({refused}); export the model again with opset 13 or newer"
    )


def _converted(model: onnx.ModelProto, start: int, end: int) -> onnx.ModelProto:
    """Convert one opset at a time: the converter needs shapes that inference knows only for the later operators."""
    for version in range(start + 1, end + 1):
        stated = _with_known_types(model)
        if version == FIRST:
            # The converter gets these axes wrong (onnx 1.23) and forgets PRelu, so write them before it runs.
            stated = _with_axes_written(stated)
        model = _without_shapes(version_converter.convert_version(stated, version))
    return model


def _with_axes_written(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which an Unsqueeze gives second operands the axes of size one that ``broadcast`` and ``axis`` imply.

    Raises:
        ValueError: if the rank of an operand is unknown.
    """
    explicit = copied(model)
    values = [*explicit.graph.input, *explicit.graph.value_info, *explicit.graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
    ranks.update({tensor.name: len(tensor.dims) for tensor in explicit.graph.initializer})
    nodes: list[onnx.NodeProto] = []
    for node in explicit.graph.node:
        stated = {a.name: a.i for a in node.attribute if a.name in ("broadcast", "axis")}
        if node.op_type == "PRelu" or (node.op_type in BINARY and stated.get("broadcast")):
            if any(name not in ranks for name in node.input):
                raise ValueError(f"the ranks at {node.op_type} '{node.name or node.output[0]}' are unknown")
            first, second = (ranks[name] for name in node.input)
            aligned = 1 if node.op_type == "PRelu" and second == 1 else stated.get("axis", first - second)
            if (missing := first - aligned - second) > 0:
                wide = f"{node.output[0]}_{node.input[1]}_wide"
                axes = list(range(second, second + missing))
                nodes.append(onnx.helper.make_node("Unsqueeze", [node.input[1]], [wide], axes=axes))
                node.input[1] = wide
            for place in reversed([k for k, a in enumerate(node.attribute) if a.name in stated]):
                del node.attribute[place]
        nodes.append(node)
    del explicit.graph.node[:]
    explicit.graph.node.extend(nodes)
    return explicit


def _with_known_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the shapes that the converter needs to make broadcasting explicit."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # without inferred shapes, the converter does what it can
        return model


def _without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without value_info: the converter leaves outdated shapes, and values without a type, in it.

    onnxruntime refuses both.
    """
    bare = copied(model)
    del bare.graph.value_info[:]
    if bare.ir_version < 4:
        # From IR version 4 on, a caller may override an initializer that is also an input, so runtimes do not fuse it.
        bare.ir_version = 4
        stored = {tensor.name for tensor in bare.graph.initializer}
        for place in reversed([k for k, value in enumerate(bare.graph.input) if value.name in stored]):
            del bare.graph.input[place]
    return bare
