"""What narrowing one group does to the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Curve:
    """``damage[k]``: estimated output loss with k of the group's units kept, k = 0 … size; it falls to 0.

    ``widths``: the allowed numbers of kept units, ascending.  The last is the whole group.
    """

    damage: Array
    widths: Array
