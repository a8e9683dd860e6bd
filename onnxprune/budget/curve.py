"""The estimated output loss of narrowing one group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Curve:
    """``loss[k]``: the estimated output loss with k units of the group kept, k = 0 … size.  It falls to 0.

    ``widths``: the allowed numbers of kept units, ascending.  The last is the whole group.
    """

    loss: Array
    widths: Array
