"""How many units each group keeps: greedy descent on the exact cost at the least estimated output loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from onnxprune.budget.cost import Costing
from onnxprune.budget.curve import Curve
from onnxprune.budget.steps import Steps
from onnxprune.errors import BudgetError

Array = np.ndarray


def allowed_widths(size: int, multiple: int) -> Array:
    """All multiples of ``multiple`` up to ``size``, and ``size`` itself."""
    every = np.arange(1, size + 1)
    return np.union1d(every[every % max(multiple, 1) == 0], [size])


def allocate(cost: Costing, curves: Sequence[Curve], target: float) -> Array:
    """Units to keep per group, so that ``cost`` is at most ``target`` and as close to it as the widths allow.

    The descent starts at the whole model.  Each step takes the narrowing that adds the least output loss per saved
    cost.  A step may skip widths: otherwise a steep first step would hide a cheap stretch after it.  At the end,
    :func:`give_back` widens groups again while the target allows it.

    Raises:
        BudgetError: even the narrowest model costs more than ``target``.
    """
    kept = np.asarray([c.widths[-1] for c in curves], dtype=np.float64)
    least = cost(np.asarray([c.widths[0] for c in curves], dtype=np.float64))
    if least > target:
        raise BudgetError(f"the budget cannot be met: {narrowest_keeps(least / cost(kept))}; allow at least that")
    steps = Steps(cost, curves, kept, _narrower)
    while steps.now > target:
        groups, widths = steps.groups, steps.widths
        if not len(widths):
            break
        saved = steps.now - steps.then
        # Savings beyond the target do not count.
        useful = np.minimum(saved, (steps.now - target) * 1.02)
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(saved > 0, np.maximum(steps.harm, 0) / useful, np.inf)
        # Ties go to the first group and its smallest step.
        k = int(np.lexsort((-widths, groups, price))[0])
        if not np.isfinite(price[k]):
            break
        steps.take(int(groups[k]), float(widths[k]))
    return give_back(cost, curves, steps.kept, target)


def narrowest_keeps(share: float, what: str = "the original") -> str:
    """A message: the narrowest model's ``share`` of a cost, rounded up, so that it can be met.

    >>> narrowest_keeps(0.00271, "the MACs")
    'the narrowest model keeps 0.0028 of the MACs'
    """
    return f"the narrowest model keeps {np.ceil(share * 1e4) / 1e4:.4f} of {what}"


def _narrower(widths: Array, kept: float) -> Array:
    """Widths below ``kept``: every nearby one, and fewer and fewer with growing distance."""
    below = int(np.searchsorted(widths, kept))
    return np.asarray(widths[below - 1 - _distances(below)])


@lru_cache(maxsize=4096)
def _distances(count: int) -> Array:
    """Which of the ``count`` narrower widths to try, counted downwards: all if there are few, else at growing distances."""
    if count <= 8:
        return np.arange(count)
    return np.unique((1.25 ** np.arange(64)).astype(np.int64).clip(max=count - 1))


def _wider(widths: Array, kept: float) -> Array:
    """The next width above ``kept``."""
    return widths[widths > kept][:1]


def give_back(cost: Costing, curves: Sequence[Curve], kept: Array, target: float) -> Array:
    """Widen groups while the target holds.  The group that saves the most output loss per cost goes first."""
    steps = Steps(cost, curves, kept, _wider)
    while True:
        price = steps.then - steps.now
        gain = np.where(steps.then <= target, (1e-15 - steps.harm) / np.maximum(price, 1e-9), -np.inf)
        k = int(np.argmax(gain)) if len(gain) else 0
        if not len(gain) or gain[k] == -np.inf:
            return steps.kept.astype(np.int64)
        steps.take(int(steps.groups[k]), float(steps.widths[k]))


def uniform(cost: Costing, curves: Sequence[Curve], target: float) -> Array:
    """Baseline: keep the same share of every group, the largest whose cost is at most ``target``."""
    low, high = 0.0, 1.0
    sizes = np.asarray([c.widths[-1] for c in curves], dtype=np.float64)

    def at(share: float) -> Array:
        return np.asarray(
            [
                c.widths[max(0, int(np.searchsorted(c.widths, share * n, side="right")) - 1)]
                for c, n in zip(curves, sizes, strict=True)
            ],
            dtype=np.float64,
        )

    for _ in range(40):
        middle = (low + high) / 2
        if cost(at(middle)) > target:
            high = middle
        else:
            low = middle
    return give_back(cost, curves, at(low), target)
