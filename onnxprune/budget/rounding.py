"""Widths at which kernels are fast, from a table by instruction set or from the user.

Convolution and matrix kernels work on blocks of channels.  onnxruntime's CPU kernels pad both sides of a float32
convolution to the block (MLAS, NCHWc layout).  So a width between two multiples takes as long as the upper one.  A
width that is not a multiple of the alignment falls back to a slower layout.  Measured with onnxruntime 1.32 on AVX-512:
1.3 to 1.5 times slower for dense convolutions, 6 times slower for depthwise ones.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from onnxprune.budget.allocate import allowed_widths
from onnxprune.budget.cost import Costing
from onnxprune.errors import BudgetError

Array = np.ndarray
#: A group gets finer and finer multiples until it has this many widths to choose from.
MIN_WIDTHS = 8
#: A narrowing that saves less than this share counts as saving nothing.
NOTHING = 1e-6


@dataclass(frozen=True)
class Blocks:
    """``block``: channels that a kernel computes at once; ``align``: the multiple that its fast layout needs;
    ``because``: where these numbers come from."""

    block: int
    align: int
    because: str = field(default="", compare=False)


#: (machine, CPU flag, blocks).  The first match counts; the last row matches everything.
TABLE: tuple[tuple[tuple[str, ...], str, Blocks], ...] = (
    (("x86_64", "amd64"), "avx512f", Blocks(16, 4)),
    (("x86_64", "amd64"), "", Blocks(8, 4)),
    ((), "", Blocks(8, 4)),
)


def blocks_of(machine: str, flags: frozenset[str]) -> Blocks:
    """The row of :data:`TABLE` for a machine (as ``platform.machine()`` names it) and its CPU flags."""
    missing: list[str] = []
    for names, flag, blocks in TABLE:
        if names and machine.lower() not in names:
            continue
        if not flag or flag in flags:
            features = f" with {flag}" if flag else "".join(f" without {name}" for name in missing)
            return replace(blocks, because=f"{machine}{features}")
        missing.append(flag)
    raise AssertionError("the last row matches everything")


def blocks_like(block: int) -> Blocks:
    """The blocks of another machine's kernels, as ``--round auto:BLOCK`` gives them."""
    align = next(n for n in (4, 2, 1) if block % n == 0)
    return Blocks(block, align, f"--round auto:{block}")


@lru_cache(maxsize=1)
def machine_blocks() -> Blocks:
    """The blocks of onnxruntime's CPU kernels on this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="ignore").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return blocks_of(platform.machine(), frozenset(flags.split()))


def multiple_for(size: int, blocks: Blocks) -> int:
    """Halve the block until ``size`` has enough multiples to choose from, but never go below the alignment."""
    multiple = blocks.block
    while multiple > blocks.align and size // multiple < MIN_WIDTHS:
        multiple //= 2
    return multiple


def faster_widths(cost: Costing, full: Array, group: int) -> Array:
    """The widths of one group at which the model is faster than at every larger width, and the whole group.

    ``cost`` is time or a stand-in for it.  ``full`` holds the units per group of the uncut model.
    """
    size = int(full[group])
    every = np.arange(1, size + 1)
    trial = np.repeat(full[None].astype(np.float64), size, axis=0)
    trial[:, group] = every
    seconds = cost.many(trial)
    wider = np.minimum.accumulate(seconds[::-1])[::-1]
    faster = seconds[:-1] < wider[1:] - NOTHING * abs(float(seconds[-1]))
    return np.append(every[:-1][faster], size)


def check_multiple(multiple: int | None, widths: Sequence[int]) -> None:
    """Raise BudgetError if ``multiple`` leaves nothing to cut: no group of ``widths`` is wider than it."""
    widest = max(widths, default=0)
    if multiple is not None and 0 < widest <= multiple:
        raise BudgetError(
            f"--round {multiple} leaves nothing to cut: the widest prunable group has {widest} channels; give "
            f"a multiple below {widest}, or auto"
        )


def tiers(cost: Costing, full: Array, round_to: int | None, blocks: Blocks) -> tuple[tuple[Array, ...], ...]:
    """The allowed widths of every group, per tier.  The first tier is preferred; later tiers are finer.

    With ``round_to`` there is one tier, its multiples.  Without it there are three: the widths that make the model
    faster by ``cost``; also finer multiples that keep the fast layout; every width.
    """
    counts = full.astype(np.int64)
    if round_to is not None:
        return (tuple(allowed_widths(int(n), min(round_to, int(n))) for n in counts),)
    fast = tuple(faster_widths(cost, full, g) for g in range(len(counts)))
    aligned = tuple(
        np.union1d(widths, allowed_widths(int(n), multiple_for(int(n), blocks)))
        for n, widths in zip(counts, fast, strict=True)
    )
    return fast, aligned, tuple(np.arange(1, n + 1) for n in counts)
