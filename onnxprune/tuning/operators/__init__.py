"""The table: (domain, operator) -> its torch function."""

from __future__ import annotations

from onnxprune.tuning.operators import (
    attention,
    convolution,
    elementwise,
    indexing,
    movement,
    normalize,
    pool,
    products,
    quantize,
    recurrent,
    reduce,
    resize,
)
from onnxprune.tuning.operators.call import OperatorTable

_FAMILIES = (
    elementwise,
    products,
    convolution,
    normalize,
    pool,
    resize,
    movement,
    reduce,
    indexing,
    recurrent,
    attention,
    quantize,
)
TABLE: OperatorTable = {key: entry for family in _FAMILIES for key, entry in family.TABLE.items()}
