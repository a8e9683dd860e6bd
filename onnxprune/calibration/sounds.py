"""Sounds as calibration data: .wav files, cut into pieces of the length of the model's input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    InputSpec,
    check_rows,
    choose,
    counted,
    fill,
    is_float,
    shape_text,
    subset,
)
from onnxprune.calibration.request import DataRequest
from onnxprune.errors import DataError

SUFFIX = ".wav"
# Number of files to keep in memory: consecutive pieces come from the same file.
KEPT = 16


def sound_files(root: Path) -> list[Path]:
    """All .wav files below a folder, sorted by path; or the one file."""
    if root.is_file():
        return [root] if root.suffix.lower() == SUFFIX else []
    return sorted(p for p in root.rglob("*") if p.suffix.lower() == SUFFIX and not p.name.startswith("."))


def open_sounds(files: Sequence[Path], request: DataRequest, origin: str) -> Dataset:
    """Pieces of sounds in -1 … 1, channels averaged, for a model with one input of samples over time.

    Behind the batch, the input has one dimension that is not 1: N×T, N×1×T or N×T×1. If T is fixed, each file gives
    as many complete pieces as possible; silence fills up a shorter file. If T is free, each file is one sample.
    Nothing is resampled; a note shows the rate. Raises DataError for other models, unreadable files, and files with
    different rates.
    """
    if len(request.specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in request.specs)
        raise DataError(
            f"sounds feed a single input, but the model has {len(request.specs)}: {names}; give a function that yields "
            "dicts of all inputs, FILE.py:FUNCTION"
        )
    spec = request.specs[0]
    axis = _time_axis(spec)
    length = spec.shape[axis]
    read = lru_cache(maxsize=KEPT)(_read)
    rates = {path: read(path)[0] for path in files}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{path.name} {rate} Hz" for path, rate in list(rates.items())[:3])
        raise DataError(f"{origin}: the sounds have different rates ({listed}); resample them to the model's rate")
    pieces = [
        (path, start)
        for path in files
        for start in (range(0, max(len(read(path)[1]) // length, 1) * length, length) if length else (0,))
    ]
    chosen = choose(len(pieces), request.samples, request.seed)
    limit = 1 if length is None else spec.shape[0] if axis else 1

    def piece(row: int) -> NDArray[np.float32]:
        path, start = pieces[row]
        values = read(path)[1]
        part = values[start : start + length] if length else values
        return np.pad(part, (0, (length or len(part)) - len(part)))

    def fetch(rows: Sequence[int]) -> Feeds:
        check_rows(rows, limit)
        stacked = np.stack([piece(row) for row in rows]).astype(spec.dtype)
        if not axis:
            return {spec.name: stacked[0]}
        shape = [len(rows), *(stacked.shape[1] if at == axis else 1 for at in range(1, len(spec.shape)))]
        return {spec.name: fill(stacked.reshape(shape), limit)}

    rate = next(iter(rates.values()))
    return Dataset(
        specs=request.specs,
        count=len(chosen),
        labels=None,
        origin=counted(len(chosen), len(pieces), f"pieces of {len(files)} sounds in {origin}"),
        notes=(f"sounds are fed to '{spec.name}' at {rate} Hz (not resampled), scaled to -1 … 1",),
        fetch=subset(fetch, chosen),
        batch_limit=limit,
    )


def _time_axis(spec: InputSpec) -> int:
    """The time axis: the one after the batch that is not 1, or the only axis."""
    long = [axis for axis, size in enumerate(spec.shape) if size != 1 and (axis or len(spec.shape) == 1)]
    if not is_float(spec.dtype) or len(long) != 1:
        raise DataError(
            f"sounds cannot feed input '{spec.name}' of {spec.dtype.name} {shape_text(spec.shape)}: it needs floats over "
            "one time axis, N×T; give .npz or .npy arrays after the model's own preprocessing"
        )
    return long[0]


def _read(path: Path) -> tuple[int, NDArray[np.float32]]:
    """(rate, samples between -1 and 1)."""
    try:
        with warnings.catch_warnings():
            # Tag chunks that scipy does not know do no harm.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, values = wavfile.read(path)
    except Exception as error:
        raise DataError(f"cannot read sound {path}: {error}; save it as PCM or float .wav") from error
    if values.dtype == np.uint8:
        scaled = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        scaled = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    else:
        scaled = values.astype(np.float32)
    if not scaled.size:
        raise DataError(f"sound {path} is empty; remove it")
    return int(rate), scaled.mean(axis=1) if scaled.ndim > 1 else scaled
