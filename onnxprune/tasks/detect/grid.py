"""The places at which a dense detector predicts: the cells of several levels, one level after another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

Array = np.ndarray
#: Strides of detector levels.
STRIDES = (4, 8, 16, 32, 64, 128)
#: Maximum predictions per cell of the usual detectors.
PER_CELL = 9


@dataclass(frozen=True)
class GridLevel:
    """A grid of ``height`` × ``width`` cells, each of ``stride`` pixels, with ``count`` predictions per cell."""

    stride: int
    height: int
    width: int
    count: int = 1

    @property
    def places(self) -> int:
        return self.height * self.width * self.count

    def centres(self) -> Array:
        """(places, 2): x and y of the centre of each place's cell, in pixels."""
        y, x = np.mgrid[: self.height, : self.width] + 0.5
        return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1) * self.stride, self.count, axis=0)


def level_of(places: int, size: tuple[int, int]) -> GridLevel | None:
    """The level with ``places`` places in an image of ``size`` (height, width), if any.

    >>> level_of(2704, (416, 416))
    GridLevel(stride=8, height=52, width=52, count=1)
    """
    fitting = [level for level in _grids(size) if places % level.places == 0 and places // level.places <= PER_CELL]
    if not fitting:
        return None
    # Prefer few predictions per cell: one is usual.
    best = min(fitting, key=lambda level: places // level.places)
    return GridLevel(best.stride, best.height, best.width, places // best.places)


def grid_levels(places: int, size: tuple[int, int]) -> tuple[GridLevel, ...] | None:
    """Consecutive levels with ``places`` places in total, the finest first; None if there are none.

    >>> [level.stride for level in grid_levels(8400, (640, 640))]
    [8, 16, 32]
    """
    grids = _grids(size)
    for first, last in combinations(range(len(grids) + 1), 2):
        total = sum(level.places for level in grids[first:last])
        if last - first > 1 and places % total == 0 and places // total <= PER_CELL:
            count = places // total
            return tuple(GridLevel(g.stride, g.height, g.width, count) for g in grids[first:last])
    return next(((level,) for level in grids if level.places == places), None)


def _grids(size: tuple[int, int]) -> list[GridLevel]:
    height, width = size
    return [GridLevel(s, -(-height // s), -(-width // s)) for s in STRIDES if min(size) >= s]
