"""The bytes of a model file, and a clear error for a file that is not a model."""

from __future__ import annotations

import difflib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.paths import read_ordinary

#: Maximum bytes of a protobuf message.  Larger models keep their weights in separate files.
LARGEST = (1 << 31) - 1


def read(path: Path) -> bytes:
    """All bytes of a model file.

    Raises:
        ModelError: if ``path`` is not a file, cannot be read, or is empty; suggests a file of a similar name.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; give the .onnx file inside it")
        data = read_ordinary(path, LARGEST)
    except FileNotFoundError:
        if path.parts[0] in ("http:", "https:"):
            raise ModelError(f"{path} is an address, not a file; download the model first") from None
        raise ModelError(f"{path} does not exist{_similar(path)}; check the path of the model file") from None
    except PermissionError:
        raise ModelError(f"{path} cannot be read (permission denied); make it readable") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read ({reason}); check the path of the model file") from None
    if not data:
        raise ModelError(f"{path} is empty (0 bytes); copy or export the model again")
    return data


def _similar(path: Path) -> str:
    """A suggestion: a model in the folder of ``path`` with a similar name; empty if there is none."""
    beside = {p.stem: p.name for p in sorted(path.parent.glob("*.onnx"))} if path.parent.is_dir() else {}
    # Compare without the suffix, which all of them share.
    near = difflib.get_close_matches(path.stem, beside, n=1)
    return f" (did you mean {path.with_name(beside[near[0]])}?)" if near else ""


def parse_model(data: bytes, where: str) -> onnx.ModelProto:
    """The model in ``data``.  Errors call its source ``where``.

    Raises:
        ModelError: if ``data`` holds another format, which the error names, or only the beginning of a model.
    """
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
    # A truncated model has only fields of ModelProto; anything else is another format.
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
