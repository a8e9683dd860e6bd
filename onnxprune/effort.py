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
#: they cost too much.
SAMPLES, MOST_SAMPLES, LEAST_SAMPLES = 256, 2048, 64
#: Samples of a trial, which only orders candidates: a quarter of what there is, within these bounds.
LEAST_TRIAL, MOST_TRIAL = 64, 256
#: Shares of the allowance that one pass over the samples may take: over more than usual, and over the usual ones.
MORE, USUAL = 0.05, 0.8
#: What trying orders and allocations may take, as a share of what pricing may: the usual ones are seldom far from the
#: best.
TRIES = 0.7


@dataclass(frozen=True)
class Effort:
    """``allowance``: multiply-accumulates that a run is worth, whatever the model; ``passes``: passes of the original
    over the samples that pricing may take, or ``least`` multiply-accumulates where those are more; ``rounds``: of
    refining hidden layers against their readers.  Nothing depends on how fast the machine is."""

    allowance: float
    passes: float
    least: float
    rounds: int

    def pricing(self, one_pass: float) -> float:
        """Multiply-accumulates for measuring what each group's cut does to the output, by all orders of channels
        together; ``one_pass``: those of the original over all samples.

        >>> EFFORTS["default"].pricing(1e12), EFFORTS["default"].pricing(1e11), EFFORTS["fast"].pricing(1e11)
        (2500000000000.0, 800000000000.0, 200000000000.0)
        """
        return min(self.allowance, max(self.least, self.passes * one_pass))


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {
        "fast": Effort(1e12, 1.0, 2e11, 0),
        "default": Effort(2.5e12, 2.5, 8e11, 1),
        "best": Effort(4e13, 40.0, 8e12, 4),
    }
)


def trial_samples(count: int) -> int:
    """Of ``count`` calibration samples, how many a trial uses.

    >>> [trial_samples(count) for count in (40, 205, 1600)]
    [40, 64, 256]
    """
    return min(count, MOST_TRIAL, max(LEAST_TRIAL, count // 4))


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


def measurements(allowance: float, macs: float) -> tuple[tuple[float, ...], int]:
    """(shares, samples) for a measurement that costs ``macs`` per share and sample, of ``allowance`` in all.

    >>> measurements(2.5e12, 2e9)
    ((0.875, 0.75, 0.5, 0.25), 128)
    >>> measurements(2.5e12, 7e10)
    ((0.75, 0.3), 17)
    >>> [measurements(2.5e12, macs)[1] for macs in (6e11, 7e11)]
    [8, 4]
    """
    shares = FINE if macs * len(FINE) * FINE_PROBES <= allowance else COARSE
    affordable = int(allowance / max(macs * len(shares), 1.0))
    least = LEAST_PROBES
    if macs * len(shares) * LEAST_PROBES > TOO_MUCH * allowance:
        least = FEWEST_PROBES
    return shares, min(MOST_PROBES, max(least, affordable))


def selectors(effort: Effort, pricing: float, macs: float) -> tuple[str, ...]:
    """Selectors whose orders are tried, each at ``macs``; one, untried, where that is too much beside ``pricing``.

    >>> default, fast = EFFORTS["default"], EFFORTS["fast"]
    >>> selectors(default, 2.5e12, 5e11), selectors(default, 2.5e12, 3e12), selectors(fast, 1e12, 1e9)
    (('qr', 'obs'), ('obs',), ('qr',))
    """
    if not effort.rounds:
        return QUICKEST
    return RIVALS if macs * len(RIVALS) <= TRIES * pricing else TRUSTED


def allocations(effort: Effort, orders: int, pricing: float, macs: float) -> tuple[float, ...]:
    """Latenesses to try, the first with each of ``orders`` orders, the others with the best one, at ``macs`` each; one
    where that is too much beside ``pricing``.

    >>> allocations(EFFORTS["default"], 2, 2.5e12, 1e11), allocations(EFFORTS["default"], 2, 2.5e12, 5e11)
    ((0.75, 0.0, 1.5), (1.0,))
    """
    return TRIED if macs * (orders + len(TRIED) - 1) <= TRIES * pricing and effort.rounds else UNTRIED
