"""Streamed second moments of a layer's rows; memory does not grow with their number.

:class:`Gram` sums float32 products of :data:`CHUNK` rows in float64.  :class:`InputMoments`, of which a run keeps one per
layer at a time, stays in float32: half the memory, and at most 1e-5 of the diagonal off, where the weakest ridge that
is solved with adds 1e-4 of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.linalg.blas import ssyrk

Array = np.ndarray
#: Rows per float32 product: small enough that rounding stays near 1e-6 of the diagonal.
CHUNK = 8192
#: Columns that are mirrored at a time.
BLOCK = 256

#: Rows per feature up to which the rows themselves are kept: a quarter of what their second moments take, and their
#: product costs no more than the factorization that follows.
FEW = 0.5


class SecondMoments(Protocol):
    """What is known of a layer's input: ``rows`` were seen, and ``of(g)`` is XᵀX (n+1, n+1) float64 of the features of
    group g and a constant 1, which is last."""

    @property
    def rows(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(groups, features of each)."""
        ...

    def of(self, group: int) -> Array: ...


@dataclass(eq=False)
class Gram:
    """``xx``: (g, n+1, n+1) of features and a constant; ``xy``: (g, n+1, o); mergeable.

    Feature order is channel-major, taps fastest; the constant is last.
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
            # The constant apart: a column of ones would be a copy of all that is beside it.
            sums = a.sum(axis=1, dtype=np.float64)
            self.xx[:, :-1, :-1] += np.matmul(turned, a)
            self.xx[:, -1, :-1] += sums
            self.xx[:, :-1, -1] += sums
            if y is not None:
                b = y[start : start + CHUNK].reshape(a.shape[1], groups, -1).transpose(1, 0, 2)
                self.xy[:, :-1] += np.matmul(turned, b)
                self.xy[:, -1] += b.sum(axis=1, dtype=np.float64)
        self.xx[:, -1, -1] += rows
        self.rows += rows

    @property
    def size(self) -> tuple[int, int]:
        return len(self.xx), self.xx.shape[1] - 1

    def of(self, group: int) -> Array:
        return np.asarray(self.xx[group])

    def merge(self, other: Gram) -> Gram:
        return Gram(self.xx + other.xx, self.xy + other.xy, self.rows + other.rows)


@dataclass(frozen=True, eq=False)
class FewRows:
    """Second moments that are computed when asked for: ``x`` (r, g, n) float32, fewer rows than features."""

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


@dataclass(frozen=True, eq=False)
class LightGram:
    """Second moments in float32: the upper triangles of ``products`` (g, n, n) and the ``sums`` (g, n), float64."""

    products: Array
    sums: Array
    rows: int

    @property
    def size(self) -> tuple[int, int]:
        return self.sums.shape[0], self.sums.shape[1]

    def of(self, group: int) -> Array:
        """Cost: (n+1)² numbers."""
        upper = self.products[group]
        size = len(upper)
        found = np.empty((size + 1, size + 1))
        found[:-1, :-1] = upper
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)
            block = np.triu(upper[start:end, start:end])
            found[start:end, start:end] = block + np.triu(block, 1).T
            found[end:size, start:end] = upper[start:end, end:].T
        found[-1, :-1] = found[:-1, -1] = self.sums[group]
        found[-1, -1] = self.rows
        return found


@dataclass(eq=False)
class InputMoments:
    """Collects a layer's input, ``groups`` of ``features`` each, in whatever is smaller: its rows, or their moments.

    A wide layer that sees few rows (a transformer of 4,096 hidden units, 32 samples) would else take more memory for
    its moments than for its weights.
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
        """Add what another one collected of the same layer; in the same order of parts to the same bits."""
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
        """From now on keep moments, of the rows so far, too."""
        if self._products is not None:
            return
        # Columns first, as BLAS writes it.
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
            each = np.ascontiguousarray(rows.transpose(1, 0, 2))
            self._products += np.matmul(each.transpose(0, 2, 1), each)
        self._sums += rows.sum(axis=0, dtype=np.float64)

    def found(self) -> SecondMoments:
        if self._products is not None and self._sums is not None:
            return LightGram(self._products, self._sums, self._count)
        none = np.zeros((0, self.groups, self.features), np.float32)
        return FewRows(np.concatenate([none, *self._rows]))


def with_constant(xx: Array, value: float) -> Array:
    """Second moments (..., n+1, n+1) as if the constant feature, 1 in ``xx``, had been ``value``."""
    if value == 1.0:
        return xx
    found = xx.copy()
    found[..., -1, :] *= value
    found[..., -1] *= value
    return found
