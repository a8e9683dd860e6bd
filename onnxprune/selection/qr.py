"""Pivoted QR on channel contributions: CHaPR (arXiv 1908.03266) for any number of readers.

A reader's output is a sum of contributions, y = Σ_c z_c.  Keeping the k columns of Z = [vec z_1 … vec z_C] that
best span all of them is column subset selection, solved greedily by QR with column pivoting (Businger-Golub).
Z is never formed: any square root A of ZᵀZ (AᵀA = ZᵀZ) has the same R factor up to signs, hence the same pivots.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from onnxprune.selection.base import Evidence, Ranking

Array = np.ndarray


def select(evidence: Evidence, seed: int) -> Ranking:
    """Order by ``scipy.linalg.qr(A, pivoting=True)``; the error with k kept is ‖R[k:, k:]‖² / ‖R‖².

    Exact in the sampled rows up to the square root's rounding (1e-8 of the largest contribution).  Cost: u³.
    """
    root = square_root(evidence.contributions)
    triangle, pivots = scipy.linalg.qr(root, mode="r", pivoting=True, check_finite=False)
    triangle = triangle[: len(pivots)]
    rows = np.square(triangle).sum(axis=1)
    tail = np.concatenate([np.cumsum(rows[::-1])[::-1], [0.0]])
    return Ranking(np.asarray(pivots), tail / max(float(tail[0]), 1e-300))


def square_root(gram: Array) -> Array:
    """A with AᵀA = ``gram`` (symmetric, positive semidefinite up to rounding)."""
    values, vectors = scipy.linalg.eigh((gram + gram.T) / 2, check_finite=False)
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)
