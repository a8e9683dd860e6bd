"""Tensors that keep their data in files beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.file import LARGEST
from onnxprune.graph.tensors import all_tensors, bodies_of, map_tensors, stored_bytes
from onnxprune.paths import open_ordinary, read_ordinary, same_file

EXTERNAL = onnx.TensorProto.EXTERNAL
# Small tensors stay in the model, so that onnx can read shapes and axes without the data file.
_INLINE_BYTES = 1024
# Large tensors start on a page boundary, so that a runtime can map them into memory.
_PAGE = 4096


def load_external(proto: onnx.ModelProto, path: Path) -> int | None:
    """Read all external data into ``proto``, in place.  ``path`` is the file of the model.

    Returns the total bytes of the data files, or ``None`` if there are none.

    Raises:
        ModelError: if a file is missing, too short, or outside the model's folder.
    """
    sizes: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for tensor in all_tensors(proto):
            if tensor.data_location != EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if len(entries) < len(tensor.external_data):
                # Readers differ in which of two equal keys they use.
                raise ModelError(
                    f"{path}: tensor '{tensor.name}' states the place of its external data twice; export the model again"
                )
            location = entries.get("location", "")
            if location not in files:
                files[location] = stack.enter_context(_open_data(path, location, tensor.name))
                sizes[location] = os.fstat(files[location].fileno()).st_size
            data = _read_data(files[location], sizes[location], entries, tensor, path)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = data
    return sum(sizes.values()) if sizes else None


def data_files(path: Path) -> list[Path]:
    """The external data files of the model at ``path``; none if the file is not a model.

    Cost: reads the model's own file once.
    """
    try:
        model = onnx.ModelProto.FromString(read_ordinary(path, LARGEST))
        names = [e.value for t in all_tensors(model) for e in t.external_data if e.key == "location"]
    except (OSError, ValueError, DecodeError):
        return []
    return [path.parent / name for name in dict.fromkeys(names) if "\0" not in name]


def _open_data(path: Path, location: str, name: str) -> IO[bytes]:
    """Open the data file of tensor ``name`` of the model at ``path``.  ``guide/security.md`` lists the refusals."""
    parts = PurePosixPath(location).parts
    outside = os.path.isabs(location) or PureWindowsPath(location).is_absolute() or ".." in parts
    if not location or outside or "\0" in location:
        raise ModelError(
            f"{path}: tensor '{name}' names '{location}' as its external data file, "
            "which is not inside the model's folder; export the model again with its data beside it"
        )
    # Follow links here, once; the file opened below must not be a link.
    real = Path(os.path.realpath(path.parent / location))
    where = f"{path}: external data file '{path.parent / location}' of tensor '{name}'"
    # In a hub's cache, the model's folder holds links to the model and its data in another folder.
    homes = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}
    if not any(real.is_relative_to(home) for home in homes):
        raise ModelError(f"{where} is a link to {real}, outside the model's folder; copy the data beside the model")
    if same_file(real, path):
        raise ModelError(f"{where} is the model itself; export the model again with its data beside it")
    try:
        file = open_ordinary(real, follow=False)
    except FileNotFoundError:
        raise ModelError(f"{where} is missing; put it beside the model") from None
    except OSError as error:
        raise ModelError(f"{where} cannot be read ({error.strerror}); make it a readable file") from None
    fault = _swapped(file, real) or _known_elsewhere(file, real)
    if fault:
        file.close()
        raise ModelError(f"{where} {fault}")
    return file


def _swapped(file: IO[bytes], real: Path) -> str:
    """The fault if a folder on the path became a link between the check and the opening; empty if none did."""
    try:
        same = os.path.realpath(real) == str(real) and os.path.samestat(os.fstat(file.fileno()), os.stat(real))
    except OSError:
        same = False
    return "" if same else "was replaced while it was read; try again when nothing changes it"


def _known_elsewhere(file: IO[bytes], real: Path) -> str:
    """The fault if the file has a name outside its folder; empty if not.

    A hard link can make any file of the disk appear in the folder, so all names of the file must be there.
    """
    status = os.fstat(file.fileno())
    if status.st_nlink < 2:
        return ""
    with os.scandir(real.parent) as entries:
        names = sum(entry.inode() == status.st_ino and not entry.is_symlink() for entry in entries)
    return "" if names >= status.st_nlink else "is a hard link to a file outside the folder; put a copy in its place"


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
            f"{where} has {length:,} bytes, but its shape {list(tensor.dims)} needs {expected:,}; "
            "export the model again"
        )
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ModelError(f"{where} ends early; copy or export the data file again")
    return data


def write_weights(model: onnx.ModelProto, file: IO[bytes], location: str) -> tuple[onnx.ModelProto, int]:
    """Write the initializers of 1 KiB and more to ``file``, whose name beside the model is ``location``.

    Returns (a copy of the model that refers to them, bytes written).  Holds one tensor at a time beside the model.
    """
    # The dict keeps the objects alive, so that their ids stay unique during the copy.
    weights = {id(tensor): tensor for tensor in _initializers(model.graph)}
    end = 0

    def move(tensor: onnx.TensorProto) -> onnx.TensorProto:
        nonlocal end
        data = _raw(tensor) if id(tensor) in weights else None
        if data is None or len(data) < _INLINE_BYTES:
            return tensor
        start = -(-end // _PAGE) * _PAGE
        file.write(b"\0" * (start - end))
        file.write(data)
        end = start + len(data)
        moved = onnx.TensorProto(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=EXTERNAL
        )
        if tensor.HasField("doc_string"):
            moved.doc_string = tensor.doc_string
        moved.metadata_props.extend(tensor.metadata_props)
        for key, value in (("location", location), ("offset", str(start)), ("length", str(len(data)))):
            moved.external_data.add(key=key, value=value)
        return moved

    return map_tensors(model, move), end


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in bodies_of(attribute):
                yield from _initializers(inner)


def _raw(tensor: onnx.TensorProto) -> bytes | None:
    if tensor.data_type == onnx.TensorProto.STRING or tensor.data_location == EXTERNAL:
        return None
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)).raw_data)
