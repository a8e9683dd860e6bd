"""How much computing a run may spend on a better result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Shares of a group's units at which its damage is measured: all of them where that is cheap, else the second set.
FINE, COARSE = (0.875, 0.75, 0.5, 0.25), (0.75, 0.3)
#: Samples that the damage is measured on.
LEAST_PROBES, MOST_PROBES = 16, 128
TRIED, UNTRIED = (0.0, 0.75, 1.5), (1.0,)
#: Share of the allowance that trying allocations may take: the usual one is seldom far from the best.
TRIES = 0.25


@dataclass(frozen=True)
class Effort:
    """``allowance``: multiply-accumulates for measuring what each group's cut does to the output, and a part of it for
    trying allocations; ``rounds``: of refining hidden layers against their readers.  Nothing depends on how fast the
    machine is."""

    allowance: float
    rounds: int


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {"fast": Effort(1e12, 0), "default": Effort(2.5e12, 1), "best": Effort(4e13, 4)}
)


def measurements(effort: Effort, macs: float) -> tuple[tuple[float, ...], int]:
    """(shares, samples) for a measurement that costs ``macs`` per share and sample.

    >>> measurements(EFFORTS["default"], 2e9)
    ((0.875, 0.75, 0.5, 0.25), 128)
    >>> measurements(EFFORTS["default"], 7e10)
    ((0.75, 0.3), 17)
    """
    shares = FINE if macs * len(FINE) * LEAST_PROBES * 2 <= effort.allowance else COARSE
    affordable = int(effort.allowance / max(macs * len(shares), 1.0))
    return shares, min(MOST_PROBES, max(LEAST_PROBES, affordable))


def allocations(effort: Effort, macs: float) -> tuple[float, ...]:
    """Latenesses to try (:func:`onnxprune.choose.within`), each at ``macs``; one, untried, where that is too much.

    >>> allocations(EFFORTS["default"], 1e11), allocations(EFFORTS["default"], 5e11)
    ((0.0, 0.75, 1.5), (1.0,))
    """
    return TRIED if macs * len(TRIED) <= TRIES * effort.allowance and effort.rounds else UNTRIED
