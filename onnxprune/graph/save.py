"""Write a model.  The file appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from onnxprune.errors import OutputError
from onnxprune.graph.external import data_files, write_weights
from onnxprune.graph.tensors import ONE_PIECE, model_bytes
from onnxprune.paths import create, part_of, same_file


def save(model: onnx.ModelProto, path: Path, external: bool) -> int:
    """Write the model.  Returns the bytes written, data file included.

    With `external`, or for a model beyond the 2 GB of one protobuf file, initializers of 1 KiB and more go to the file
    `<path's name>.data` beside it.  The same model gives the same bytes.  Writes temporary files in the same folder
    first, and removes them on any failure, Ctrl-C included.

    Raises:
        OutputError: if the file cannot be written; names the file and the remedy.
    """
    _check_target(path)
    apart = external or model_bytes(model) > ONE_PIECE
    data_path = path.with_name(path.name + ".data")
    if apart:
        _check_target(data_path)
    with _as_output_error(path):
        if apart:
            return _write_pair(model, path, data_path)
        part = part_of(path)
        try:
            written = _write(part, path, lambda file: file.write(_serialized(model, path)))
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        return written


def check_writable(path: Path, forbid: Path | None) -> None:
    """Raise OutputError now if `save` to `path` would fail later or would overwrite the input `forbid`.

    Sees through symbolic and hard links.  Creates and removes one empty temporary file beside `path`.
    """
    _check_target(path)
    if forbid is not None:
        if same_file(path, forbid):
            raise OutputError(f"{path} is the input model itself; choose another output file with -o")
        data_path = path.with_name(path.name + ".data")
        taken = data_files(forbid) if os.path.exists(path) or os.path.exists(data_path) else []
        if any(same_file(path, file) for file in taken):
            raise OutputError(f"{path} belongs to the input model; choose another output file with -o")
        if any(same_file(data_path, file) for file in taken):
            raise OutputError(
                f"{path} would write its data to {data_path}, which belongs to the input model; "
                "choose another output file with -o"
            )
    part = part_of(path)
    with _as_output_error(path):
        try:
            _write(part, path, lambda file: 0)
            # Only the file system knows whether it accepts this name.
            with suppress(FileNotFoundError):
                os.lstat(path)
        finally:
            part.unlink(missing_ok=True)


def _check_target(path: Path) -> None:
    if os.path.isdir(path):
        raise OutputError(f"{path} is a folder; give the name of a file in it")
    # Replacing a device file would remove the device.
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path} is not a regular file; choose another name")
    if not os.path.exists(path.parent):
        raise OutputError(f"folder {path.parent} does not exist; create it, or choose another output file")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path.parent} is not a folder; choose another output file")


def _write(part: Path, target: Path, fill: Callable[[IO[bytes]], int]) -> int:
    with create(part, target) as file:
        written = fill(file)
        file.flush()
        os.fsync(file.fileno())
    return written


def _serialized(model: onnx.ModelProto, path: Path) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError, DecodeError) as error:
        raise OutputError(
            f"{path}: the model cannot be written as protobuf ({error}); its attributes must stay below 2 GB"
        ) from None


def _write_pair(model: onnx.ModelProto, path: Path, data_path: Path) -> int:
    part, data_part = part_of(path), part_of(data_path)
    older, older_data = part_of(path), part_of(data_path)
    staged = False
    try:
        outlines: list[onnx.ModelProto] = []

        def fill(file: IO[bytes]) -> int:
            outline, size = write_weights(model, file, data_path.name)
            outlines.append(outline)
            return size

        written = _write(data_part, data_path, fill)
        written += _write(part, path, lambda file: file.write(_serialized(outlines[0], path)))
        staged = True
        # A model must never stand beside the data of another, even if the process is killed now.
        if data_path.exists():
            if path.exists():
                os.replace(path, older)
            os.replace(data_path, older_data)
        os.replace(data_part, data_path)
        os.replace(part, path)
    except BaseException:
        # If its temporary file is gone, the new model is in place and needs the new data.
        if part.exists() or not staged:
            if older_data.exists():
                os.replace(older_data, data_path)
            elif staged and not data_part.exists():
                data_path.unlink(missing_ok=True)
            if older.exists():
                os.replace(older, path)
        for leftover in (part, data_part, older, older_data):
            leftover.unlink(missing_ok=True)
        raise
    for leftover in (older, older_data):
        leftover.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return written


def _sync_folder(folder: Path) -> None:
    # Makes the new name survive a power cut.  Some systems cannot open folders; they do without.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"{path} cannot be written: the disk is full; free some space, or choose another output file"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = f"{path} cannot be written: {path.parent} is not writable; choose another output file"
        else:
            remedy = f"{path} cannot be written ({error.strerror or error}); choose another output file"
        raise OutputError(remedy) from error
