"""Streamed second moments of a layer's rows.

Exact up to float32 products summed in float64 per chunk; memory does not grow with the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Array = np.ndarray
#: Rows per float32 product: small enough that rounding stays near 1e-6 of the diagonal.
CHUNK = 8192


#: Rows per feature up to which the rows themselves are kept: a quarter of what their second moments take, and their
#: product costs no more than the factorization that follows.
FEW = 0.5


class SecondMoments(Protocol):
    """What is known of a layer's input: ``rows`` were seen, and ``of(g)`` is XᵀX (n+1, n+1) float64 of the features of
    group g and a constant 1, which is last."""

    @property
    def rows(self) -> int: ...

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

    def of(self, group: int) -> Array:
        """Cost: r·(n+1)² multiply-adds."""
        gram = Gram.empty(1, self.x.shape[2], 0)
        gram.update(self.x[:, group : group + 1, :, None], None)
        return gram.of(0)


@dataclass(eq=False)
class InputMoments:
    """Collects a layer's input, ``groups`` of ``features`` each, in whatever is smaller: its rows, or their moments.

    A wide layer that sees few rows (a transformer of 4,096 hidden units, 32 samples) would else take more memory for
    its moments than for its weights.
    """

    groups: int
    features: int
    _rows: list[Array] = field(default_factory=list)
    _gram: Gram | None = None

    def update(self, x: Array) -> None:
        """``x``: (rows, g, i, t) float32."""
        if self._gram is None:
            self._rows.append(x.reshape(len(x), self.groups, self.features))
            if sum(map(len, self._rows)) <= FEW * self.features:
                return
            self._gram = Gram.empty(self.groups, self.features, 0)
            for rows in self._rows:
                self._gram.update(rows[:, :, :, None], None)
            self._rows.clear()
        else:
            self._gram.update(x, None)

    def found(self) -> SecondMoments:
        if self._gram is not None:
            return self._gram
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
