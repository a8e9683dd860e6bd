"""Refuse what no sound model contains, before any computation: in bounded time, with a message of one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import all_tensors, bodies_of, is_repeated, stored_bytes
from onnxprune.memory import room

#: Maximum axes of a tensor: every numpy version supports this many.
AXES = 32
#: An input of fewer bytes is never what exhausts the memory.
SMALL = 1 << 20
#: Maximum nodes of a model after inlining its local functions.
NODES = 1 << 18

_Key = tuple[str, str, str]


def check_bounds(model: onnx.ModelProto, where: str) -> None:
    """Refuse names that are not text, tensors whose data do not match their shape, inputs that fit no machine, and
    functions that call themselves or expand to too many nodes.  Errors call the model ``where``.

    Cost: one pass over the messages of the model; tensor contents are not read.

    Raises:
        ModelError: if the model contains any of these; names the tensor, input or function.
    """
    text = _not_text(model)
    if text is not None:
        name = text.decode("utf-8", errors="backslashreplace")
        raise ModelError(f"{where}: the name '{name}' is not UTF-8; export the model again")
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
            raise ModelError(f"{where}: input '{value.name}' {fault}; export the model with the size you use")
    _check_functions(model, where)


def _not_text(message: Message) -> bytes | None:
    """The first string field below ``message`` that is not UTF-8: protobuf returns its bytes instead."""
    if isinstance(message, onnx.TensorProto):
        # Its other fields are long and hold no text.
        texts = [message.name, message.doc_string]
        parts: list[Message] = [*message.metadata_props, *message.external_data]
    else:
        texts, parts = [], []
        for field, value in message.ListFields():
            if field.message_type is not None:
                parts.extend(value if is_repeated(field) else [value])
            elif field.type == field.TYPE_STRING:
                texts.extend(value if is_repeated(field) else [value])
    faulty = next((text for text in texts if not isinstance(text, str)), None)
    return faulty if faulty is not None else next(filter(None, map(_not_text, parts)), None)


def _fault(tensor: onnx.TensorProto) -> str:
    """What is wrong with a stored tensor; empty if nothing is."""
    if len(tensor.dims) > AXES:
        return f"has {len(tensor.dims):,} axes, more than {AXES}"
    if any(size < 0 for size in tensor.dims):
        return f"has a negative size: {list(tensor.dims)}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return ""
    expected = stored_bytes(tensor)
    if tensor.HasField("raw_data"):
        if expected is not None and len(tensor.raw_data) != expected:
            return f"has {len(tensor.raw_data):,} bytes of data, but its shape {list(tensor.dims)} needs {expected:,}"
        return ""
    try:
        name = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        return ""
    count, stored = math.prod(tensor.dims), len(getattr(tensor, name))
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        count *= 2
    # Writers differ: values of less than a byte share an element, or have one each.
    packed = expected if expected is not None and name == "int32_data" and expected < count else count
    if stored not in (count, packed):
        return f"has {stored:,} values, but its shape {list(tensor.dims)} needs {count:,}"
    return ""


def _too_large(value: onnx.ValueInfoProto) -> str:
    """What is wrong with the size of an input; empty if nothing is.  Axes with no size, or size 0, count as one."""
    if not value.type.HasField("tensor_type"):
        return ""
    dims = [max(int(dim.dim_value), 1) for dim in value.type.tensor_type.shape.dim]
    if len(dims) > AXES:
        return f"has {len(dims):,} axes, more than {AXES}"
    each = _item_bytes(value.type.tensor_type.elem_type) or 1
    needed, left = math.prod(dims) * each, room()
    if needed > max(left, SMALL):
        return f"takes {needed:,} bytes for one sample, but only {left:,} are available"
    return ""


def _item_bytes(kind: int) -> int | None:
    """Bytes of an element; None for a type that onnx does not know."""
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, ValueError, TypeError):
        return None


def _check_functions(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError if local functions call themselves or have too many nodes after inlining."""
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
    if not functions:
        return
    sizes: dict[_Key, int] = {}
    calls = {key: list(_calls(function.node, functions)) for key, function in functions.items()}
    order: list[_Key] = []
    state: dict[_Key, int] = {}
    for first in functions:
        # Depth first, without recursion: a chain of functions may be long.
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
                    f"{where}: local function '{following[1]}' calls itself without end; export the model again"
                )
            else:
                state[following] = 1
                stack.append((following, iter(calls[following])))
    for key in order:
        sizes[key] = _inlined_size(functions[key].node, sizes)
    total = _inlined_size(model.graph.node, sizes)
    if total > NODES:
        largest = max(order, key=lambda key: sizes[key])
        raise ModelError(
            f"{where}: its local functions, such as '{largest[1]}', call each other so often that inlining them makes "
            f"more than {NODES:,} nodes; export the model without functions"
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


def _inlined_size(nodes: Iterable[onnx.NodeProto], sizes: dict[_Key, int]) -> int:
    """Number of nodes after inlining the functions with known ``sizes``.  Capped far above the maximum."""
    total = 0
    for node in nodes:
        total += sizes.get(_key(node), 1)
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                total += _inlined_size(body.node, sizes)
    return min(total, NODES << 10)
