"""Several budgets as one cost: their total excess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from onnxprune.budget.cost import Costing

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Excess:
    """Σ max(costᵢ / targetᵢ − 1, 0), which is zero exactly if every cost is within its target.

    It is a sum, not a maximum: a step that helps only one of two exceeded budgets must count as progress.
    """

    costs: tuple[Costing, ...]
    targets: tuple[float, ...]

    def __call__(self, kept: Array) -> float:
        return float(self.many(kept))

    def many(self, kept: Array) -> Array:
        return self.of([cost.many(kept) for cost in self.costs])

    def of(self, values: Sequence[Array] | Array) -> Array:
        """The excess for the ``values`` of each cost."""
        return np.asarray(sum(np.maximum(v / t - 1.0, 0.0) for v, t in zip(values, self.targets, strict=True)))

    def linked(self) -> csr_array:
        """The links of all costs together; see :class:`onnxprune.budget.cost.Costing`."""
        return csr_array(sum(cost.linked() for cost in self.costs))


def joint(costs: Sequence[tuple[Costing, float]]) -> tuple[Costing, float]:
    """One (cost, target) that holds exactly if every (cost, target) of ``costs`` holds."""
    if len(costs) == 1:
        return costs[0]
    return Excess(tuple(cost for cost, _ in costs), tuple(target for _, target in costs)), 0.0


def parts_of(cost: Costing) -> tuple[Costing, ...]:
    """The plain costs that ``cost`` combines.  Each is a sum of terms."""
    return cost.costs if isinstance(cost, Excess) else (cost,)


def total_of(cost: Costing, values: Array) -> Array:
    """``cost``, given the values of its :func:`parts_of`, (parts,) or (parts, n)."""
    return cost.of(values) if isinstance(cost, Excess) else np.asarray(values[0])
