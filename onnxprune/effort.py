"""How much computing a run may spend on a better result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Shares of a group's units at which its damage is measured: all of them where that is cheap, else the second set.
#: One share does not tell how fast damage grows: a net of 22 layers then lost three times as much at half its MACs.
FINE, COARSE = (0.875, 0.75, 0.5, 0.25), (0.75, 0.3)
#: Samples that the damage is measured on, at least, for the finer shares, and at most.  At the second set of shares 16
#: are as good as 128; 8 cost up to 8 % more damage, 4 up to 30 %, for which they are left to models where 8 would take
#: several times the allowance: of 12 G multiply-accumulates and 100 groups by default, or 60 G and 20.
LEAST_PROBES, FINE_PROBES, MOST_PROBES = 8, 32, 128
FEWEST_PROBES, TOO_MUCH = 4, 4.0
#: Latenesses (:func:`onnxprune.pipeline.allocation.within`) to try, the likeliest first, and the one to take untried.
TRIED, UNTRIED = (0.75, 0.0, 1.5), (1.0,)
#: Orders of channels worth trying against each other; the one to trust where that is too much, or asks for too much.
RIVALS, TRUSTED, QUICKEST = ("qr", "obs"), ("obs",), ("qr",)
#: Calibration samples that are used of any data, and of that of models so small that they cost little, or so large that
#: they cost too much; at most so many for trying what is not certain to be taken.
SAMPLES, MOST_SAMPLES, LEAST_SAMPLES, TRIAL_SAMPLES = 256, 2048, 64, 256
#: Shares of the allowance that one pass over the samples may take: over more than usual, and over the usual ones.
MORE, USUAL = 0.05, 0.8
#: Share of the allowance that trying orders and allocations may take: the usual ones are seldom far from the best.
TRIES = 0.5


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


def samples(effort: Effort, macs: float) -> int:
    """Calibration samples worth using of a model of ``macs`` each.

    >>> [samples(EFFORTS["default"], macs) for macs in (4e7, 1e8, 4e8, 4e9, 2e10, 1e11)]
    [2048, 1250, 312, 256, 100, 64]
    >>> [samples(EFFORTS["fast"], macs) for macs in (4e7, 3e8, 4e9)]
    [256, 256, 200]
    """
    affordable = effort.allowance / max(macs, 1.0)
    if affordable * MORE > SAMPLES and effort.rounds:
        return min(MOST_SAMPLES, int(affordable * MORE))
    return min(SAMPLES, max(LEAST_SAMPLES, int(affordable * USUAL)))


def measurements(effort: Effort, macs: float) -> tuple[tuple[float, ...], int]:
    """(shares, samples) for a measurement that costs ``macs`` per share and sample.

    >>> measurements(EFFORTS["default"], 2e9)
    ((0.875, 0.75, 0.5, 0.25), 128)
    >>> measurements(EFFORTS["default"], 7e10)
    ((0.75, 0.3), 17)
    >>> [measurements(EFFORTS["default"], macs)[1] for macs in (6e11, 7e11)]
    [8, 4]
    """
    shares = FINE if macs * len(FINE) * FINE_PROBES <= effort.allowance else COARSE
    affordable = int(effort.allowance / max(macs * len(shares), 1.0))
    least = LEAST_PROBES
    if macs * len(shares) * LEAST_PROBES > TOO_MUCH * effort.allowance:
        least = FEWEST_PROBES
    return shares, min(MOST_PROBES, max(least, affordable))


def selectors(effort: Effort, macs: float) -> tuple[str, ...]:
    """Selectors whose orders are tried, each at ``macs``; one, untried, where that is too much.

    >>> selectors(EFFORTS["default"], 5e11), selectors(EFFORTS["default"], 3e12), selectors(EFFORTS["fast"], 1e9)
    (('qr', 'obs'), ('obs',), ('qr',))
    """
    if not effort.rounds:
        return QUICKEST
    return RIVALS if macs * len(RIVALS) <= TRIES * effort.allowance else TRUSTED


def allocations(effort: Effort, orders: int, macs: float) -> tuple[float, ...]:
    """Latenesses to try, the first with each of ``orders`` orders, the others with the best one, at ``macs`` each; one
    where that is too much.

    >>> allocations(EFFORTS["default"], 2, 1e11), allocations(EFFORTS["default"], 2, 5e11)
    ((0.75, 0.0, 1.5), (1.0,))
    """
    return TRIED if macs * (orders + len(TRIED) - 1) <= TRIES * effort.allowance and effort.rounds else UNTRIED
