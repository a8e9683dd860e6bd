"""Allocation: choose the units that each group keeps, so that a budget holds at the least output loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget.allocate import allocate
from onnxprune.budget.cost import Costing
from onnxprune.budget.curve import Curve
from onnxprune.coupling.groups import Coupling
from onnxprune.errors import BudgetError
from onnxprune.pipeline.pricing import Pricing
from onnxprune.selection.base import Ranking

Array = np.ndarray
#: A finer tier of widths replaces the fast one if it divides the output loss by WORTH_IT and the loss is above
#: NEGLIGIBLE.
WORTH_IT, NEGLIGIBLE = 3.0, 0.005
#: A cost below this share of the target overshoots it.  Then finer widths with less output loss replace the fast ones.
OVERSHOT = 0.85


@dataclass(frozen=True, eq=False)
class Allocation:
    """Units to keep per group, ``counts`` (groups,).  Each group keeps the first units of its ranking in ``pricing``."""

    pricing: Pricing
    counts: Array

    def keep(self, coupling: Coupling) -> Array:
        """One boolean per unit."""
        return keep_of(coupling, self.pricing.rankings, self.counts)


def keep_of(coupling: Coupling, rankings: Sequence[Ranking], kept: Array) -> Array:
    """One boolean per unit: each group keeps the first ``kept`` (groups,) units of its ranking."""
    keep = np.zeros(coupling.unit_count, dtype=np.bool_)
    for group, ranking, count in zip(coupling.groups, rankings, kept, strict=True):
        keep[group.units[ranking.order[: int(count)]]] = True
    return keep


def within(pricing: Pricing, cost: Costing, target: float, lateness: float = 1.0) -> Array:
    """Units to keep per group, int64 (groups,), for a cost of at most ``target`` (in the unit of ``cost``).

    Output loss in the last group counts ``exp(lateness)`` times as much as in the first.  The refit of later layers
    corrects an early cut, but nothing corrects the last one.

    The first tier that meets the target wins, with two exceptions: a later tier has only a fraction of its output loss,
    or the first tier goes far below the target and a later one loses less.  The last tier allows every width.  It is
    tried only if no other tier meets the target, or if the others go far below it.

    Raises:
        BudgetError: no tier meets the target.
    """
    best: _Allocated | None = None
    late = np.exp(lateness * np.linspace(0, 1, len(pricing.rankings)))
    for number, measured in enumerate(pricing.tiers):
        tier = [Curve(c.loss * weight, c.widths) for c, weight in zip(measured, late, strict=True)]
        last = number == len(pricing.tiers) - 1
        if best is not None and last and not best.cost < OVERSHOT * target:
            break
        try:
            kept = allocate(cost, tier, target)
        except BudgetError:
            if last and best is None:
                raise
            continue
        loss = sum(float(c.loss[k]) for c, k in zip(tier, kept, strict=True))
        allocated = _Allocated(kept, loss, cost(kept))
        if best is None or allocated.replaces(best, target):
            best = allocated
    assert best is not None
    return best.kept


@dataclass(frozen=True, eq=False)
class _Allocated:
    """``kept`` units per group, what they are expected to do, and what they cost."""

    kept: Array
    loss: float
    cost: float

    def replaces(self, coarser: _Allocated, target: float) -> bool:
        """Whether it is worth giving up the widths that run fast."""
        worth_it = 1.0 if coarser.cost < OVERSHOT * target else WORTH_IT
        return worth_it * self.loss < coarser.loss > NEGLIGIBLE


def narrowest(pricing: Pricing) -> Array:
    """The minimum width of every group, float64 (groups,)."""
    return np.asarray([c.widths[0] for c in pricing.curves], dtype=np.float64)


def widest(pricing: Pricing) -> Array:
    """The maximum width of every group, int64 (groups,)."""
    return np.asarray([c.widths[-1] for c in pricing.curves], dtype=np.int64)


def lossless(pricing: Pricing) -> Array:
    """The narrowest widths without any output loss: only dead channels (units without contribution) leave."""
    return _free(pricing.curves)


def past_lossless(pricing: Pricing) -> tuple[Array, ...]:
    """Starting points that drop all dead channels and run fast, the narrowest first.

    Some groups reach their next fast width only if live channels leave too.  In the first starting point all of them
    do so, in the second the cheaper half, then the cheapest quarter, and so on.  All other groups keep their
    :func:`lossless` width.
    """
    free, fast = lossless(pricing), pricing.tiers[:2][-1]
    past = np.asarray([max(c.widths[c.widths <= n], default=n) for c, n in zip(fast, free, strict=True)])
    price = np.asarray([c.loss[n] for c, n in zip(fast, past, strict=True)])
    order = [g for g in np.argsort(price, kind="stable") if past[g] < free[g]]
    starts = []
    while order:
        counts = free.copy()
        counts[order] = past[order]
        starts.append(counts)
        order = order[: len(order) // 2]
    return tuple(starts)


def _free(curves: Sequence[Curve]) -> Array:
    return np.asarray([int(c.widths[np.argmax(c.loss[c.widths] <= 0.0)]) for c in curves])
