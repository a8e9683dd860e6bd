"""A latency table, read from JSON: the seconds of layers on a grid of widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.budget.rounding import Blocks
from onnxprune.errors import BudgetError
from onnxprune.json_file import read_json
from onnxprune.latency.device import TABLE, Json

Array = np.ndarray
#: Larger numbers are mistakes, and their products overflow.
MAX_CHANNELS, MAX_SECONDS = 1 << 24, 1e6


@dataclass(frozen=True, eq=False)
class Grid:
    """``seconds`` (inputs, outputs) of one layer at ascending ``inputs`` and ``outputs`` widths."""

    inputs: Array
    outputs: Array
    seconds: Array


@dataclass(frozen=True, eq=False)
class Table:
    """The result of :func:`onnxprune.latency.device.measure`; ``origin`` describes the device and the runtime."""

    origin: str
    blocks: Blocks
    unaligned: float
    per_byte: float
    per_mac: float
    layers: Mapping[str, Grid]


def table_of(document: Json) -> Table:
    """A table from its JSON document.

    Raises:
        BudgetError: a field is missing or malformed; the message names it.
    """
    if not isinstance(document, dict) or document.get(TABLE) != 1:
        raise BudgetError(f"this is not a latency table (it has no '{TABLE}': 1); tools/measure_latency_table.py makes one")
    try:
        origin = f"{document['device']}, {document['runtime']}, {document['threads']} threads"
        block, align = (int(_number(document, key, 1, MAX_CHANNELS)) for key in ("block", "align"))
        return Table(
            origin=origin,
            blocks=Blocks(block, align, f"latency table: {origin}"),
            unaligned=_number(document, "unaligned", 0, MAX_SECONDS),
            per_byte=_number(document, "per_byte", 0, MAX_SECONDS),
            per_mac=_number(document, "per_mac", 0, MAX_SECONDS),
            layers={str(key): grid_of(points) for key, points in document["layers"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BudgetError(f"the latency table lacks or misspells a field: {error!r}") from error


def _number(document: Json, key: str, least: float, most: float) -> float:
    value = document[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"'{key}' must be a number from {least:g} to {most:g}")
    return float(value)


def read_table(path: Path) -> Table:
    """A table from a file.

    Raises:
        BudgetError: the file is unreadable or not a table.
    """
    try:
        document = read_json(path)
    except OSError as error:
        raise BudgetError(f"cannot read the latency table {path}: {error.strerror}; check its path") from error
    except ValueError as error:
        raise BudgetError(
            f"{path} is not a latency table (invalid JSON: {error}); tools/measure_latency_table.py makes one"
        ) from error
    try:
        return table_of(document)
    except BudgetError as error:
        raise BudgetError(f"{path}: {error}") from error


def grid_of(points: list[list[float]]) -> Grid:
    """The grid of ``[inputs, outputs, seconds]`` points, which must fill it.

    A disturbance only makes a measurement too slow.  So a width never counts as slower than a larger one.

    Raises:
        ValueError: points are missing or malformed, widths are below 1, or seconds are negative.
    """
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 3 or not np.isfinite(table).all() or (table[:, :2] < 1).any():
        raise ValueError("a layer's points are [inputs, outputs, seconds]")
    if (table > (MAX_CHANNELS, MAX_CHANNELS, MAX_SECONDS)).any():
        raise ValueError(f"a layer has at most {MAX_CHANNELS:,} channels and takes {MAX_SECONDS:,.0f} s")
    inputs, outputs = np.unique(table[:, 0]), np.unique(table[:, 1])
    seconds = np.full((len(inputs), len(outputs)), np.nan)
    seconds[np.searchsorted(inputs, table[:, 0]), np.searchsorted(outputs, table[:, 1])] = table[:, 2]
    if np.isnan(seconds).any() or (seconds < 0).any():
        raise ValueError(f"a layer's points leave gaps in its grid of {len(inputs)} x {len(outputs)} widths")
    for axis in (0, 1):
        flipped = np.flip(seconds, axis)
        seconds = np.flip(np.minimum.accumulate(flipped, axis), axis)
    return Grid(inputs, outputs, seconds)
