"""Which axis of a map holds its channels."""

from __future__ import annotations

from collections.abc import Sequence


def map_channel_axis(shape: Sequence[int], size: tuple[int, int] | None) -> int | None:
    """The channel axis of (samples, …) maps of a picture of ``size`` (height, width): 1 or 3; None if shapes do not show it.

    The other two axes are the picture's sides, divided by one stride and rounded.  The number of channels says nothing:
    maps may have more channels than columns.

    >>> map_channel_axis((1, 85, 22, 22), (352, 352)), map_channel_axis((1, 64, 48, 133), (256, 192))
    (1, 3)
    >>> map_channel_axis((1, 22, 22, 22), (352, 352)) is None
    True
    """
    if size is None or len(shape) != 4:
        return None
    fitting = [axis for axis, sides in ((1, shape[2:]), (3, shape[1:3])) if _is_map(sides[0], sides[1], size)]
    return fitting[0] if len(fitting) == 1 else None


def likely_channel_axis(shape: Sequence[int], size: tuple[int, int] | None) -> int:
    """:func:`map_channel_axis`; where shapes do not show it, the shorter of axes 1 and 3."""
    shown = map_channel_axis(shape, size)
    return shown if shown is not None else 1 if shape[1] <= shape[3] else 3


def is_map_of(places: int, size: tuple[int, int]) -> bool:
    """Whether so many places may be the pixels of one map of the picture, smaller or not.

    >>> is_map_of(64 * 48, (256, 192)), is_map_of(40, (48, 320))
    (True, False)
    """
    return any(places % rows == 0 and _is_map(rows, places // rows, size) for rows in range(2, min(size[0], places) + 1))


def _is_map(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Whether a map has the shape of the picture, to less than one cell, and is no line."""
    return min(rows, columns) > 1 and abs(rows * size[1] - columns * size[0]) < max(size)
