"""Reading an ONNX model from disk, external data included, and refusing what is none in one clear line."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TypeVar

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.repair import repaired

_P = TypeVar("_P", bound=Message)
_EXTERNAL = onnx.TensorProto.EXTERNAL
# Packed types: several elements share a byte, so numpy's itemsize does not give the stored size.
_PACKED_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
# Weights this large never steer shape inference, so the checker can do without their values.
_BULKY_BYTES = 1 << 16


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory and where it came from.

    proto: the whole model, no tensor refers to a file; treat as read-only.
    path: the file it was read from; None for a model that was given as a ModelProto.
    external: whether the file kept tensors in external data files.
    file_bytes: bytes on disk, model file plus its external data files (in-memory size without a path).
    complaints: first lines of what onnx.checker objects to in a model that onnxruntime accepts.
    repairs: what was put right in `proto` after it was read, one sentence each; see `repaired`.
    """

    proto: onnx.ModelProto
    path: Path | None
    external: bool
    file_bytes: int
    complaints: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


def load(source: str | Path | onnx.ModelProto) -> LoadedModel:
    """Read and check a model.

    Never changes a given ModelProto, and copies it only to repair it (see `repaired`). Raises ModelError, naming file and remedy,
    for whatever is not a complete ONNX model that the installed onnx and onnxruntime know. Models of
    more than 2 GB are fine with external data. Cost: one pass over the files; memory: the model plus its
    largest tensor.
    """
    if isinstance(source, onnx.ModelProto):
        proto, path, external, file_bytes = source, None, False, model_bytes(source)
        where = "the given model"
        for tensor in all_tensors(proto):
            if tensor.data_location == _EXTERNAL:
                raise ModelError(
                    f"{where}: tensor '{tensor.name}' keeps its data in a file; "
                    "give the model's path, or load it with onnx.load(path)"
                )
    else:
        path = Path(source)
        where = str(path)
        data = _read(path)
        proto = _parse(data, where)
        file_bytes = len(data)
        del data
        _check_content(proto, where)
        data_bytes = _load_external(proto, path)
        external = data_bytes is not None
        file_bytes += data_bytes or 0
    _check_content(proto, where)
    _check_versions(proto, where)
    _check_sizes(proto, where)
    complaints = _complaints(proto, path, external, where)
    proto, repairs = repaired(proto, file_bytes)
    return LoadedModel(proto, path, external, file_bytes, complaints, repairs)


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


def map_tensors(model: _P, change: Callable[[onnx.TensorProto], onnx.TensorProto]) -> _P:
    """A deep copy of a model, or of a part of one, with `change(tensor)` in place of every tensor.

    The data of a replaced tensor is never copied, so a model of many GB can be turned into a small outline.
    Tensors are visited in the order of the file's fields, the same in every run.
    """
    copied: _P = type(model)()
    _map_message(model, copied, change)
    return copied


def model_bytes(model: onnx.ModelProto) -> int:
    """Size in bytes when written in one piece, also beyond protobuf's 2 GB, where ByteSize() gives up."""
    bulk = 0

    def outline(tensor: onnx.TensorProto) -> onnx.TensorProto:
        nonlocal bulk
        if len(tensor.raw_data) < _BULKY_BYTES:
            return tensor
        bulk += len(tensor.raw_data)
        return _without_data(tensor)

    return int(map_tensors(model, outline).ByteSize()) + bulk


def stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes of the tensor when stored raw; None for strings and types unknown to the installed onnx."""
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        return None
    try:
        bits = _PACKED_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return None
    count: int = math.prod(tensor.dims)
    return (count * bits + 7) // 8 if bits else count * itemsize


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
    for field, value in source.ListFields():
        kind = field.message_type
        if kind is None:
            if field.is_repeated:
                getattr(target, field.name).extend(value)
            else:
                setattr(target, field.name, value)
        elif kind.name not in _HOLD_TENSORS:
            if field.is_repeated:
                getattr(target, field.name).extend(value)
            else:
                getattr(target, field.name).CopyFrom(value)
        elif field.is_repeated:
            for item in value:
                _map_one(item, getattr(target, field.name).add(), change)
        else:
            _map_one(value, getattr(target, field.name), change)


# Message types below which a TensorProto may lie; all others are small and copied whole.
_HOLD_TENSORS = frozenset(
    {"TensorProto", "SparseTensorProto", "GraphProto", "NodeProto", "AttributeProto"}
    | {"FunctionProto", "TrainingInfoProto"}
)


def _map_one(source: Message, target: Message, change: Callable[[onnx.TensorProto], onnx.TensorProto]) -> None:
    if isinstance(source, onnx.TensorProto):
        target.CopyFrom(change(source))
    else:
        target.SetInParent()
        _map_message(source, target, change)


def _without_data(tensor: onnx.TensorProto) -> onnx.TensorProto:
    bare = onnx.TensorProto()
    for field, value in tensor.ListFields():
        if field.name == "raw_data":
            continue
        if field.is_repeated:
            getattr(bare, field.name).extend(value)
        elif field.message_type is None:
            setattr(bare, field.name, value)
        else:
            getattr(bare, field.name).CopyFrom(value)
    return bare


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; give the .onnx file inside it")
        data = path.read_bytes()
    except FileNotFoundError:
        if path.parts[0] in ("http:", "https:"):
            raise ModelError(f"{path} is an address, not a file; download the model first") from None
        raise ModelError(f"{path} does not exist{_similar(path)}; check the path of the model file") from None
    except PermissionError:
        raise ModelError(f"{path} cannot be read (permission denied); make it readable for you") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read ({reason}); check the path of the model file") from None
    if not data:
        raise ModelError(f"{path} is empty (0 bytes); copy or export the model again")
    return data


def _similar(path: Path) -> str:
    """A model beside where ``path`` would be, with nearly its name."""
    beside = {p.stem: p.name for p in sorted(path.parent.glob("*.onnx"))} if path.parent.is_dir() else {}
    # Without the suffix, in which all of them are alike.
    near = difflib.get_close_matches(path.stem, beside, n=1)
    return f" (did you mean {path.with_name(beside[near[0]])}?)" if near else ""


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    other = _other_format(data)
    if other is not None:
        raise ModelError(f"{where} {other}")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        missing = _missing_bytes(data)
        if missing is not None:
            raise ModelError(
                f"{where} is truncated: at least {missing:,} bytes are missing at its end; "
                "copy, download or export the model again"
            ) from None
        raise ModelError(f"{where} is not an ONNX model; give a .onnx file") from None
    return proto


def _other_format(data: bytes) -> str | None:
    if data[4:8] == b"ORTM":
        return "is an ORT-format file, not ONNX; give the .onnx file it was converted from"
    if data[4:8] == b"TFL3":
        return "is a TensorFlow Lite file, not ONNX; convert it with tf2onnx first"
    if data[:4] == b"PK\x03\x04":
        return "is a zip archive (a PyTorch checkpoint?), not ONNX; export it with torch.onnx.export first"
    if data[:1] == b"\x80" and data[-1:] == b".":
        return "is a Python pickle (a PyTorch checkpoint?), not ONNX; export it with torch.onnx.export first"
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "is an HDF5 file (a Keras model?), not ONNX; convert it with tf2onnx first"
    if data.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model itself; run 'git lfs pull' first"
    return None


def _missing_bytes(data: bytes) -> int | None:
    # Only a file whose fields all are ModelProto's own counts as a cut-off model; anything else is
    # another format.
    fields = {
        field.number: 0 if field.message_type is None and field.cpp_type != field.CPPTYPE_STRING else 2
        for field in onnx.ModelProto.DESCRIPTOR.fields
    }
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if fields.get(key >> 3) != key & 7:
            return None
        value, at = _varint(data, at)
        if at > len(data):
            return 1
        if key & 7 == 2:
            at += value
    return at - len(data) if at > len(data) else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if at + step >= len(data):
            return value, len(data) + 1
        byte = data[at + step]
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, at + step + 1
    return value, at + 10


def _check_content(proto: onnx.ModelProto, where: str) -> None:
    if not proto.HasField("graph"):
        raise ModelError(f"{where} holds no graph: it is not an ONNX model, or only its beginning; export it again")
    if not proto.graph.node:
        raise ModelError(f"{where} holds a graph without nodes; export the model again")


def _load_external(proto: onnx.ModelProto, path: Path) -> int | None:
    """Bring all external data into memory; bytes of the data files together, None where there are none."""
    sizes: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for tensor in all_tensors(proto):
            if tensor.data_location != _EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location = entries.get("location", "")
            if location not in files:
                files[location] = stack.enter_context(_open_data(path, location, tensor.name))
                sizes[location] = os.fstat(files[location].fileno()).st_size
            data = _read_data(files[location], sizes[location], entries, tensor, path)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = data
    return sum(sizes.values()) if sizes else None


def _open_data(path: Path, location: str, name: str) -> IO[bytes]:
    parts = PurePosixPath(location).parts
    outside = os.path.isabs(location) or PureWindowsPath(location).is_absolute() or ".." in parts
    if not location or outside:
        raise ModelError(
            f"{path}: tensor '{name}' names '{location}' as its external data file, "
            "which is not inside the model's folder; export the model again with its data beside it"
        )
    file = path.parent / location
    try:
        return open(file, "rb")
    except FileNotFoundError:
        raise ModelError(
            f"{path}: external data file '{file}' of tensor '{name}' is missing; put it beside the model"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path}: external data file '{file}' of tensor '{name}' cannot be read ({error.strerror}); "
            "make it a readable file"
        ) from None


def _read_data(file: IO[bytes], size: int, entries: dict[str, str], tensor: onnx.TensorProto, path: Path) -> bytes:
    where = f"{path}: external data of tensor '{tensor.name}' in '{entries['location']}'"
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else max(size - offset, 0)
    except ValueError:
        raise ModelError(f"{where} has an unreadable offset or length; export the model again") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{where} is truncated or out of range: bytes {offset:,} to {offset + length:,} of a file of "
            f"{size:,}; copy or export the data file again"
        )
    expected = stored_bytes(tensor)
    if expected is not None and "length" not in entries and length > expected:
        length = expected
    if expected is not None and length != expected:
        raise ModelError(
            f"{where} has {length:,} bytes where its shape {list(tensor.dims)} needs {expected:,}; "
            "export the model again"
        )
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ModelError(f"{where} ends early; copy or export the data file again")
    return data


def _check_versions(proto: onnx.ModelProto, where: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{where} has IR version {proto.ir_version}, the installed onnx {onnx.__version__} knows up to "
            f"{onnx.IR_VERSION}; upgrade onnx, or export with an older one"
        )
    newest = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset > newest:
        raise ModelError(
            f"{where} uses opset {opset}, the installed onnx {onnx.__version__} knows up to {newest}; "
            "upgrade onnx, or export with an older opset"
        )
    objection = _runtime_objection(_probe(proto.ir_version, opset or newest))
    if objection is not None:
        import onnxruntime

        raise ModelError(
            f"{where} has IR version {proto.ir_version} and opset {opset}, too new for onnxruntime "
            f"{onnxruntime.__version__} ({objection}); upgrade onnxruntime, or export with an older opset"
        )


def _probe(ir_version: int, opset: int) -> bytes:
    # A model of one Identity stamped with the same versions: whether onnxruntime knows them costs a
    # millisecond.
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    model.ir_version = max(ir_version, 3)
    return bytes(model.SerializeToString())


def _check_sizes(proto: onnx.ModelProto, where: str) -> None:
    for tensor in all_tensors(proto):
        if not tensor.HasField("raw_data"):
            continue
        expected = stored_bytes(tensor)
        if expected is not None and len(tensor.raw_data) != expected:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' has {len(tensor.raw_data):,} bytes of data where its shape "
                f"{list(tensor.dims)} needs {expected:,}; export the model again"
            )


def _complaints(proto: onnx.ModelProto, path: Path | None, external: bool, where: str) -> tuple[str, ...]:
    outline = outlined(proto)
    try:
        onnx.checker.check_model(outline)
    except Exception as error:  # the checker throws whatever its C++ side throws
        complaint = _first_line(error)
    else:
        return ()
    # onnxruntime reads real exporters' files that the checker objects to; what it runs can be pruned.
    if path is not None:
        objection = _runtime_objection(str(path))
    else:
        try:
            objection = _runtime_objection(bytes(proto.SerializeToString()))
        except (ValueError, DecodeError):  # beyond 2 GB
            objection = _runtime_objection(bytes(outline.SerializeToString()))
    if objection is None:
        return (complaint,)
    raise ModelError(f"{where} is no valid ONNX model: {complaint} (onnxruntime: {objection}); export the model again")


def outlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights turned into graph inputs, which check the same and weigh nothing."""
    # Held in a dict, so that the ids stay theirs while the model is copied.
    bulky = {id(one): one for one in proto.graph.initializer if len(one.raw_data) >= _BULKY_BYTES}
    names = {tensor.name for tensor in bulky.values()}
    listed = {value.name for value in proto.graph.input}
    copied = map_tensors(proto, lambda tensor: _without_data(tensor) if id(tensor) in bulky else tensor)
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


def _runtime_objection(model: str | bytes) -> str | None:
    """The first line of onnxruntime's refusal to load the model; None when it loads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes share no public base
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
