"""How much computation a run may spend on a better result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: The shares of a group's units at which to measure its output loss: FINE if that is cheap, else COARSE.  One share is
#: not enough, because it does not show how fast the loss grows: a net of 22 layers then lost three times as much at
#: half its MACs.
FINE, COARSE = (0.875, 0.75, 0.5, 0.25), (0.75, 0.3)
#: Samples to measure the output loss on: the minimum, and the minimum for FINE.  With COARSE, 16 samples are as good as
#: 128.  With FINE, a residual network of 20 layers at half its MACs keeps 86.8 % with 32 and 86.9 % with 102.
#: 8 samples increase the final loss by up to 8 %, 4 by up to 30 %.  So only models use 4 for which 8 would take several
#: times the allowance: by default, those with more than half as many groups as there are samples.
MIN_PROBES, FINE_PROBES = 8, 32
FEWEST_PROBES, TOO_MUCH = 4, 4.0
#: The overhead of a node in a new session, as multiply-accumulates that take as long.  With 300 small layers in a row a
#: measurement takes 30 microseconds per node.
PER_NODE = 6e5
#: The same for each further run of a node, 3 microseconds.  A model whose batch is fixed at 1 runs once per sample.
PER_RUN = 6e4
#: Latenesses (see :func:`onnxprune.pipeline.allocation.within`) to try, the most promising first, and the one to use
#: without a trial.
TRIED, UNTRIED = (0.75, 0.0, 1.5), (1.0,)
#: Number of calibration samples: the usual one, the maximum for cheap models, and the minimum for expensive models.
SAMPLES, MAX_SAMPLES, MIN_SAMPLES = 256, 2048, 64
#: Bounds for the samples of a trial, which only ranks candidates.  It uses a quarter of all samples within these bounds.
MIN_TRIAL, MAX_TRIAL = 64, 256
#: Shares of the allowance that one pass over the samples may take: with more samples than usual, and with the usual ones.
MORE, USUAL = 0.05, 0.8
#: What a round of refinement costs, in passes of the original over the samples of the refit: residual networks of 20
#: layers and of 50 layers with depthwise convolutions took 20 and 25.
REFINED = 20.0


@dataclass(frozen=True)
class Effort:
    """The computation that a run may spend, in multiply-accumulates.  It never depends on the speed of the machine.

    ``allowance`` is the limit for any model.  Pricing may take ``passes`` passes of the original over the samples, or
    ``least`` multiply-accumulates if that is more; it uses at most ``probes`` samples.  ``rounds`` counts the refinements
    of hidden layers against their readers; there are none if they would take more than ``refining``: by default about a
    minute of one core.  A residual network of 56 layers at half its MACs keeps 91.6 % with a refinement and 91.2 % without
    one, in twice the time; a plain one of 13 layers keeps 88.5 % and 88.7 %.

    ``trying``: the limit for all trials of orders and allocations together.  A residual network of 20 layers at 0.7 of its
    MACs keeps 90.6 % with them and 89.8 % without, for a third more time.

    ``orders``: the selectors to try against each other, the usual one first.  On four networks of 20 to 56 layers at half
    their MACs, picking the better of two by a trial was no better than either alone: 88.8 % on average, QR 88.8 %, elimination
    89.0 %.  On a detector at 0.8 of its MACs, elimination lost less on unseen pictures (boxes 0.040 against 0.061, classes
    0.028 against 0.032).  QR takes less time if layers are wide.

    ``sharpenings``: how often to measure the widths of an allocation and then allocate again.  For a detector at 0.8 of its
    MACs the curves promised a loss of 0.015, but its groups, measured one by one at these widths, lost 0.024.  After one
    round both were 0.016, after two 0.014.  The loss on unseen pictures after the refit fell from 0.065 to 0.044.
    """

    allowance: float
    passes: float
    least: float
    probes: int
    rounds: int
    refining: float
    trying: float
    sharpenings: int
    orders: tuple[str, ...]

    def pricing(self, one_pass: float) -> float:
        """Multiply-accumulates that pricing may take for all selectors together.

        Pricing measures how the cut of each group changes the output.  ``one_pass`` is the cost of the original on all
        samples.

        >>> EFFORTS["default"].pricing(1e12), EFFORTS["default"].pricing(1e11), EFFORTS["fast"].pricing(1e11)
        (1000000000000.0, 100000000000.0, 50000000000.0)
        """
        return min(self.allowance, max(self.least, self.passes * one_pass))


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {
        "fast": Effort(1e12, 0.5, 5e10, 32, 0, 0.0, 0.0, 1, ("qr",)),
        "default": Effort(2.5e12, 1.0, 5e10, 32, 1, 1.1e12, 2e11, 2, ("obs",)),
        "best": Effort(4e13, 40.0, 8e12, 128, 4, 4e13, 3e13, 2, ("obs", "qr")),
    }
)


def refinements(effort: Effort, macs: float, count: int) -> tuple[int, int]:
    """(rounds of refinement, samples) of a refit to at most ``count`` samples.  ``macs``: cost of the original per sample.

    A refinement with some of the samples is worth more than a plain fit to all: at half its MACs, a residual network of
    20 layers has a divergence of 0.38 with all 1,920 samples, and 0.33 with 1,341 of them and a refinement.  There is none
    if it could not afford the usual number of samples.

    >>> default, best = EFFORTS["default"], EFFORTS["best"]
    >>> refinements(default, 4.1e7, 410), refinements(default, 4.1e7, 1639), refinements(default, 4e8, 205)
    ((1, 410), (1, 1341), (0, 205))
    >>> refinements(default, 2e8, 205), refinements(best, 4e8, 1000)
    ((1, 205), (4, 1000))
    """
    if not effort.rounds:
        return 0, count
    affordable = int(effort.refining / (effort.rounds * REFINED * max(macs, 1.0)))
    if affordable < min(count, SAMPLES):
        return 0, count
    return effort.rounds, min(count, affordable)


def trial_samples(count: int) -> int:
    """The number of samples that a trial uses, out of ``count`` calibration samples.

    >>> [trial_samples(count) for count in (40, 205, 1600)]
    [40, 64, 256]
    """
    return min(count, MAX_TRIAL, max(MIN_TRIAL, count // 4))


def samples(effort: Effort, macs: float) -> int:
    """The number of calibration samples for a model that costs ``macs`` per sample.

    >>> [samples(EFFORTS["default"], macs) for macs in (4e7, 1e8, 4e8, 4e9, 2e10, 1e11)]
    [2048, 1250, 312, 256, 100, 64]
    >>> [samples(EFFORTS["fast"], macs) for macs in (4e7, 3e8, 4e9)]
    [256, 256, 200]
    """
    affordable = effort.allowance / max(macs, 1.0)
    if affordable * MORE > SAMPLES and effort.rounds:
        return min(MAX_SAMPLES, int(affordable * MORE))
    return min(SAMPLES, max(MIN_SAMPLES, int(affordable * USUAL)))


def measurements(allowance: float, macs: float, fixed: float, most: int) -> tuple[tuple[float, ...], int]:
    """(shares, samples) for measurements that cost ``macs`` per share and sample, and at most ``allowance`` in total.

    ``fixed``: what each share costs in addition, whatever the number of samples.  ``most``: maximum samples.

    >>> measurements(2.5e12, 2e9, 0.0, 32)
    ((0.875, 0.75, 0.5, 0.25), 32)
    >>> measurements(2.5e12, 2e9, 1e12, 32)
    ((0.75, 0.3), 32)
    >>> measurements(2.5e12, 7e10, 0.0, 32)
    ((0.75, 0.3), 17)
    >>> [measurements(2.5e12, macs, 0.0, 32)[1] for macs in (6e11, 7e11)]
    [8, 4]
    """
    shares = FINE if (macs * FINE_PROBES + fixed) * len(FINE) <= allowance else COARSE
    affordable = int(allowance / max(macs * len(shares), 1.0))
    least = MIN_PROBES
    if macs * len(shares) * MIN_PROBES > TOO_MUCH * allowance:
        least = FEWEST_PROBES
    return shares, min(most, max(least, affordable))


def selectors(effort: Effort, macs: float) -> tuple[str, ...]:
    """The selectors to try, at ``macs`` each; a single one if trials are too expensive.

    >>> default, best = EFFORTS["default"], EFFORTS["best"]
    >>> selectors(default, 1e9), selectors(best, 1e12), selectors(best, 2e13)
    (('obs',), ('obs', 'qr'), ('obs',))
    """
    return effort.orders if macs * len(effort.orders) <= effort.trying else effort.orders[:1]


def allocations(effort: Effort, orders: int, macs: float) -> tuple[float, ...]:
    """The latenesses to try, at ``macs`` each; a single one if trials are too expensive.

    The first is tried with each of several ``orders``, then all with the best order.

    >>> allocations(EFFORTS["default"], 1, 5e10), allocations(EFFORTS["default"], 1, 1e11)
    ((0.75, 0.0, 1.5), (1.0,))
    """
    tried = len(TRIED) + (orders if orders > 1 else 0)
    return TRIED if macs * tried <= effort.trying else UNTRIED
