"""Constant index tuples that span a grid: ``x[:, 2:4, 0] = y``, which exporters write as ScatterND."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class IndexGrid:
    """``lines``: per indexed axis, (the axis of the index array along which it runs, its position at each step).

    The first is ``None`` for an axis that stands at a single position and matches no axis of the index array.
    """

    lines: tuple[tuple[int | None, Array], ...]


def grid(indices: Array, shape: Sequence[int]) -> IndexGrid | None:
    """The grid that ``indices`` (int, … × number of indexed axes) spans in a tensor of ``shape``.

    ``None`` if an indexed axis depends on several axes of the index array (a diagonal), or repeats positions.
    """
    if indices.ndim < 1 or not indices.size:
        return None
    places = indices.shape[:-1]
    lines: list[tuple[int | None, Array]] = []
    taken: set[int] = set()
    for axis in range(indices.shape[-1]):
        positions = indices[..., axis].astype(np.int64)
        positions = np.where(positions < 0, positions + shape[axis], positions)
        runs = [k for k, size in enumerate(places) if size > 1 and (np.diff(positions, axis=k) != 0).any()]
        if len(runs) > 1 or taken.intersection(runs):
            return None
        along = runs[0] if runs else axis if len(places) == indices.shape[-1] and places[axis] == 1 else None
        if along is None:
            line = positions.ravel()[:1]
        else:
            line = np.moveaxis(positions, along, 0).reshape(places[along], -1)[:, 0]
        if len(np.unique(line)) != len(line):
            return None
        taken.update(runs)
        lines.append((along, line))
    if any(size > 1 and k not in taken for k, size in enumerate(places)):
        return None
    return IndexGrid(tuple(lines))
