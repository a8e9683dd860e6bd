"""Pivoted QR on channel contributions: CHaPR (arXiv 1908.03266) for any number of readers.

A reader's output is a sum of contributions, y = Σ_c z_c.  Keeping the k columns of Z = [vec z_1 … vec z_C] that
best span all of them is column subset selection, solved greedily by QR with column pivoting (Businger-Golub).
Z is never formed: any square root A of ZᵀZ (AᵀA = ZᵀZ) has the same R factor up to signs, hence the same pivots.
That R is also the factor of ZᵀZ by Cholesky with diagonal pivoting (Higham, Accuracy and Stability, 10.3), which
takes a fiftieth of the time where units are many.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from scipy.linalg.lapack import dpstrf

from onnxprune.linear.threads import blas_threads
from onnxprune.selection.base import Evidence, Ranking

Array = np.ndarray
#: Units from which on the factorization is that of the Gram matrix itself.
MANY = 1024


def select(evidence: Evidence, seed: int) -> Ranking:
    """Order by ``scipy.linalg.qr(A, pivoting=True)``; the error with k kept is ‖R[k:, k:]‖² / ‖R‖².

    Exact in the sampled rows up to rounding (1e-8 of the largest contribution).  Cost: 15u³, from ``MANY`` units on
    u³/3; u log u where nothing is known of what units share.
    """
    gram = evidence.contributions
    with blas_threads(len(gram)):
        if gram.ndim == 1:
            pivots = np.argsort(-gram, kind="stable")
            rows = gram[pivots]
        elif len(gram) < MANY:
            triangle, pivots = scipy.linalg.qr(square_root(gram), mode="r", pivoting=True, check_finite=False)
            rows = np.square(triangle[: len(pivots)]).sum(axis=1)
        else:
            rows, pivots = pivoted_cholesky(gram)
    tail = np.concatenate([np.cumsum(rows[::-1])[::-1], [0.0]])
    return Ranking(np.asarray(pivots), tail / max(float(tail[0]), 1e-300))


def square_root(gram: Array) -> Array:
    """A with AᵀA = ``gram`` (symmetric, positive semidefinite up to rounding)."""
    values, vectors = scipy.linalg.eigh((gram + gram.T) / 2, check_finite=False)
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def pivoted_cholesky(gram: Array) -> tuple[Array, Array]:
    """(squared norms of the rows of R, pivots) of ``gram``; rows below rounding, u·1e-16 of the largest, are zero."""
    triangle, pivots, rank, _ = dpstrf((gram + gram.T) / 2)
    rows = np.square(np.triu(triangle)).sum(axis=1)
    rows[rank:] = 0.0
    return rows, pivots - 1
