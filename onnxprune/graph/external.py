"""Tensors whose data lie in files beside the model."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import all_tensors, stored_bytes

EXTERNAL = onnx.TensorProto.EXTERNAL


def load_external(proto: onnx.ModelProto, path: Path) -> int | None:
    """Bring all external data into memory; bytes of the data files together, None where there are none.

    Changes ``proto``, which was read from ``path``, in place.

    Raises:
        ModelError: where a file is missing, too short, or outside the model's folder.
    """
    sizes: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for tensor in all_tensors(proto):
            if tensor.data_location != EXTERNAL:
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


def data_files(path: Path) -> list[Path]:
    """The files beside the model in ``path`` that its tensors are read from; none where that is no model.

    Cost: one reading of the model's own file.
    """
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (OSError, ValueError, DecodeError):
        return []
    found: dict[str, None] = {}
    for tensor in all_tensors(model):
        found.update({entry.value: None for entry in tensor.external_data if entry.key == "location"})
    return [path.parent / name for name in found]


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
