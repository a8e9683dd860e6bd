"""Widths that kernels run fast: from a table by instruction set, or as the user says.

Convolution and matrix kernels work on blocks of channels.  onnxruntime's CPU kernels pad both sides of a float32
convolution to the block (MLAS, NCHWc layout), so a width between two multiples takes exactly as long as the upper
one; a width that is no multiple of the alignment falls back to a slower layout (measured with onnxruntime 1.32 on
AVX-512: 1.3 to 1.5 times for dense convolutions, 6 times for depthwise ones).
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
#: Finer widths are offered to a group until it has this many to choose from.
LEAST_WIDTHS = 8
#: Relative saving below which a narrowing counts as none.
NOTHING = 1e-6


@dataclass(frozen=True)
class Blocks:
    """``block``: channels that a kernel computes at once; ``align``: multiple that its fast layout asks for;
    ``because``: who says so."""

    block: int
    align: int
    because: str = field(default="", compare=False)


#: (machine, CPU flag, blocks): the first row that fits; the last fits everything.
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
    raise AssertionError("the last row fits everything")


def blocks_like(block: int) -> Blocks:
    """The blocks of another machine's kernels: ``--round auto:BLOCK``."""
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
    """The largest power-of-two part of a block, not below its alignment, that leaves enough widths to choose from."""
    multiple = blocks.block
    while multiple > blocks.align and size // multiple < LEAST_WIDTHS:
        multiple //= 2
    return multiple


def faster_widths(cost: Costing, whole: Array, group: int) -> Array:
    """Widths of one group at which the model is faster than at any larger width, and the whole group.

    ``cost``: time, or what stands for it; ``whole``: units per group of the uncut model.
    """
    size = int(whole[group])
    every = np.arange(1, size + 1)
    trial = np.repeat(whole[None].astype(np.float64), size, axis=0)
    trial[:, group] = every
    seconds = cost.many(trial)
    wider = np.minimum.accumulate(seconds[::-1])[::-1]
    faster = seconds[:-1] < wider[1:] - NOTHING * abs(float(seconds[-1]))
    return np.append(every[:-1][faster], size)


def check_multiple(multiple: int | None, widths: Sequence[int]) -> None:
    """Raise BudgetError where no multiple is narrower than any of ``widths``, those of the groups that may be cut."""
    widest = max(widths, default=0)
    if multiple is not None and 0 < widest <= multiple:
        raise BudgetError(
            f"--round {multiple} leaves nothing to cut: the widest group that may be cut has {widest} channels; give "
            f"a multiple below {widest}, or auto"
        )


def tiers(cost: Costing, whole: Array, round_to: int | None, blocks: Blocks) -> tuple[tuple[Array, ...], ...]:
    """Per tier, the widths of every group; the first tier is to be preferred, later ones are finer.

    With ``round_to`` there is one tier, of its multiples.  Without: widths at which ``cost`` says that the model
    gets faster; then also finer multiples that keep the fast layout; then every width.
    """
    counts = whole.astype(np.int64)
    if round_to is not None:
        return (tuple(allowed_widths(int(n), min(round_to, int(n))) for n in counts),)
    fast = tuple(faster_widths(cost, whole, g) for g in range(len(counts)))
    aligned = tuple(
        np.union1d(widths, allowed_widths(int(n), multiple_for(int(n), blocks)))
        for n, widths in zip(counts, fast, strict=True)
    )
    return fast, aligned, tuple(np.arange(1, n + 1) for n in counts)
