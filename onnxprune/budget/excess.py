"""Several budgets as one cost: how far they are exceeded in total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        parts = [np.maximum(c.many(kept) / t - 1.0, 0.0) for c, t in zip(self.costs, self.targets, strict=True)]
        return np.asarray(sum(parts))


def joint(costs: Sequence[tuple[Costing, float]]) -> tuple[Costing, float]:
    """One (cost, target) that holds exactly if every (cost, target) of ``costs`` holds."""
    if len(costs) == 1:
        return costs[0]
    return Excess(tuple(cost for cost, _ in costs), tuple(target for _, target in costs)), 0.0
