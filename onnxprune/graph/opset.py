"""Files of opsets that onnxruntime no longer runs, brought to one that it does by onnx's own converter."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import version_converter

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import copied

#: The first opset whose operators onnxruntime implements; opsets to try, each changes more than the one before.
FIRST = 7
TRIED = (7, 9, 11, 13)
#: Operators that took the axis at which their second operand stands.
BINARY = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})


def runnable(
    model: onnx.ModelProto, where: str, objection: Callable[[onnx.ModelProto], str | None]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """(``model``, or a copy in a later opset; what was done, one sentence).

    ``objection`` says why onnxruntime does not load a model, ``None`` where it does.  Models from opset 7 on, and older
    ones that are loaded, stay as they are.  Cost: a session and a copy, for old models only.

    Raises:
        ModelError: where no conversion makes it run.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), FIRST)
    if opset >= FIRST:
        return model, ()
    refused = objection(model)
    if refused is None:
        return model, ()
    for version in TRIED:
        try:
            found = _converted(model, opset, version)
        except Exception as error:  # the converter throws whatever its C++ side throws
            refused = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            continue
        refused = objection(found)
        if refused is None:
            return found, (f"converted from opset {opset}, which onnxruntime does not run, to opset {version}",)
    raise ModelError(
        f"{where} uses opset {opset}, which onnxruntime does not run, and onnx's converter brings it to no later one "
        f"({refused}); export the model again with opset 13 or newer"
    )


def _converted(model: onnx.ModelProto, start: int, end: int) -> onnx.ModelProto:
    """One opset at a time: later operators tell shapes that those before do not, and that the converter asks for."""
    for version in range(start + 1, end + 1):
        stated = _with_known_types(model)
        if version == FIRST:
            # Before the converter does it, which gets the axes wrong (onnx 1.23) and forgets PRelu.
            stated = _with_axes_written(stated)
        model = _without_shapes(version_converter.convert_version(stated, version))
    return model


def _with_axes_written(model: onnx.ModelProto) -> onnx.ModelProto:
    """Second operands with the axes of size one that ``broadcast`` and ``axis`` left unsaid, by an Unsqueeze.

    Raises:
        ValueError: where the rank of an operand is not known.
    """
    found = copied(model)
    values = [*found.graph.input, *found.graph.value_info, *found.graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
    ranks.update({tensor.name: len(tensor.dims) for tensor in found.graph.initializer})
    nodes: list[onnx.NodeProto] = []
    for node in found.graph.node:
        said = {a.name: a.i for a in node.attribute if a.name in ("broadcast", "axis")}
        if node.op_type == "PRelu" or (node.op_type in BINARY and said.get("broadcast")):
            if any(name not in ranks for name in node.input):
                raise ValueError(f"the ranks at {node.op_type} '{node.name or node.output[0]}' are not known")
            first, second = (ranks[name] for name in node.input)
            aligned = 1 if node.op_type == "PRelu" and second == 1 else said.get("axis", first - second)
            if (missing := first - aligned - second) > 0:
                wide = f"{node.output[0]}_{node.input[1]}_wide"
                axes = list(range(second, second + missing))
                nodes.append(onnx.helper.make_node("Unsqueeze", [node.input[1]], [wide], axes=axes))
                node.input[1] = wide
            for place in reversed([k for k, a in enumerate(node.attribute) if a.name in said]):
                del node.attribute[place]
        nodes.append(node)
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found


def _with_known_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the shapes that the converter needs to write broadcasting out."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # whatever inference cannot tell, the converter is left to
        return model


def _without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The converter states shapes of before, and values that it adds without a type, which onnxruntime refuses."""
    found = copied(model)
    del found.graph.value_info[:]
    if found.ir_version < 4:
        # From version 4 on a constant that is listed as an input, too, may be overridden, and runtimes do not fuse it.
        found.ir_version = 4
        stored = {tensor.name for tensor in found.graph.initializer}
        for place in reversed([k for k, value in enumerate(found.graph.input) if value.name in stored]):
            del found.graph.input[place]
    return found
