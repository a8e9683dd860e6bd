"""How many units each group keeps: greedy descent on exact cost, paid in estimated damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget.cost import Costing
from onnxprune.errors import BudgetError

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Curve:
    """``damage[k]``: estimated damage with k of the group's units kept, k = 0 … size; falls to 0 at the end.

    ``widths``: the numbers of kept units that may be chosen, ascending, the last one being the whole group.
    """

    damage: Array
    widths: Array


def allowed_widths(size: int, multiple: int) -> Array:
    """The multiples up to ``size``, and the whole group."""
    every = np.arange(1, size + 1)
    return np.union1d(every[every % max(multiple, 1) == 0], [size])


def allocate(cost: Costing, curves: Sequence[Curve], target: float) -> Array:
    """Units kept per group so that ``cost`` is at most ``target`` and as near to it as the widths allow.

    From the whole model down, each step takes the narrowing with the least added damage per saved cost (near and far
    narrowings of a group are compared, so that a steep start does not hide a cheap stretch behind it); then widths
    are given back where the target leaves room, most damage saved first.

    Raises:
        BudgetError: where even the narrowest model costs more than ``target``.
    """
    kept = np.asarray([c.widths[-1] for c in curves], dtype=np.float64)
    least = cost(np.asarray([c.widths[0] for c in curves], dtype=np.float64))
    if least > target:
        whole = cost(kept)
        raise BudgetError(
            f"the budget cannot be met: at most {1 - least / whole:.1%} can go (keep at least {least / whole:.4f})"
        )
    now = cost(kept)
    while now > target:
        options = [_narrower(c.widths, k) for c, k in zip(curves, kept, strict=True)]
        groups = np.repeat(np.arange(len(curves)), [len(o) for o in options])
        widths = np.concatenate(options)
        if not len(widths):
            break
        trial = np.repeat(kept[None], len(widths), axis=0)
        trial[np.arange(len(widths)), groups] = widths
        saved = now - cost.many(trial)
        # A step that overshoots is worth only what was still needed.
        useful = np.minimum(saved, (now - target) * 1.02)
        here = [c.damage[int(k)] for c, k in zip(curves, kept, strict=True)]
        there = np.concatenate([c.damage[o] for c, o in zip(curves, options, strict=True)])
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(
                saved > 0, np.maximum(there - np.repeat(here, [len(o) for o in options]), 0) / useful, np.inf
            )
        # Of equal prices the smallest step of the first group.
        k = int(np.lexsort((-widths, groups, price))[0])
        if not np.isfinite(price[k]):
            break
        kept[groups[k]] = widths[k]
        now -= float(saved[k])
    return give_back(cost, curves, kept, target)


def _narrower(widths: Array, kept: float) -> Array:
    """Widths below ``kept``: all of the near ones, ever fewer of the far ones."""
    below = widths[widths < kept][::-1]
    return (
        below[np.unique((1.25 ** np.arange(64)).astype(np.int64)).clip(max=len(below) - 1)] if len(below) > 8 else below
    )


def give_back(cost: Costing, curves: Sequence[Curve], kept: Array, target: float) -> Array:
    """Widen groups while the target still holds, most damage saved per cost first."""
    kept = kept.copy()
    while True:
        now = cost(kept)
        best: tuple[float, int, float] | None = None
        for g, curve in enumerate(curves):
            wider = curve.widths[curve.widths > kept[g]]
            if not len(wider):
                continue
            trial = kept.copy()
            trial[g] = wider[0]
            price = cost(trial) - now
            if now + price > target:
                continue
            gain = (curve.damage[int(kept[g])] - curve.damage[int(wider[0])] + 1e-15) / max(price, 1e-9)
            if best is None or gain > best[0]:
                best = (float(gain), g, float(wider[0]))
        if best is None:
            return kept.astype(np.int64)
        kept[best[1]] = best[2]


def uniform(cost: Costing, curves: Sequence[Curve], target: float) -> Array:
    """The same share of every group (a baseline): the largest share whose cost is at most ``target``."""
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
