"""Stored weights as the numbers that they stand for."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.surgery.cut import constant_of, laid_along
from onnxprune.surgery.edit import Use

Array = np.ndarray


def real_values(coupling: Coupling, use: Use) -> Array | None:
    """float64 numbers of one use of a constant, quantized ones by scale and zero point; ``None`` for other integers."""
    array = constant_of(coupling, use)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    bound = coupling.walked.bounds.get(use[0])
    scale = None if bound is None else laid_along(coupling, use, bound.rule.scales.get(use[1]))
    if bound is None or scale is None:
        return None
    shift = laid_along(coupling, use, bound.rule.zeros.get(use[1]))
    wide = array.astype(np.float64)
    return np.asarray((wide if shift is None else wide - shift) * scale)
