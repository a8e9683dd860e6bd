"""Which outputs of a dense detector hold boxes and scores, by their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.tasks.detect.grid import GridLevel, grid_levels, level_of
from onnxprune.tasks.maps import map_channel_axis

Array = np.ndarray
#: A box may be four distributions over distances (Li et al. 2020, arXiv 2006.04388), with this many bins each.  8 and 16
#: are usual.
BINS = range(6, 34)


@dataclass(frozen=True)
class Wiring:
    """Positions of outputs, one per level, the level with the most places first.

    ``combined``: outputs with all fields side by side.  Otherwise ``boxes`` and ``scores`` (and ``objectness``) are
    separate outputs.  ``rest``: number of fields at the end of combined outputs that are neither (mask coefficients).
    """

    axis: str
    combined: tuple[int, ...] = ()
    boxes: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()
    objectness: tuple[int, ...] = ()
    rest: int = 0


def places(array: Array, axis: str, samples: int) -> Array | None:
    """An output as (samples, A, F), a view if possible; None if its shape does not allow it."""
    if array.ndim == 2 and samples == 1:
        return array[None] if axis == "places-first" else array.T[None]
    if array.ndim < 3 or array.ndim > 5 or len(array) != samples:
        return None
    if axis == "places-first":
        return array.reshape(samples, -1, array.shape[-1])
    return array.reshape(samples, array.shape[1], -1).swapaxes(1, 2)


def joined(arrays: Sequence[Array], indices: Sequence[int], axis: str, samples: int) -> Array:
    """The levels of one kind, concatenated: (samples, A, F)."""
    parts = [places(arrays[i], axis, samples) for i in indices]
    return np.concatenate([p for p in parts if p is not None], axis=1)


def wirings(
    arrays: Sequence[Array], samples: int, axis: str | None, size: tuple[int, int] | None = None
) -> Iterator[Wiring]:
    """Every wiring that the shapes of a batch allow.  ``axis``: stated by the user, or None for both.  ``size``: of the
    picture; rows of pixels are no predictions."""
    for way in ("places-first", "places-last") if axis is None else (axis,):
        shaped: dict[int, tuple[int, int]] = {}
        for index, array in enumerate(arrays):
            flat = places(array, way, samples) if array.dtype.kind == "f" else None
            if axis is None and map_channel_axis(array.shape, size) == (1 if way == "places-first" else 3):
                continue
            if flat is not None:
                shaped[index] = flat.shape[1:]
        yield from _apart(shaped, way)
        yield from _combined(arrays, shaped, way)


def _combined(arrays: Sequence[Array], shaped: dict[int, tuple[int, int]], way: str) -> Iterator[Wiring]:
    by_fields: dict[int, list[int]] = {}
    for index, (_, fields) in shaped.items():
        if fields >= 5:
            by_fields.setdefault(fields, []).append(index)
    for fields, indices in by_fields.items():
        ordered = tuple(sorted(indices, key=lambda i: -shaped[i][0]))
        # If another output holds mask prototypes, every row ends with one coefficient per prototype.
        others = [a for i, a in enumerate(arrays) if i not in indices and a.ndim == 4]
        rest = next((a.shape[1] for a in others if 8 <= a.shape[1] < fields - 4), 0)
        yield Wiring(way, combined=ordered, rest=rest)
        if len(ordered) > 1:
            yield Wiring(way, combined=ordered[:1], rest=rest)


def _apart(shaped: dict[int, tuple[int, int]], way: str) -> Iterator[Wiring]:
    levels: dict[int, list[int]] = {}
    for index, (count, _) in shaped.items():
        levels.setdefault(count, []).append(index)
    groups = [levels[count] for count in sorted(levels, reverse=True) if len(levels[count]) > 1]
    if not groups:
        return
    kinds = [tuple(sorted(shaped[i][1] for i in group)) for group in groups]
    groups = [group for group, kind in zip(groups, kinds, strict=True) if kind == kinds[0]]
    for fields in dict.fromkeys(kinds[0]):
        if fields != 4 and not (fields % 4 == 0 and fields // 4 in BINS):
            continue
        for boxes, rest in _splits(groups, shaped, fields):
            for scores in dict.fromkeys(shaped[i][1] for i in rest[0]):
                chosen = tuple(next(i for i in group if shaped[i][1] == scores) for group in rest)
                left = [[i for i in group if i not in chosen and shaped[i][1] == 1] for group in rest]
                single = tuple(group[0] for group in left) if all(left) else ()
                yield Wiring(way, boxes=boxes, scores=chosen, objectness=single)


def _splits(
    groups: list[list[int]], shaped: dict[int, tuple[int, int]], fields: int
) -> Iterator[tuple[tuple[int, ...], list[list[int]]]]:
    """(output with the boxes per level, other outputs per level).  If several have that number of fields, tries the
    first and the last."""
    for pick in (0, -1):
        boxes = tuple([i for i in group if shaped[i][1] == fields][pick] for group in groups)
        yield boxes, [[i for i in group if i not in boxes] for group in groups]
        if len([i for i in groups[0] if shaped[i][1] == fields]) == 1:
            return


def levels(
    arrays: Sequence[Array], wiring: Wiring, samples: int, size: tuple[int, int] | None
) -> tuple[GridLevel, ...]:
    """The grids of the places; empty if they lie on no grid."""
    if size is None:
        return ()
    indices = wiring.combined or wiring.boxes
    counts = [flat.shape[1] for i in indices if (flat := places(arrays[i], wiring.axis, samples)) is not None]
    if len(counts) == 1:
        return grid_levels(counts[0], size) or ()
    each = [level_of(count, size) for count in counts]
    return tuple(level for level in each if level is not None) if all(each) else ()
