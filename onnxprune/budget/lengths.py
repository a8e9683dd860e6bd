"""Lengths of axes as functions of the number of units that each group keeps.

On any axis, every unit of a group occurs equally often.  So a length is linear in the numbers of kept units.  If an axis
is a product of channels, its length is a product of such lengths.  An axis has units of few groups, so the coefficients
are sparse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Axis

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Lengths:
    """n rows of at most m axes.  Each length is a product of factors: factor = ``base`` + ``slope`` · kept.

    ``base`` (factors,) float64.  ``slope`` (factors, groups) sparse float64.  ``starts`` (n · m,): the first factor of each
    axis, in the order of ``shape`` (n, m).  Missing axes have length 1.
    """

    base: Array
    slope: csr_array
    starts: Array
    shape: tuple[int, int]

    def __call__(self, kept: Array) -> Array:
        """Lengths (..., n, m) for ``kept`` units per group, (..., groups)."""
        flat = np.asarray(kept, dtype=np.float64)
        lead = flat.shape[:-1]
        factors = self.base + (self.slope @ flat.reshape(math.prod(lead), flat.shape[-1]).T).T
        if len(self.starts) < len(self.base):
            factors = np.multiply.reduceat(factors, self.starts, axis=1)
        return np.asarray(factors).reshape(*lead, *self.shape)

    def vary(self) -> Array:
        """Boolean (n,): whether any axis of the row depends on ``kept``."""
        rows = self._rows()[np.diff(self.slope.indptr) > 0]
        return np.asarray(np.isin(np.arange(self.shape[0]), rows))

    def touched(self) -> list[Array]:
        """For each group, the rows with an axis that depends on it."""
        columns, rows = self.slope.tocsc(), self._rows()
        bounds = zip(columns.indptr, columns.indptr[1:], strict=False)
        return [np.unique(rows[columns.indices[a:b]]) for a, b in bounds]

    def linked(self) -> csr_array:
        """(groups, groups), non-zero if some row depends on both."""
        place = np.repeat(self._rows(), np.diff(self.slope.indptr))
        ones = np.ones(len(place))
        rows = csr_array((ones, (place, self.slope.indices)), shape=(self.shape[0], self.slope.shape[1]))
        return csr_array(rows.T @ rows)

    def _rows(self) -> Array:
        """The row of each factor."""
        axes = np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.base)))
        return np.asarray(axes // max(self.shape[1], 1))


def lengths_of(coupling: Coupling, rows: Sequence[Sequence[Axis]]) -> Lengths:
    """The lengths of the axes in ``rows``.  Cost: linear in the number of positions."""
    group_of = np.zeros(coupling.unit_count, dtype=np.int64)
    sizes = np.ones(max(len(coupling.groups), 1))
    for group in coupling.groups:
        group_of[group.units] = group.id
        sizes[group.id] = len(group)
    width = max((len(axes) for axes in rows), default=1)
    base: list[float] = []
    starts: list[int] = []
    entries: list[tuple[Array, Array, Array]] = []
    for axes in rows:
        for axis in axes:
            starts.append(len(base))
            for units in _factors(coupling, axis):
                free = units[units >= 0]
                groups, counts = np.unique(group_of[free], return_counts=True)
                entries.append((counts / sizes[groups], np.full(len(groups), len(base)), groups))
                base.append(len(units) - len(free))
        for _ in range(width - len(axes)):
            starts.append(len(base))
            base.append(1.0)
    shape = (len(base), len(coupling.groups))
    slope = csr_array(shape)
    if entries:
        shares, places, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
        slope = csr_array((shares, (places, columns)), shape=shape)
    return Lengths(np.asarray(base, np.float64), slope, np.asarray(starts, np.int64), (len(rows), width))


def _factors(coupling: Coupling, axis: Axis) -> Iterator[Array]:
    """The units of an axis; if it is a product of channels, the units of each factor."""
    units = coupling.units[axis[0]][axis[1]]
    if units.ndim == 1:
        yield units
        return
    grid = coupling.walked.products[axis]
    for place, (size, column) in enumerate(zip(grid.sizes, grid.columns, strict=True)):
        if column is None:
            yield np.full(size, -1)
        else:
            lines = units[:, column].reshape(grid.sizes)
            yield lines[tuple(slice(None) if k == place else 0 for k in range(lines.ndim))]
