"""Decoded pictures, kept for the passes to come: a run reads each about five times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxprune.memory import room

Decode = Callable[[int], NDArray[np.uint8]]
#: Bytes of pictures to keep: 256 pictures of 416 x 416 pixels.
MAX_BYTES = 128 << 20


def kept(decode: Decode, most: int | None = None) -> Decode:
    """``decode``, with the first ``most`` bytes of results kept: by default MAX_BYTES, or an eighth of the room if that is less.

    The results must not be changed.  Threads may call it at the same time: at worst one picture is decoded twice.
    """
    known: dict[int, NDArray[np.uint8]] = {}
    used = 0
    limit = min(MAX_BYTES, room() // 8) if most is None else most

    def decoded(row: int) -> NDArray[np.uint8]:
        nonlocal used
        if row in known:
            return known[row]
        picture = decode(row)
        if used + picture.nbytes <= limit:
            used += picture.nbytes
            known[row] = picture
        return picture

    return decoded
