"""The steps that an allocation may take next, updated after each step taken.

A step changes the width of one group.  Its saving depends only on the widths of the groups that share a term of the cost
with it.  So after a step, only those groups are priced again: for n groups in a row, a descent costs
about n times the work of one step, not n².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.budget.cost import Costing
from onnxprune.budget.curve import Curve
from onnxprune.budget.excess import parts_of, total_of

Array = np.ndarray
#: The widths that a group may step to: (all its widths, its current width) -> widths.
NextWidths = Callable[[Array, float], Array]
#: Steps priced at a time.  Memory is this many times the terms of the cost.
AT_A_TIME = 256


class Steps:
    """The steps from ``kept`` (units per group).

    ``now``: the cost of ``kept``.  Per step: ``groups`` and ``widths`` (which group goes to which width), ``then`` (the
    cost after it), ``harm`` (the output loss that it adds; negative if the group gets wider).
    """

    def __init__(self, cost: Costing, curves: Sequence[Curve], kept: Array, reach: NextWidths) -> None:
        self.kept = kept.astype(np.float64)
        self._cost, self._curves, self._reach = cost, curves, reach
        self._parts = parts_of(cost)
        linked = sum(part.linked() for part in self._parts)
        self._linked = [linked.indices[a:b] for a, b in zip(linked.indptr, linked.indptr[1:], strict=False)]
        none = np.empty(0)
        self._widths: list[Array] = [none] * len(curves)
        self._harm: list[Array] = [none] * len(curves)
        self._changes: list[Array] = [none] * len(curves)
        self._update(range(len(curves)))

    def take(self, group: int, width: float) -> None:
        """Take the step of ``group`` to ``width``."""
        self.kept[group] = width
        self._update(np.union1d(self._linked[group], [group]))

    def _update(self, touched: Sequence[int] | Array) -> None:
        """Price the steps of the groups ``touched`` again, and rebuild the list of all steps."""
        values = np.asarray([part(self.kept) for part in self._parts])
        rows: list[Array] = []
        for g in touched:
            curve, has = self._curves[g], self.kept[g]
            self._widths[g] = self._reach(curve.widths, has)
            self._harm[g] = curve.loss[self._widths[g]] - curve.loss[int(has)]
            trial = np.repeat(self.kept[None], len(self._widths[g]), axis=0)
            trial[:, g] = self._widths[g]
            rows.append(trial)
        changes = self._priced(np.concatenate(rows)) - values[:, None] if rows else np.empty((len(values), 0))
        ends = np.cumsum([len(self._widths[g]) for g in touched])
        for g, change in zip(touched, np.split(changes, ends[:-1], axis=1), strict=True):
            self._changes[g] = change
        self.now = float(total_of(self._cost, values))
        self.groups = np.repeat(np.arange(len(self._curves)), [len(w) for w in self._widths])
        self.widths = np.concatenate(self._widths) if self._widths else np.empty(0)
        self.harm = np.concatenate(self._harm) if self._harm else np.empty(0)
        every = np.concatenate(self._changes, axis=1) if self._changes else np.empty((len(values), 0))
        self.then = np.asarray(total_of(self._cost, values[:, None] + every))

    def _priced(self, trial: Array) -> Array:
        """The value of each part for each row of ``trial``: (parts, rows)."""
        pieces = [trial[k : k + AT_A_TIME] for k in range(0, max(len(trial), 1), AT_A_TIME)]
        return np.concatenate([[part.many(piece) for part in self._parts] for piece in pieces], axis=1)
