"""Streamed second moments of a layer's rows.

Exact up to float32 products summed in float64 per chunk; memory does not grow with the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
#: Rows per float32 product: small enough that rounding stays near 1e-6 of the diagonal.
CHUNK = 8192


@dataclass(eq=False)
class Gram:
    """``xx``: (g, n+1, n+1) of features and a constant; ``xy``: (g, n+1, o); ``yy``: (g, o); mergeable.

    Feature order is channel-major, taps fastest; the constant is last.
    """

    xx: Array
    xy: Array
    yy: Array
    rows: int = 0

    @staticmethod
    def empty(groups: int, features: int, outputs: int) -> Gram:
        return Gram(
            np.zeros((groups, features + 1, features + 1)),
            np.zeros((groups, features + 1, outputs)),
            np.zeros((groups, outputs)),
        )

    def update(self, x: Array, y: Array | None) -> None:
        """``x``: (rows, g, i, t) float32; ``y``: (rows, g·o) float32 or ``None``."""
        rows, groups = x.shape[:2]
        features = x.reshape(rows, groups, -1)
        for start in range(0, rows, CHUNK):
            part = features[start : start + CHUNK]
            with_one = np.concatenate([part, np.ones((len(part), groups, 1), np.float32)], axis=2)
            a = with_one.transpose(1, 0, 2)
            self.xx += np.matmul(a.transpose(0, 2, 1), a)
            if y is not None:
                b = y[start : start + CHUNK].reshape(len(part), groups, -1).transpose(1, 0, 2)
                self.xy += np.matmul(a.transpose(0, 2, 1), b)
                self.yy += np.einsum("gro,gro->go", b, b, dtype=np.float64)
        self.rows += rows

    def merge(self, other: Gram) -> Gram:
        return Gram(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy, self.rows + other.rows)

    def error(self, weights: Array) -> Array:
        """Sum of squared residuals per output of ``weights`` (g, n+1, o): (g, o)."""
        fitted = np.einsum("gno,gno->go", weights, np.matmul(self.xx, weights) - 2 * self.xy)
        return np.asarray(np.maximum(fitted + self.yy, 0.0))


def with_constant(xx: Array, value: float) -> Array:
    """Second moments (..., n+1, n+1) as if the constant feature, 1 in ``xx``, had been ``value``."""
    scale = np.append(np.ones(xx.shape[-1] - 1), value)
    return np.asarray(xx * scale[:, None] * scale)
