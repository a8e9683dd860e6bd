"""Channel multiples that runtimes like.

Convolution and matrix kernels work on blocks of channels; a width between two multiples costs as much as the next
one, or more.  The block is that of the widest vector unit in float32; a narrow group takes a smaller power of two,
so that at least ``LEAST_WIDTHS`` widths stay to choose from.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

LEAST_WIDTHS = 8


@lru_cache(maxsize=1)
def machine_block() -> int:
    """Float32 channels per block of onnxruntime's CPU kernels here: 16 with AVX-512, else 8."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        try:
            return 16 if " avx512f" in Path("/proc/cpuinfo").read_text(errors="ignore") else 8
        except OSError:
            return 8
    return 8


def multiple_for(size: int, round_to: int | None) -> int:
    """The multiple for a group of ``size`` channels; ``round_to`` is the user's, ``None`` for auto."""
    if round_to is not None:
        return min(round_to, size)
    multiple = machine_block()
    while multiple > 1 and size // multiple < LEAST_WIDTHS:
        multiple //= 2
    return multiple
