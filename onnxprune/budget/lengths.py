"""Lengths of axes as functions of how many units each group keeps.

A unit of a group stands equally often on each axis that the group runs through, so every length is linear in the
numbers of kept units.  An axis has units of few groups, so the coefficients are stored sparsely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Lengths:
    """n rows of at most m axes: length = ``base`` + ``slope`` · kept; 1 where a row has fewer axes.

    ``base`` (n, m) float64; ``slope`` (n · m, groups) sparse float64.
    """

    base: Array
    slope: csr_array

    def __call__(self, kept: Array) -> Array:
        """Lengths (..., n, m) for ``kept`` units per group, (..., groups)."""
        flat = np.asarray(kept, dtype=np.float64)
        lead = flat.shape[:-1]
        moved = np.asarray((self.slope @ flat.reshape(math.prod(lead), flat.shape[-1]).T).T)
        return np.asarray(self.base + moved.reshape(*lead, *self.base.shape))

    def vary(self) -> Array:
        """Whether any axis of a row depends on what is kept, boolean (n,)."""
        return np.asarray(np.diff(self.slope.indptr).reshape(self.base.shape).any(axis=1))

    def touched(self) -> list[Array]:
        """Per group the rows with an axis that depends on it."""
        columns = self.slope.tocsc()
        bounds = zip(columns.indptr, columns.indptr[1:], strict=False)
        return [np.unique(columns.indices[a:b] // self.base.shape[1]) for a, b in bounds]


def lengths_of(coupling: Coupling, rows: Sequence[Sequence[tuple[Key, int]]]) -> Lengths:
    """The lengths of the axes (key, axis) in ``rows``.  Cost: linear in their positions."""
    group_of = np.zeros(coupling.unit_count, dtype=np.int64)
    sizes = np.ones(max(len(coupling.groups), 1))
    for group in coupling.groups:
        group_of[group.units] = group.id
        sizes[group.id] = len(group)
    width = max((len(axes) for axes in rows), default=1)
    base = np.ones((len(rows), width))
    places: list[Array] = []
    groups: list[Array] = []
    shares: list[Array] = []
    for t, axes in enumerate(rows):
        for a, (key, axis) in enumerate(axes):
            units = coupling.units[key][axis]
            free = units[units >= 0]
            base[t, a] = len(units) - len(free)
            found, counts = np.unique(group_of[free], return_counts=True)
            places.append(np.full(len(found), t * width + a))
            groups.append(found)
            shares.append(counts / sizes[found])
    shape = (base.size, len(coupling.groups))
    if not places:
        return Lengths(base, csr_array(shape))
    entries = np.concatenate(shares), (np.concatenate(places), np.concatenate(groups))
    return Lengths(base, csr_array(entries, shape=shape))
