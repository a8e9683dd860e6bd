"""Arrays as calibration data: .npz, .npy, or a dict of arrays, samples on axis 0."""

from __future__ import annotations

import difflib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.casting import array_encoder, as_array, to_input
from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    InputSpec,
    check_rows,
    choose,
    counted,
    fill,
    fits,
    is_integer,
    shape_text,
    subset,
    uniform_batch,
)
from onnxprune.calibration.preprocess import Encoder, Preprocess
from onnxprune.calibration.request import DataRequest
from onnxprune.errors import DataError
from onnxprune.memory import room
from onnxprune.paths import open_ordinary

LABELS = "labels"
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Column:
    """All samples of one input. `kind` says how to take one sample from the array.

    "stacked": array[i] is a sample without its batch axis. "whole": array[i] is a complete feed of the input.
    "shared": the array has no sample axis (rank 0); every sample uses it.
    """

    spec: InputSpec
    array: NDArray[np.generic]
    kind: str
    encoder: Encoder | None


@dataclass(frozen=True)
class Matched:
    """Input name -> key of its array; the key of the labels, if any; the unused keys."""

    keys: dict[str, str]
    labels: str | None
    ignored: tuple[str, ...]


def open_arrays(arrays: Mapping[str, object], request: DataRequest, origin: str) -> Dataset:
    """Open arrays by input name, and optionally `labels`. Raises DataError if they do not fit the model.

    An array of the input's rank holds samples stacked on axis 0. An array with one axis more holds one complete
    feed per sample; then every fetch takes one sample. Arrays are not copied: a fetch reads only its samples, so
    memory maps stay on disk.
    """
    specs = request.specs
    matched = match_names(tuple(arrays), specs, origin)
    columns = [_column(arrays[matched.keys[spec.name]], spec, request.preprocess, origin) for spec in specs]
    notes = tuple(note for _, column_notes in columns for note in column_notes)
    parts = [column for column, _ in columns]
    if matched.ignored:
        misspelt = [name for name in matched.ignored if matched.labels is None and _like_labels(name)]
        hint = f" (is '{misspelt[0]}' meant as '{LABELS}'?)" if misspelt else ""
        notes += (f"ignored, because the model has no such input: {', '.join(matched.ignored)}{hint}",)
    limit = _batch_limit(parts, origin)
    total = _sample_count(parts, origin)
    chosen = choose(total, request.samples, request.seed)
    labels = None if matched.labels is None else read_labels(arrays[matched.labels], total, origin)

    def fetch(rows: Sequence[int]) -> Feeds:
        check_rows(rows, limit)
        return {part.spec.name: _feed(part, rows, limit, origin) for part in parts}

    return Dataset(
        specs=specs,
        count=len(chosen),
        labels=None if labels is None else labels[chosen],
        origin=counted(len(chosen), total, f"samples in {origin}"),
        notes=notes,
        fetch=subset(fetch, chosen),
        batch_limit=limit,
    )


def match_names(names: tuple[str, ...], specs: tuple[InputSpec, ...], origin: str) -> Matched:
    """Pair arrays with inputs by name; a single array serves a single input. Raises DataError if one is missing."""
    inputs = [spec.name for spec in specs]
    labels = LABELS if LABELS in names and LABELS not in inputs else None
    data = [name for name in names if name != labels]
    if len(inputs) == 1 and len(data) == 1:
        return Matched({inputs[0]: data[0]}, labels, ())
    missing = [name for name in inputs if name not in data]
    extra = tuple(name for name in data if name not in inputs)
    if missing:
        near = {name: difflib.get_close_matches(name, extra, n=1, cutoff=0.5) for name in missing}
        if labels is None:
            near.setdefault(LABELS, [name for name in extra if _like_labels(name)])
        hints = [f"is '{found[0]}' meant as '{name}'? " for name, found in near.items() if found]
        raise DataError(
            f"{origin}: no array for input {_quoted(missing)}; the model takes {_quoted(inputs)}, "
            f"the data {f'has {_quoted(names)}: ' if names else 'is empty; '}{''.join(hints)}name each array after its "
            "input"
        )
    return Matched({name: name for name in inputs}, labels, extra)


def read_labels(value: object, count: int, origin: str) -> NDArray[np.int64]:
    """Class indices as int64 (count,). Raises DataError for a wrong type or number."""
    labels = as_array(value, f"{origin}, '{LABELS}'")
    if not is_integer(labels.dtype) or labels.size != max(labels.shape, default=1):
        raise DataError(
            f"{origin}: '{LABELS}' must hold one integer per sample, got {labels.dtype.name} "
            f"of shape {shape_text(labels.shape)}; give class indices or leave it out"
        )
    if labels.size != count:
        raise DataError(f"{origin}: {labels.size} labels for {count} samples; give one label per sample")
    return labels.astype(np.int64).reshape(-1)


def check_shape(shape: tuple[int, ...], expected: tuple[int | None, ...], spec: InputSpec, where: str) -> None:
    """Raise DataError if the input cannot take a shape; the message suggests a fix."""
    if fits(shape, expected):
        return
    message = f"{where}: input '{spec.name}' takes {shape_text(expected)}, got {shape_text(shape)}"
    if len(shape) == len(expected) == 4:
        for axes, channels in (((0, 3, 1, 2), "last"), ((0, 2, 3, 1), "first")):
            if fits(tuple(shape[axis] for axis in axes), expected):
                raise DataError(f"{message}; the data has channels {channels}: use array.transpose{axes}")
    if len(shape) == len(expected) - 1 and fits(shape, expected[1:]):
        raise DataError(f"{message}; the sample axis is missing: use array[None]")
    raise DataError(f"{message}; reshape the data or export the model for it")


def read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of an .npz. Uncompressed arrays are memory-mapped, compressed ones are read.

    Raises DataError if the file is damaged, has pickled objects, or is too large to unpack in memory.
    """
    try:
        with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(info.file_size for info in members if info.compress_type != zipfile.ZIP_STORED)
            # Fetched samples need memory too.
            if unpacked > room() // 2:
                raise DataError(
                    f"{path} unpacks to {unpacked:,} bytes, more than half of the {room():,} bytes of memory left; allow "
                    "more --memory, or write it uncompressed with numpy.savez: then it stays on disk"
                )
            return {
                info.filename.removesuffix(".npy"): _mapped(path, info)
                if info.compress_type == zipfile.ZIP_STORED
                else _unpacked(archive, info)
                for info in members
            }
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {path}: {_reason(error)}; write it again with numpy.savez") from error


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array of an .npy, memory-mapped. Raises DataError for damaged files and pickled objects."""
    try:
        with open_ordinary(path) as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if magic != _MAGIC:
        raise DataError(f"{path} is not an .npy file; write it with numpy.save, or correct its suffix")
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        what = "it holds Python objects" if "object" in str(error) else _reason(error)
        raise DataError(f"cannot read {path}: {what}; write plain numbers with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"cannot read {path}: it is not an .npy file; correct its suffix")
    return array


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _mapped(path: Path, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    with open_ordinary(path) as file:
        file.seek(info.header_offset + 26)
        # The local header repeats the name and has an extra field of its own length.
        skip = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        file.seek(info.header_offset + 30 + skip)
        shape, fortran, dtype = _npy_header(file, info)
        start = file.tell()
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(info) as file:
        shape, fortran, dtype = _npy_header(file, info)
        needed = math.prod(shape) * dtype.itemsize
        if needed > info.file_size:
            raise ValueError(f"'{info.filename}' ends before its {needed:,} bytes of data do")
        data = file.read(needed)
    if len(data) != needed:
        raise ValueError(f"'{info.filename}' ends early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _npy_header(file: IO[bytes], info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"'{info.filename}' holds pickled objects")
    if not dtype.itemsize or any(size < 0 for size in shape):
        raise ValueError(f"'{info.filename}' holds no numbers")
    return shape, fortran, dtype


def _column(
    value: object, spec: InputSpec, preprocess: Preprocess | None, origin: str
) -> tuple[Column, tuple[str, ...]]:
    array = as_array(value, f"{origin}, input '{spec.name}'")
    rank = len(spec.shape)
    if array.ndim == rank + 1:
        kind = "whole"
        check_shape(array.shape[1:], spec.shape, spec, f"{origin}, one sample")
    elif rank == 0 and array.ndim == 0:
        kind = "shared"
    else:
        kind = "stacked"
        check_shape(array.shape, (None, *spec.shape[1:]), spec, origin)
    encoder, notes = array_encoder(spec, array.dtype, preprocess)
    return Column(spec, array, kind, encoder), notes


def _batch_limit(parts: Sequence[Column], origin: str) -> int | None:
    stacked = [part.spec for part in parts if part.kind == "stacked"]
    limit = uniform_batch(stacked) if stacked else (1,)
    whole = any(part.kind == "whole" for part in parts)
    if limit is None or (whole and limit[0] not in (None, 1)):
        shapes = ", ".join(f"'{part.spec.name}' {shape_text(part.spec.shape)}" for part in parts)
        raise DataError(
            f"{origin}: axis 0 is not a common batch axis of the inputs {shapes}; give complete feeds: "
            "for every input an array with one more axis, samples first"
        )
    return 1 if whole else limit[0]


def _sample_count(parts: Sequence[Column], origin: str) -> int:
    counts = {part.spec.name: len(part.array) for part in parts if part.kind != "shared"}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(f"{origin}: the inputs have different numbers of samples: {listed}; give the same number for each")
    return next(iter(counts.values()), 1)


def _feed(part: Column, rows: Sequence[int], limit: int | None, origin: str) -> NDArray[np.generic]:
    where = f"{origin}, sample {rows[0]}" if len(rows) == 1 else f"{origin}, samples {min(rows)}..{max(rows)}"
    if part.kind == "shared":
        return to_input(part.array, part.spec, part.encoder, where)
    if part.kind == "whole":
        return to_input(np.asarray(part.array[rows[0]]), part.spec, part.encoder, where)
    return fill(to_input(np.asarray(part.array[list(rows)]), part.spec, part.encoder, where), limit)


def _like_labels(name: str) -> bool:
    return bool(difflib.get_close_matches(name.lower(), [LABELS], n=1, cutoff=0.8))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
