"""What no sound model has, refused before anything is computed from it: each in a bounded time, in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import all_tensors, bodies_of, is_repeated, stored_bytes
from onnxprune.memory import room

#: Axes that every numpy holds.
AXES = 32
#: Nodes that a model may have once its local functions are written out.
NODES = 1 << 18

_Key = tuple[str, str, str]


def check_bounds(model: onnx.ModelProto, where: str) -> None:
    """Refuse names that are no text, tensors whose data are not what they state, inputs that no machine holds, and
    functions that call themselves or grow beyond all measure.  ``where``: what errors call the model.

    Cost: one pass over the messages of the model, the numbers in its tensors left aside.

    Raises:
        ModelError: naming the tensor, input or function.
    """
    text = _not_text(model)
    if text is not None:
        told = text.decode("utf-8", errors="backslashreplace")
        raise ModelError(f"{where}: the name '{told}' is not UTF-8; export the model again")
    for tensor in all_tensors(model):
        fault = _fault(tensor)
        if fault:
            raise ModelError(f"{where}: tensor '{tensor.name}' {fault}; export the model again")
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.type.HasField("tensor_type") and _item_bytes(kind) is None:
            raise ModelError(f"{where}: input '{value.name}' has no element type that onnx knows ({kind}); export the model again")
        fault = "" if value.name in weights else _too_large(value)
        if fault:
            raise ModelError(
                f"{where}: input '{value.name}' {fault}; export the model with the size that it is used at"
            )
    _check_functions(model, where)


def _not_text(message: Message) -> bytes | None:
    """The first text below ``message`` that is none: protobuf gives its bytes instead."""
    if isinstance(message, onnx.TensorProto):
        # Its other fields are long, and are no text.
        texts = [message.name, message.doc_string]
        parts: list[Message] = [*message.metadata_props, *message.external_data]
    else:
        texts, parts = [], []
        for field, value in message.ListFields():
            if field.message_type is not None:
                parts.extend(value if is_repeated(field) else [value])
            elif field.type == field.TYPE_STRING:
                texts.extend(value if is_repeated(field) else [value])
    found = next((text for text in texts if not isinstance(text, str)), None)
    return found if found is not None else next(filter(None, map(_not_text, parts)), None)


def _fault(tensor: onnx.TensorProto) -> str:
    """What is wrong with a stored tensor."""
    if len(tensor.dims) > AXES:
        return f"has {len(tensor.dims):,} axes, more than {AXES}"
    if any(size < 0 for size in tensor.dims):
        return f"has a negative size: {list(tensor.dims)}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return ""
    expected = stored_bytes(tensor)
    if tensor.HasField("raw_data"):
        if expected is not None and len(tensor.raw_data) != expected:
            return f"has {len(tensor.raw_data):,} bytes of data where its shape {list(tensor.dims)} needs {expected:,}"
        return ""
    try:
        name = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        return ""
    count, found = math.prod(tensor.dims), len(getattr(tensor, name))
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        count *= 2
    # Types of less than a byte share an element, or do not.
    packed = expected if expected is not None and name == "int32_data" and expected < count else count
    if found not in (count, packed):
        return f"has {found:,} values where its shape {list(tensor.dims)} needs {count:,}"
    return ""


def _too_large(value: onnx.ValueInfoProto) -> str:
    """What is wrong with an input: axes without a size count as one, and a size of 0 does not make the rest small."""
    if not value.type.HasField("tensor_type"):
        return ""
    dims = [max(int(dim.dim_value), 1) for dim in value.type.tensor_type.shape.dim]
    if len(dims) > AXES:
        return f"has {len(dims):,} axes, more than {AXES}"
    each = _item_bytes(value.type.tensor_type.elem_type) or 1
    needed, left = math.prod(dims) * each, room()
    if needed > left:
        return f"takes {needed:,} bytes for one sample, where there is room for {left:,}"
    return ""


def _item_bytes(kind: int) -> int | None:
    """Bytes of an element; None for a type that onnx does not know."""
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, ValueError, TypeError):
        return None


def _check_functions(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError where local functions call themselves, or have too many nodes once they are written out."""
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
    if not functions:
        return
    sizes: dict[_Key, int] = {}
    calls = {key: list(_calls(function.node, functions)) for key, function in functions.items()}
    order: list[_Key] = []
    state: dict[_Key, int] = {}
    for first in functions:
        # Depth first without recursion: a chain of functions may be long.
        stack = [(first, iter(calls[first]))] if first not in state else []
        state.setdefault(first, 1)
        while stack:
            key, rest = stack[-1]
            following = next((k for k in rest if state.get(k) != 2), None)
            if following is None:
                stack.pop()
                state[key] = 2
                order.append(key)
            elif state.get(following) == 1:
                raise ModelError(
                    f"{where}: local function '{following[1]}' calls itself, which never ends; export the model again"
                )
            else:
                state[following] = 1
                stack.append((following, iter(calls[following])))
    for key in order:
        sizes[key] = _written_out(functions[key].node, sizes)
    total = _written_out(model.graph.node, sizes)
    if total > NODES:
        largest = max(order, key=lambda key: sizes[key])
        raise ModelError(
            f"{where}: its local functions, such as '{largest[1]}', call each other so often that they make more than "
            f"{NODES:,} nodes; export the model without functions"
        )


def _key(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type, getattr(node, "overload", "")


def _calls(nodes: Iterable[onnx.NodeProto], functions: Iterable[_Key]) -> Iterator[_Key]:
    for node in nodes:
        if _key(node) in functions:
            yield _key(node)
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                yield from _calls(body.node, functions)


def _written_out(nodes: Iterable[onnx.NodeProto], sizes: dict[_Key, int]) -> int:
    """Nodes where the functions of known size are written out; counting ends far above what is allowed."""
    total = 0
    for node in nodes:
        total += sizes.get(_key(node), 1)
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                total += _written_out(body.node, sizes)
    return min(total, NODES << 10)
