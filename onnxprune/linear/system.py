"""The normal equations of a layer: from second moments or, if there are fewer rows than features, from the rows.

With rows X (r, n) and penalties P (diagonal), Woodbury's identity gives

    (XᵀX + P)⁻¹ b = P⁻¹b − P⁻¹Xᵀ (I + X P⁻¹ Xᵀ)⁻¹ X P⁻¹b

so that only an (r, r) system is factored.  This is exact, except that it leaves out the penalty of the constant feature (1e-8 of
the others' mean square).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg

from onnxprune.linear.gram import BLOCK, FEW, FewRows, Gram, SecondMoments, with_constant
from onnxprune.linear.solve import Ridges, fold, penalties
from onnxprune.linear.threads import blas_threads

Array = np.ndarray


class Solver(Protocol):
    """A factored ridge regression; see :func:`onnxprune.linear.solve.ridge`."""

    def solve(self, xy: Array, prior: Array) -> Array:
        """``xy``, ``prior`` and the result are (g, n+1, o)."""
        ...


class System(Protocol):
    """The left side of a layer's normal equations."""

    def ridges(self, strength: float) -> Solver: ...

    def plus(self, other: System) -> System:
        """The system of the rows of both."""
        ...

    def moments(self) -> Array:
        """(g, n+1, n+1)."""
        ...


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments ``xx`` (g, n+1, n+1)."""

    xx: Array

    def ridges(self, strength: float) -> Ridges:
        return Ridges(self.xx, strength)

    def plus(self, other: System) -> Moments:
        return Moments(self.xx + other.moments())

    def moments(self) -> Array:
        return self.xx


@dataclass(frozen=True, eq=False)
class FewEquations:
    """Rows ``x`` (r, n) float64 of a layer without groups, with a constant feature ``constant``."""

    x: Array
    constant: float

    def ridges(self, strength: float) -> DualRidge:
        return DualRidge(self.x, self.constant, strength)

    def plus(self, other: System) -> System:
        if isinstance(other, FewEquations):
            return FewEquations(np.concatenate([self.x, other.x]), self.constant)
        return other.plus(self)

    def moments(self) -> Array:
        whole = np.append(self.x, np.full((len(self.x), 1), self.constant), axis=1)
        return np.asarray(whole.T @ whole)[None]


class DualRidge:
    """Ridge regression from rows ``x`` (r, n).  Cost: r²·n + r³/3, and r·n numbers.

    Without its tiny penalty, the constant feature takes the mean: the other features are centred.
    """

    def __init__(self, x: Array, constant: float, strength: float) -> None:
        self._constant, self._rows = constant, len(x)
        squares = np.append(np.einsum("rn,rn->n", x, x), 0.0)
        self._penalty = penalties(squares, strength)[:-1, None]
        self._mean = x.mean(axis=0) if constant and len(x) else np.zeros(x.shape[1])
        self._x = x - self._mean
        scaled = self._x / np.sqrt(self._penalty[:, 0])
        with blas_threads(len(x)):
            system = scaled @ scaled.T
            system[np.diag_indices_from(system)] += 1.0
            self._factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)

    def solve(self, xy: Array, prior: Array) -> Array:
        """``xy``, ``prior`` and the result are (1, n+1, o)."""
        right, weights, last = xy[0, :-1], prior[0, :-1], prior[0, -1]
        if self._constant:
            means = xy[0, -1] / (self._constant * self._rows)
            right = right - self._rows * np.outer(self._mean, means)
        # Relative to the prior: the remainder is small, and so is its rounding.
        missing = (right - self._x.T @ (self._x @ weights)) / self._penalty
        common = scipy.linalg.cho_solve(self._factor, self._x @ missing, check_finite=False)
        weights = weights + missing - (self._x.T @ common) / self._penalty
        if self._constant:
            last = (means - self._mean @ weights) / self._constant
        return np.concatenate([weights, last[None]])[None]


def few(rows: int, groups: int, features: int) -> bool:
    """Whether the rows are cheaper than their moments."""
    return groups == 1 and rows <= FEW * features


def system_of(parts: Sequence[Array], constant: float) -> System:
    """The system of rows (r, g, n) float32, in ``parts``.  ``constant``: the value of the constant feature."""
    _, groups, features = parts[0].shape
    if few(sum(map(len, parts)), groups, features):
        return FewEquations(np.concatenate([part[:, 0] for part in parts]).astype(np.float64), constant)
    gram = Gram.empty(groups, features, 0)
    for part in parts:
        gram.update(part[:, :, :, None], None)
    return Moments(with_constant(gram.xx, constant))


def fold_onto(
    moments: SecondMoments, group: int, constant: float, weights: Array, kept: Array, strength: float
) -> Array:
    """:func:`onnxprune.linear.solve.fold` on the moments of one group, with the constant feature ``constant``.

    From rows, the result has the dtype of ``weights``.
    """
    if not isinstance(moments, FewRows) or not moments.rows:
        return fold(with_constant(moments.light(group), constant), weights, kept, strength)
    rows = moments.x[:, group].astype(np.float64)
    part = FewEquations(rows[:, kept[:-1]], constant)
    factor, folded = part.ridges(strength), np.empty((len(kept), weights.shape[1]), weights.dtype)
    # In blocks: the matrices of such layers are large.
    for start in range(0, weights.shape[1], BLOCK):
        some = weights[:, start : start + BLOCK].astype(np.float64)
        outputs = rows @ some[:-1] + constant * some[-1]
        right = np.concatenate([part.x.T @ outputs, constant * outputs.sum(axis=0, keepdims=True)])
        folded[:, start : start + BLOCK] = factor.solve(right[None], some[kept][None])[0]
    return folded
