"""Ridge regression toward given weights, from second moments.

Systems in float32 are solved in float32, in half the time.  The backward error of Cholesky is about n·6e-8 of the mean
diagonal at worst, 1e-4 for 2,304 columns; the penalty adds at least 1e-3 of it where float32 is used.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from onnxprune.linear.threads import blas_threads

Array = np.ndarray


#: Solve in float32 from this strength on, and from this number of columns on: narrower systems take no time.
LIGHT, WIDE = 1e-2, 512


def penalties(diagonal: Array, strength: float) -> Array:
    """The penalty per feature, (..., n+1), from the diagonal of XᵀX.  None for the constant but a floor."""
    features = diagonal[..., :-1] if diagonal.shape[-1] > 1 else np.ones_like(diagonal)
    floor = 1e-8 * np.maximum(features.mean(axis=-1), 1e-30)
    penalty = strength * diagonal + floor[..., None]
    penalty[..., -1] = floor
    return np.asarray(penalty)


class Ridge:
    """The system of :func:`ridge` for one strength: factored once, solved for many right-hand sides.

    If rounding makes the system indefinite, a float32 system is solved in float64, and then the diagonal grows until
    the system is positive definite.
    """

    def __init__(self, xx: Array, strength: float) -> None:
        diagonal = np.diagonal(xx)
        self.penalty = penalties(diagonal, strength)
        raised = 0.0
        while True:
            # Column-major, as LAPACK wants it: otherwise LAPACK copies the system once more.
            system = xx.copy(order="F")
            system[np.diag_indices_from(system)] += self.penalty + raised
            try:
                with blas_threads(len(system)):
                    self._factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
                return
            except scipy.linalg.LinAlgError:
                if xx.dtype == np.float32:
                    xx, self.penalty = xx.astype(np.float64), self.penalty.astype(np.float64)
                    continue
                raised = max(raised * 10, 1e-6 * float(diagonal.mean()))

    def solve(self, xy: Array, prior: Array) -> Array:
        """argmin_W as :func:`ridge`, float64."""
        right = np.asarray(xy + self.penalty[:, None] * prior, self.penalty.dtype)
        solved = scipy.linalg.cho_solve(self._factor, right, overwrite_b=True, check_finite=False)
        return np.asarray(solved, dtype=np.float64)


class Ridges:
    """:class:`Ridge` for all groups of a layer: ``xx`` (g, n+1, n+1).  Solves many small systems in one call."""

    def __init__(self, xx: Array, strength: float) -> None:
        self._each: list[Ridge] = []
        if len(xx) > 1:
            self.penalty = penalties(np.diagonal(xx, axis1=1, axis2=2), strength)
            self._systems = xx + self.penalty[:, :, None] * np.eye(xx.shape[1])
            try:
                np.linalg.cholesky(self._systems)
                return
            except np.linalg.LinAlgError:
                pass
        light = strength >= LIGHT and xx.shape[1] >= WIDE
        self._each = [Ridge(one.astype(np.float32) if light else one, strength) for one in xx]

    def solve(self, xy: Array, prior: Array) -> Array:
        """``xy``, ``prior`` and the result are (g, n+1, o)."""
        if self._each:
            return np.stack([one.solve(right, to) for one, right, to in zip(self._each, xy, prior, strict=True)])
        return np.asarray(np.linalg.solve(self._systems, xy + self.penalty[:, :, None] * prior))


def ridge(xx: Array, xy: Array, prior: Array, strength: float) -> Array:
    """argmin_W ‖XW − Y‖² + strength·‖D(W − prior)‖², D² = diag(XᵀX), with no penalty on the constant feature.

    ``xx`` is (n+1, n+1), float64 or float32; ``xy``, ``prior`` and the result are (n+1, o).  Cholesky solves the system.
    A floor of 1e-8 of the mean diagonal keeps dead features harmless.  Cost: (n+1)³/3 + 2(n+1)²·o.
    """
    return Ridge(xx, strength).solve(xy, prior)


def fold(xx: Array, weights: Array, kept: Array, strength: float) -> Array:
    """Weights on the features ``kept`` that best reproduce the layer's output on the original inputs.

    ``xx`` (n+1, n+1) holds the original features, ``weights`` is (n+1, o), and ``kept`` lists ascending indices,
    including the constant.  This is least squares against the layer's own output: W' = (X_SᵀX_S)⁻¹ X_SᵀX W.
    """
    rows = xx[kept]
    return ridge(np.take(rows, kept, axis=1), rows @ weights.astype(xx.dtype, copy=False), weights[kept], strength)
