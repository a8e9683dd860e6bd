"""Whether held-out samples tell two models apart by more than chance."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
#: Fewer samples tell nothing.
FEW = 8
#: Standard errors of the mean difference, sample by sample: about one in forty such differences is chance.
CERTAIN = 2.0


def better(first: Array, second: Array) -> bool:
    """Whether the errors ``first``, (samples,), are smaller than ``second`` of the same samples by more than chance."""
    apart = second.astype(np.float64) - first.astype(np.float64)
    if not np.isfinite(first).all() or len(apart) < FEW:
        return False
    if not np.isfinite(second).all():
        return True
    error = float(apart.std(ddof=1)) / len(apart) ** 0.5
    return float(apart.mean()) > CERTAIN * error and float(apart.mean()) > 0
