"""All tensors of a model, wherever they are: iterate, replace, and measure them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TypeVar

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

_P = TypeVar("_P", bound=Message)

# Bits of packed types: several elements share a byte, so numpy's itemsize is not the stored size.
_PACKED_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}

#: Maximum bytes of a model in one protobuf message.  The limit is 2 GiB; the margin leaves room for readers that add to
#: the model.
ONE_PIECE = (1 << 31) - (1 << 26)
# Shape inference never reads weights this large, so the checker does not need their values.
_BULKY_BYTES = 1 << 16

#: The fields of a TensorProto that hold its content.  The other fields hold its name and notes.
DATA_FIELDS = frozenset(
    {"dims", "data_type", "segment", "raw_data", "external_data", "data_location"}
    | {"float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"}
)

# Message types that may contain a TensorProto.  All others are small and copied whole.
_HOLD_TENSORS = frozenset(
    {"TensorProto", "SparseTensorProto", "GraphProto", "NodeProto", "AttributeProto"}
    | {"FunctionProto", "TrainingInfoProto"}
)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every TensorProto of a model: initializers, attributes, sub-graphs, functions, training graphs."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy, byte for byte.  Works beyond protobuf's 2 GB."""
    return map_tensors(model, lambda tensor: tensor)


def copy_but(source: _P, skip: Container[str]) -> _P:
    """A copy without the fields named in ``skip``.  Their content is not copied, not even temporarily."""
    copy: _P = type(source)()
    for descriptor, value in source.ListFields():
        if descriptor.name in skip:
            continue
        if is_repeated(descriptor):
            getattr(copy, descriptor.name).extend(value)
        elif descriptor.message_type is None:
            setattr(copy, descriptor.name, value)
        else:
            getattr(copy, descriptor.name).CopyFrom(value)
    _carry_unknown(source, copy)
    return copy


def map_tensors(model: _P, change: Callable[[onnx.TensorProto], onnx.TensorProto]) -> _P:
    """A deep copy of a model, or of a part of one, with `change(tensor)` in place of every tensor.

    Never copies the data of a replaced tensor, so a model of many GB can become a small outline.  Visits tensors in the
    order of the file's fields, the same in every run.
    """
    copy: _P = type(model)()
    _map_message(model, copy, change)
    return copy


def bodies_of(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The sub-graphs that an attribute holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def model_bytes(model: onnx.ModelProto) -> int:
    """Size in bytes when written in one piece.  Works beyond protobuf's 2 GB, where ByteSize() fails."""
    bulk = 0

    def outline(tensor: onnx.TensorProto) -> onnx.TensorProto:
        nonlocal bulk
        if len(tensor.raw_data) < _BULKY_BYTES:
            return tensor
        bulk += len(tensor.raw_data)
        return copy_but(tensor, {"raw_data"})

    return int(map_tensors(model, outline).ByteSize()) + bulk


def stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes of the tensor when stored raw; None for strings and for types unknown to the installed onnx."""
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        return None
    try:
        bits = _PACKED_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return None
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8 if bits else count * itemsize


def outlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights turned into graph inputs: checks give the same result, at almost no memory."""
    # The dict keeps the objects alive, so that their ids stay unique during the copy.
    bulky = {id(one): one for one in proto.graph.initializer if len(one.raw_data) >= _BULKY_BYTES}
    names = {tensor.name for tensor in bulky.values()}
    listed = {value.name for value in proto.graph.input}
    copied = map_tensors(proto, lambda tensor: copy_but(tensor, {"raw_data"}) if id(tensor) in bulky else tensor)
    kept = [tensor for tensor in copied.graph.initializer if tensor.name not in names]
    values = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in bulky.values()
        if tensor.name not in listed
    ]
    del copied.graph.initializer[:]
    copied.graph.initializer.extend(kept)
    copied.graph.input.extend(values)
    return copied


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for one in [*sparse, *attribute.sparse_tensors]:
        yield from (one.values, one.indices)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _map_message(source: Message, target: Message, change: Callable[[onnx.TensorProto], onnx.TensorProto]) -> None:
    # Field by field, because CopyFrom of a whole model would copy (and beyond 2 GB refuse) its weights.
    if isinstance(source, onnx.NodeProto) and not any(map(_holds_tensors, source.attribute)):
        target.CopyFrom(source)
        return
    _carry_unknown(source, target)
    for field, value in source.ListFields():
        kind = field.message_type
        if kind is None:
            if is_repeated(field):
                getattr(target, field.name).extend(value)
            else:
                setattr(target, field.name, value)
        elif kind.name not in _HOLD_TENSORS:
            if is_repeated(field):
                getattr(target, field.name).extend(value)
            else:
                getattr(target, field.name).CopyFrom(value)
        elif is_repeated(field):
            for item in value:
                _map_one(item, getattr(target, field.name).add(), change)
        else:
            _map_one(value, getattr(target, field.name), change)


def _map_one(source: Message, target: Message, change: Callable[[onnx.TensorProto], onnx.TensorProto]) -> None:
    if isinstance(source, onnx.TensorProto):
        target.CopyFrom(change(source))
    else:
        target.SetInParent()
        _map_message(source, target, change)


def _holds_tensors(attribute: onnx.AttributeProto) -> bool:
    single = any(attribute.HasField(field) for field in ("t", "g", "sparse_tensor"))
    return single or bool(attribute.tensors or attribute.graphs or attribute.sparse_tensors)


def _carry_unknown(source: Message, target: Message) -> None:
    """Copy fields written by a newer onnx, which the installed onnx does not know."""
    unknown = UnknownFieldSet(source)
    if len(unknown):
        target.MergeFromString(b"".join(_encoded(field.field_number, field.wire_type, field.data) for field in unknown))


def _encoded(number: int, kind: int, data: object) -> bytes:
    """One field in protobuf's wire format: kinds are varint, 8 bytes, length-delimited, group and 4 bytes."""
    head = _varint(number << 3 | kind)
    if kind == 0 and isinstance(data, int):
        return head + _varint(data)
    if kind == 2 and isinstance(data, bytes):
        return head + _varint(len(data)) + data
    if kind in (1, 5) and isinstance(data, int):
        return head + data.to_bytes(8 if kind == 1 else 4, "little")
    inner = b"".join(_encoded(f.field_number, f.wire_type, f.data) for f in data)  # type: ignore[attr-defined]
    return head + inner + _varint(number << 3 | 4)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds several values."""
    # protobuf before 6.31 has only the label; from 6.31 on, reading the label warns.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)
