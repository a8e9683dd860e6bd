"""One-node cases of quantized operators."""

from __future__ import annotations

import numpy as np
from case import MS, Case, _rng, one, positive, real, small


def quantized() -> list[Case]:
    scale, point = one(0.02), one(60, np.uint8)
    x, w = small(2, 6, 7, 6), small(10, 3, 3, 2, kind=np.int8)
    wide, many = positive(10) * np.float32(0.01), np.zeros(10, np.int8)
    bias = _rng.integers(-500, 500, 10).astype(np.int32)
    out = (one(0.1), one(110, np.uint8))
    grouped = {"group": 2}
    q = 0.02
    cases = [
        Case(
            "QLinearConv", "per channel", (x, scale, point, w, wide, many, *out, bias), "n g i o", grouped, tolerance=q
        ),
        Case(
            "QLinearConv",
            "per tensor unsigned",
            (x, scale, point, small(10, 3, 3, 2), one(0.01), one(50, np.uint8), *out),
            "n g i o",
            grouped,
            tolerance=q,
        ),
        Case("ConvInteger", "grouped", (x, small(10, 3, 3, 2), point, one(40, np.uint8)), "n g i o", grouped),
        Case(
            "QLinearConv",
            "ms channels last",
            (small(2, 5, 4, 6), scale, point, small(10, 6, 3, 2, kind=np.int8), wide, many, *out, bias),
            "n i o",
            {"channels_last": 1},
            MS,
            tolerance=q,
        ),
        Case(
            "QLinearMatMul",
            "per tensor",
            (small(2, 3, 4), scale, point, small(4, 5), one(0.01), one(30, np.uint8), *out),
            "b0 i k j",
            tolerance=q,
        ),
        Case(
            "QLinearMatMul",
            "per column",
            (small(3, 4), scale, point, small(4, 5), positive(5) * np.float32(0.01), small(5), *out),
            "i k j",
            tolerance=q,
        ),
        Case("MatMulInteger", "points", (small(2, 3, 4), small(4, 5), point, small(5)), "b0 i k j"),
        Case("QuantizeLinear", "per tensor", (real(2, 5, 3), scale, point), "d0 d1 d2"),
        Case("QuantizeLinear", "per axis", (real(2, 5, 3), positive(5), small(5)), "d0 d1 d2"),
        Case("QuantizeLinear", "last axis", (real(2, 5, 3), positive(3), small(3)), "d0 d1 d2", {"axis": -1}),
        Case("DequantizeLinear", "per axis", (small(2, 5, 3), positive(5), small(5)), "d0 d1 d2"),
        Case("DequantizeLinear", "no point", (small(4, 5), positive(4)), "d0 d1", {"axis": 0}),
        Case(
            "DequantizeLinear",
            "blocked",
            (small(2, 6, 3), positive(2, 3, 3), small(2, 3, 3)),
            "d0 q d2",
            {"block_size": 2},
        ),
        Case(
            "QuantizeLinear",
            "blocked",
            (real(2, 6, 3), positive(2, 3, 3), small(2, 3, 3)),
            "d0 q d2",
            {"block_size": 2},
        ),
        Case("DynamicQuantizeLinear", "range", (real(4, 5),), "d0 d1", outputs=3),
        Case("DequantizeLinear", "ms per axis", (small(2, 5, 3), positive(5), small(5)), "d0 d1 d2", {"axis": 1}, MS),
        Case("QuantizeLinear", "ms per axis", (real(2, 5, 3), positive(5), small(5)), "d0 d1 d2", {"axis": 1}, MS),
        Case(
            "QGemm",
            "per column",
            (
                small(3, 4),
                one(0.5),
                one(90, np.uint8),
                small(5, 4),
                positive(5) * np.float32(0.01),
                small(5),
                _rng.integers(-50, 50, 5).astype(np.int32),
                *out,
            ),
            "i k j",
            {"transB": 1},
            MS,
            tolerance=q,
        ),
        Case(
            "QGemm",
            "float out",
            (small(3, 4), scale, point, small(4, 5), one(0.01), point, _rng.integers(-50, 50, 5).astype(np.int32)),
            "i k j",
            {"alpha": 0.5},
            MS,
        ),
        Case(
            "MatMulIntegerToFloat",
            "all",
            (small(3, 4), small(4, 5), scale, positive(5), point, small(5), real(5)),
            "i k j",
            {},
            MS,
        ),
        Case(
            "DynamicQuantizeMatMul",
            "per column",
            (real(3, 4), small(4, 5), positive(5), small(5), real(5)),
            "i k j",
            {},
            MS,
        ),
        Case("DynamicQuantizeMatMul", "per tensor", (real(3, 4), small(4, 5), one(0.02), point), "i k j", {}, MS),
        Case(
            "QLinearAdd",
            "broadcast",
            (small(2, 5, 3), scale, point, small(5, 1), scale, point, *out),
            "d0 d1 d2",
            {},
            MS,
        ),
        Case(
            "QLinearMul",
            "same",
            (small(2, 5), scale, point, small(2, 5), scale, point, *out),
            "d0 d1",
            {},
            MS,
            chained=(0, 3),
        ),
        Case("QLinearLeakyRelu", "2d", (small(2, 5), scale, point, scale, point), "d0 d1", {"alpha": 0.1}, MS),
        Case("QLinearSigmoid", "2d", (small(2, 5), scale, point, scale, point), "d0 d1", {}, MS),
        Case(
            "QLinearSoftmax",
            "axis 1",
            (small(2, 5, 3), scale, point, one(0.01), point),
            "d0 d2",
            {"axis": 1, "opset": 13},
            MS,
        ),
        Case(
            "QLinearSoftmax",
            "flat",
            (small(2, 5, 3), scale, point, one(0.01), point),
            "d0",
            {"axis": 1, "opset": 11},
            MS,
        ),
        Case(
            "QLinearAveragePool",
            "first",
            (small(2, 5, 4, 4), scale, point, scale, point),
            "n c",
            {"kernel_shape": [2, 2]},
            MS,
        ),
        Case(
            "QLinearAveragePool",
            "last",
            (small(2, 4, 4, 5), scale, point, scale, point),
            "n c",
            {"kernel_shape": [2, 2], "channels_last": 1},
            MS,
        ),
        Case(
            "QLinearGlobalAveragePool",
            "last",
            (small(2, 4, 4, 5), scale, point, scale, point),
            "n c",
            {"channels_last": 1},
            MS,
        ),
        Case(
            "QLinearGlobalAveragePool",
            "first",
            (small(2, 5, 4, 4), scale, point, scale, point),
            "n c",
            {"channels_last": 0},
            MS,
        ),
        Case(
            "QLinearConcat",
            "axis 1",
            (scale, point, small(2, 3, 2), scale, point, small(2, 4, 2), one(0.05), point),
            "",
            {"axis": 1},
            MS,
            chained=(2, 5),
        ),
        Case(
            "QLinearWhere",
            "broadcast",
            (np.asarray([[True], [False]]), small(2, 5), scale, point, small(2, 5), scale, point, scale, point),
            "d0 d1",
            {},
            MS,
            chained=(1, 4),
        ),
        Case("NhwcMaxPool", "2d", (small(2, 5, 4, 3),), "n c", {"kernel_shape": [2, 2]}, MS),
        Case(
            "MatMulNBits",
            "4 bits",
            (real(2, 3, 96), small(5, 3, 16), positive(5, 3)),
            "a0 a1 kb n",
            {"K": 96, "N": 5, "bits": 4, "block_size": 32},
            MS,
        ),
        Case(
            "MatMulNBits",
            "packed points and bias",
            (real(2, 3, 80), small(5, 3, 16), positive(15), small(10), None, real(5)),
            "a0 a1 n",
            {"K": 80, "N": 5, "bits": 4, "block_size": 32},
            MS,
        ),
    ]
    return cases
