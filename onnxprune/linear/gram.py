"""Streamed second moments of a layer's rows.  Memory does not grow with the number of rows.

:class:`Gram` sums float32 products of :data:`CHUNK` rows in float64.  :class:`InputMoments` stays in float32, because a
run keeps one per layer at a time: this halves the memory.  Its error is at most 1e-5 of the diagonal; the weakest
ridge in use adds 1e-4 of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.linalg.blas import ssyrk

Array = np.ndarray
#: Rows per float32 product: small enough that rounding stays near 1e-6 of the diagonal.
CHUNK = 8192
#: Number of columns to mirror at a time, and of rows to add in float32.
BLOCK, RUN = 256, 64

#: Up to this many rows per feature, keep the rows themselves.  They take a quarter of the memory of their second
#: moments, and their product costs no more than the factorization that follows.
FEW = 0.5


class SecondMoments(Protocol):
    """Second moments of a layer's input over ``rows`` rows.

    ``of(g)`` is XᵀX, (n+1, n+1) float64, of the features of group g and a constant 1, which comes last.  ``light(g)`` is
    the same in float32, in half the time.
    """

    @property
    def rows(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(groups, features of each)."""
        ...

    def of(self, group: int) -> Array: ...

    def light(self, group: int) -> Array: ...


@dataclass(eq=False)
class Gram:
    """Second moments that can be merged: ``xx`` (g, n+1, n+1) and ``xy`` (g, n+1, o).

    The features are channel-major, taps fastest.  The constant feature comes last.
    """

    xx: Array
    xy: Array
    rows: int = 0

    @staticmethod
    def empty(groups: int, features: int, outputs: int) -> Gram:
        return Gram(
            np.zeros((groups, features + 1, features + 1)),
            np.zeros((groups, features + 1, outputs)),
        )

    def update(self, x: Array, y: Array | None) -> None:
        """``x``: (rows, g, i, t) float32; ``y``: (rows, g·o) float32 or ``None``."""
        rows, groups = x.shape[:2]
        features = x.reshape(rows, groups, self.xx.shape[1] - 1)
        for start in range(0, rows, CHUNK):
            a = features[start : start + CHUNK].transpose(1, 0, 2)
            turned = a.transpose(0, 2, 1)
            # Handle the constant separately: appending a column of ones would copy the whole array.
            sums = column_sums(features[start : start + CHUNK])
            self.xx[:, :-1, :-1] += np.matmul(turned, a)
            self.xx[:, -1, :-1] += sums
            self.xx[:, :-1, -1] += sums
            if y is not None:
                self.xy[:, :-1] += cross(features[start : start + CHUNK], y[start : start + CHUNK])
                self.xy[:, -1] += column_sums(y[start : start + CHUNK]).reshape(groups, -1)
        self.xx[:, -1, -1] += rows
        self.rows += rows

    @property
    def size(self) -> tuple[int, int]:
        return len(self.xx), self.xx.shape[1] - 1

    def of(self, group: int) -> Array:
        return np.asarray(self.xx[group])

    def light(self, group: int) -> Array:
        return np.asarray(self.xx[group], dtype=np.float32)

    def merge(self, other: Gram) -> Gram:
        return Gram(self.xx + other.xx, self.xy + other.xy, self.rows + other.rows)


@dataclass(frozen=True, eq=False)
class FewRows:
    """Second moments computed on demand from ``x`` (r, g, n) float32, for fewer rows than features."""

    x: Array

    @property
    def rows(self) -> int:
        return len(self.x)

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[1], self.x.shape[2]

    def of(self, group: int) -> Array:
        """Cost: r·(n+1)² multiply-adds."""
        gram = Gram.empty(1, self.x.shape[2], 0)
        gram.update(self.x[:, group : group + 1, :, None], None)
        return gram.of(0)

    def light(self, group: int) -> Array:
        return np.asarray(self.of(group), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class LightGram:
    """Second moments: ``products`` (g, n, n) float32, symmetric, and ``sums`` (g, n) float64."""

    products: Array
    sums: Array
    rows: int

    @property
    def size(self) -> tuple[int, int]:
        return self.sums.shape[0], self.sums.shape[1]

    def of(self, group: int) -> Array:
        """Cost: (n+1)² numbers."""
        return self._full(group, np.float64)

    def light(self, group: int) -> Array:
        return self._full(group, np.float32)

    def _full(self, group: int, kind: type[np.floating]) -> Array:
        size = self.sums.shape[1]
        full = np.empty((size + 1, size + 1), kind)
        # A symmetric matrix may be read along its columns, which lie in one piece.
        full[:-1, :-1] = self.products[group].T
        full[-1, :-1] = full[:-1, -1] = self.sums[group]
        full[-1, -1] = self.rows
        return full


@dataclass(eq=False)
class InputMoments:
    """Collects a layer's input as rows or as moments, whichever is smaller.

    The input has ``groups`` groups of ``features`` features.  A wide layer may see few rows: 32 samples, say, for a
    Gemm with 16,384 inputs and 4,096 outputs.  Its moments would take more memory than its weights.
    """

    groups: int
    features: int
    _rows: list[Array] = field(default_factory=list)
    _products: Array | None = None
    _sums: Array | None = None
    _count: int = 0

    def update(self, x: Array) -> None:
        """``x``: (rows, g, i, t) float32."""
        rows = x.reshape(len(x), self.groups, self.features)
        self._count += len(rows)
        if self._products is None:
            self._rows.append(rows)
            if self._count > FEW * self.features:
                self._begin()
            return
        self._add(rows)

    def absorb(self, part: SecondMoments) -> None:
        """Add the moments of another part of the samples.  The same parts in the same order give the same bits."""
        if isinstance(part, FewRows):
            self.update(part.x[:, :, :, None])
            return
        assert isinstance(part, LightGram)
        self._begin()
        assert self._products is not None and self._sums is not None
        self._products += part.products
        self._sums += part.sums
        self._count += part.rows

    def _begin(self) -> None:
        """Switch from rows to moments, and add the rows so far."""
        if self._products is not None:
            return
        # Column-major, as BLAS writes it.
        self._products = np.zeros((self.groups, self.features, self.features), np.float32).transpose(0, 2, 1)
        self._sums = np.zeros((self.groups, self.features))
        if self._rows:
            self._add(np.concatenate(self._rows))
            self._rows.clear()

    def _add(self, rows: Array) -> None:
        assert self._products is not None and self._sums is not None
        if self.groups == 1:
            ssyrk(1.0, rows[:, 0].T, beta=1.0, c=self._products[0], overwrite_c=1)
        else:
            self._products += np.matmul(rows.transpose(1, 2, 0), rows.transpose(1, 0, 2))
        self._sums += column_sums(rows)

    def moments(self) -> SecondMoments:
        if self._products is not None and self._sums is not None:
            if self.groups == 1:
                mirror(self._products[0])
            return LightGram(self._products, self._sums, self._count)
        none = np.zeros((0, self.groups, self.features), np.float32)
        return FewRows(np.concatenate([none, *self._rows]))


def cross(x: Array, y: Array) -> Array:
    """XᵀY of up to :data:`CHUNK` rows: ``x`` (r, g, n) and ``y`` (r, g·o), float32, give (g, n, o) float32."""
    groups = x.shape[1]
    if groups > 1 and y.shape[1] == groups:
        # Depthwise: one sum takes a third of the time of thousands of products with one column.
        return np.asarray(np.einsum("rgn,rg->gn", x, y))[:, :, None]
    return np.asarray(np.matmul(x.transpose(1, 2, 0), y.reshape(len(y), groups, -1).transpose(1, 0, 2)))


def mirror(square: Array) -> None:
    """Copy the upper triangle of ``square`` (n, n) to the lower one, in place.  BLAS and LAPACK write only one."""
    size = len(square)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        block = np.triu(square[start:end, start:end])
        square[start:end, start:end] = block + np.triu(block, 1).T
        square[end:, start:end] = square[start:end, end:].T


def column_sums(rows: Array) -> Array:
    """Sums of float32 ``rows`` (r, ...) over r, in float64.

    Runs of :data:`RUN` rows are added in float32, with a relative error of at most 4e-6 of the sum of the sizes.  To add
    every number in float64 takes twice as long.
    """
    end = len(rows) // RUN * RUN
    runs = rows[:end].reshape(-1, RUN, *rows.shape[1:]).sum(axis=1)
    return np.asarray(runs.sum(axis=0, dtype=np.float64) + rows[end:].sum(axis=0, dtype=np.float64))


def with_constant(xx: Array, value: float) -> Array:
    """``xx`` (..., n+1, n+1) with the constant feature set to ``value`` instead of 1."""
    if value == 1.0:
        return xx
    scaled = xx.copy()
    scaled[..., -1, :] *= value
    scaled[..., -1] *= value
    return scaled
