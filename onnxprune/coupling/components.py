"""Connected components of tied atoms."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Atoms = np.ndarray


def components(count: int, left: Atoms, right: Atoms) -> Atoms:
    """Component id (count,) of each atom, where ``left[k]`` and ``right[k]`` are tied."""
    graph = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
