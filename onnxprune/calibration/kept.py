"""Decoded pictures, kept for the passes to come: a run reads each about five times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Decode = Callable[[int], NDArray[np.uint8]]
#: Bytes of pictures to keep: 256 pictures of 416 x 416 pixels.
MOST_BYTES = 128 << 20


def kept(decode: Decode, most: int = MOST_BYTES) -> Decode:
    """``decode``, with the first ``most`` bytes of results kept; nothing else is.

    The results must not be changed.  Threads may call it at the same time: at worst one picture is decoded twice.
    """
    known: dict[int, NDArray[np.uint8]] = {}
    used = 0

    def decoded(row: int) -> NDArray[np.uint8]:
        nonlocal used
        if row in known:
            return known[row]
        picture = decode(row)
        if used + picture.nbytes <= most:
            used += picture.nbytes
            known[row] = picture
        return picture

    return decoded
