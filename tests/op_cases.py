"""One table of one-node cases with unequal sizes above one, for what ONNX's own test cases lack.

Each case says which factors of its rule must be free (``free``), so that a rule that locks too much fails as
well as one that ties too little.  ``chained`` are the slots whose tensor is computed in the pipeline law (all
others are constants).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray
MS = "com.microsoft"


@dataclass(frozen=True, eq=False)
class Case:
    op: str
    note: str
    inputs: tuple[Array | None, ...]
    free: str
    attributes: Mapping[str, object] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    opset: int = 21
    chained: tuple[int, ...] = (0,)
    #: Relative tolerance: integers that are rounded may differ by one quantum.
    tolerance: float = 1e-4

    @property
    def id(self) -> str:
        return f"{self.op}-{self.note}".replace(" ", "_")


_rng = np.random.default_rng(7)


def real(*shape: int) -> Array:
    return _rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return (_rng.random(shape) + 0.5).astype(np.float32)


def small(*shape: int, kind: type = np.uint8) -> Array:
    return _rng.integers(1 if kind is np.uint8 else -60, 100, shape).astype(kind)


def whole(*values: int) -> Array:
    return np.asarray(values, np.int64)


def one(value: float, kind: type = np.float32) -> Array:
    return np.asarray(value, kind)


def _convolutions() -> list[Case]:
    cases = []
    for space, kernel in (((7,), (3,)), ((7, 6), (3, 2)), ((4, 5, 3), (2, 3, 2))):
        d = len(space)
        cases += [
            Case("Conv", f"{d}d plain", (real(2, 3, *space), real(5, 3, *kernel), real(5)), "n i o"),
            Case(
                "Conv", f"{d}d grouped", (real(2, 6, *space), real(10, 3, *kernel), real(10)), "n g i o", {"group": 2}
            ),
            Case("Conv", f"{d}d depthwise", (real(2, 5, *space), real(5, 1, *kernel)), "n g", {"group": 5}),
            Case(
                "Conv", f"{d}d multiplier", (real(2, 5, *space), real(15, 1, *kernel), real(15)), "n g o", {"group": 5}
            ),
            Case("ConvTranspose", f"{d}d plain", (real(2, 3, *space), real(3, 5, *kernel), real(5)), "n i o"),
            Case(
                "ConvTranspose",
                f"{d}d grouped",
                (real(2, 6, *space), real(6, 5, *kernel), real(10)),
                "n g i o",
                {"group": 2},
            ),
            Case("ConvTranspose", f"{d}d depthwise", (real(2, 5, *space), real(5, 1, *kernel)), "n g", {"group": 5}),
            Case("ConvTranspose", f"{d}d multiplier", (real(2, 5, *space), real(5, 3, *kernel)), "n g o", {"group": 5}),
        ]
    cases += [
        Case(
            "Conv",
            "auto_pad strided",
            (real(2, 6, 8, 7), real(9, 2, 3, 3)),
            "n g i o",
            {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        ),
        Case(
            "DeformConv",
            "grouped",
            (real(2, 6, 5, 5), real(4, 3, 2, 2), real(2, 8, 4, 4), real(4)),
            "n g i o",
            {"group": 2},
        ),
        Case(
            "DeformConv",
            "offset groups",
            (real(2, 6, 5, 5), real(5, 6, 2, 2), real(2, 16, 4, 4), real(5), real(2, 8, 4, 4)),
            "n p i o",
            {"offset_group": 2},
        ),
        Case("Col2Im", "2d", (real(2, 12, 12), whole(5, 4), whole(2, 2)), "n c"),
        Case(
            "CausalConvWithState",
            "bias and state",
            (real(2, 5, 7), real(5, 1, 3), real(5), real(2, 5, 2)),
            "n c",
            outputs=2,
            opset=27,
        ),
        Case(
            "FusedConv",
            "relu",
            (real(2, 6, 7, 6), real(10, 3, 3, 2), real(10)),
            "n g i o",
            {"group": 2, "activation": "Relu"},
            MS,
        ),
        Case(
            "FusedConv",
            "added",
            (real(2, 3, 7, 6), real(5, 3, 1, 1), real(5), real(2, 5, 7, 6)),
            "n i o",
            {"activation": "Relu"},
            MS,
        ),
    ]
    return cases


def _products() -> list[Case]:
    cases = [
        Case("MatMul", "2d", (real(3, 4), real(4, 5)), "i k j"),
        Case("MatMul", "batched", (real(2, 3, 4, 5), real(2, 3, 5, 6)), "b0 b1 i k j", chained=(0, 1)),
        Case("MatMul", "broadcast left", (real(3, 4, 5), real(2, 3, 5, 6)), "b0 b1 i k j", chained=(0, 1)),
        Case("MatMul", "broadcast ones", (real(2, 1, 4, 5), real(1, 3, 5, 6)), "b0 b1 i k j"),
        Case("MatMul", "weights", (real(2, 3, 4, 5), real(5, 6)), "b0 b1 i k j"),
        Case("MatMul", "vector left", (real(5), real(2, 5, 6)), "b0 k j"),
        Case("MatMul", "vector right", (real(2, 4, 5), real(5)), "b0 i k"),
        Case("MatMul", "vectors", (real(5), real(5)), "k"),
        Case("FusedMatMul", "transB", (real(2, 3, 4), real(2, 5, 4)), "b0 i k j", {"transB": 1, "alpha": 0.5}, MS),
        Case("FusedMatMul", "transA", (real(2, 4, 3), real(4, 5)), "b0 i k j", {"transA": 1}, MS),
        Case(
            "FusedMatMul",
            "transBatchA",
            (real(3, 2, 4), real(2, 4, 5)),
            "b0 i k j",
            {"transBatchA": 1},
            MS,
        ),
        Case(
            "FusedMatMul",
            "transBatchB transB",
            (real(2, 3, 4), real(5, 2, 4)),
            "b0 i k j",
            {"transBatchB": 1, "transB": 1},
            MS,
        ),
        Case("TransposeMatMul", "transB", (real(3, 4), real(5, 4)), "i k j", {"transB": 1}, MS),
        Case("FusedGemm", "relu", (real(3, 4), real(4, 5), real(5)), "i k j", {"activation": "Relu"}, MS),
    ]
    for a in (0, 1):
        for b in (0, 1):
            left, right = real(*(4, 3) if a else (3, 4)), real(*(5, 4) if b else (4, 5))
            cases.append(
                Case("Gemm", f"trans{a}{b}", (left, right, real(5)), "i k j", {"transA": a, "transB": b, "alpha": 0.5})
            )
    for note, bias in (
        ("full", real(3, 5)),
        ("row", real(1, 5)),
        ("column", real(3, 1)),
        ("scalar", real(1)),
        ("rank0", one(2)),
    ):
        cases.append(Case("Gemm", f"bias {note}", (real(3, 4), real(4, 5), bias), "i k j", {"beta": 0.5}))
    for equation, shapes, free in (
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5)), "b i j k"),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5)), "b h i j d"),
        ("...ij,jk->...ik", ((2, 3, 4), (4, 5)), "E0 i j k"),
        ("bnc,oc->bno", ((2, 3, 4), (5, 4)), "b n c o"),
        ("ab,bc,cd->ad", ((2, 3), (3, 4), (4, 5)), "a b c d"),
        ("ij->ji", ((3, 4),), "i j"),
        ("bc,bc->b", ((3, 4), (3, 4)), "b c"),
        ("ij,jk", ((3, 4), (4, 5)), "i j k"),
    ):
        cases.append(Case("Einsum", equation, tuple(real(*s) for s in shapes), free, {"equation": equation}))
    return cases


def _recurrent() -> list[Case]:
    cases = []
    t, b, i, h = 4, 2, 5, 3
    for op, q, outs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            weights = (real(d, q * h, i), real(d, q * h, h), real(d, 2 * q * h))
            x, state = real(t, b, i), real(d, b, h)
            lengths = np.asarray([t, t - 1], np.int32)
            extra = (state, real(d, b, h), real(d, 3 * h)) if op == "LSTM" else (state,)
            attributes: dict[str, object] = {"hidden_size": h, "direction": direction}
            cases.append(Case(op, f"{direction} bare", (x, *weights[:2]), "b i h", attributes, outputs=outs))
            cases.append(
                Case(
                    op,
                    f"{direction} all",
                    (x, *weights, lengths, *extra),
                    "b i h",
                    attributes,
                    outputs=outs,
                    chained=(0, 5),
                )
            )
    gates = (real(2, 9, 5), real(2, 9, 3), real(2, 18))
    linear = {"hidden_size": 3, "direction": "bidirectional", "linear_before_reset": 1, "clip": 0.8}
    cases.append(Case("GRU", "linear before reset clipped", (real(4, 2, 5), *gates), "b i h", linear, outputs=2))
    named = {"hidden_size": 3, "activations": ["HardSigmoid", "Relu", "Tanh"], "input_forget": 1}
    cases.append(
        Case("LSTM", "activations", (real(4, 2, 5), real(1, 12, 5), real(1, 12, 3)), "b i h", named, outputs=3)
    )
    for op, q, outs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        weights = (real(1, q * h, i), real(1, q * h, h), real(1, 2 * q * h))
        cases.append(
            Case(op, "layout 1", (real(b, t, i), *weights), "b i h", {"hidden_size": h, "layout": 1}, outputs=outs)
        )
    packed = (small(2, i, 4 * h, kind=np.int8), small(2, h, 4 * h, kind=np.int8))
    scales, points = positive(2) * np.float32(0.01), np.zeros(2, np.int8)
    cases.append(
        Case(
            "DynamicQuantizeLSTM",
            "per direction",
            (real(t, b, i), *packed, real(2, 8 * h), None, None, None, None, scales, points, scales, points),
            "b i h",
            {"hidden_size": h, "direction": "bidirectional"},
            MS,
            3,
            tolerance=0.05,
        )
    )
    return cases


def _normalizations() -> list[Case]:
    return [
        Case("GroupNormalization", "groups", (real(2, 12, 3, 2), positive(12), real(12)), "n g", {"num_groups": 4}),
        Case(
            "GroupNormalization",
            "opset 18",
            (real(2, 12, 3, 2), positive(4), real(4)),
            "n g",
            {"num_groups": 4},
            opset=18,
        ),
        Case(
            "BatchNormalization",
            "4d",
            (real(2, 5, 3, 2), positive(5), real(5), real(5), positive(5)),
            "n c x0 x1",
            opset=15,
        ),
        Case("BatchNormalization", "2d", (real(2, 5), positive(5), real(5), real(5), positive(5)), "n c", opset=15),
        Case("InstanceNormalization", "3d", (real(2, 5, 6), positive(5), real(5)), "n c"),
        Case(
            "LayerNormalization",
            "two axes",
            (real(2, 3, 4, 5), positive(4, 5), real(4, 5)),
            "d0 d1",
            {"axis": 2},
            outputs=3,
        ),
        Case("RMSNormalization", "last", (real(2, 3, 4), positive(4)), "d0 d1", opset=23),
        Case("LRN", "4d", (real(2, 5, 3, 2),), "n x0 x1", {"size": 3}),
        Case("MeanVarianceNormalization", "default", (real(2, 5, 3, 2),), "d1"),
        Case("LpNormalization", "axis 1", (real(2, 5, 3),), "d0 d2", {"axis": 1}),
        Case("Softmax", "axis 1", (real(2, 5, 3),), "d0 d2", {"axis": 1}),
        Case("Softmax", "flat opset 11", (real(2, 5, 3),), "d0", {"axis": 1}, opset=11),
        Case("LogSoftmax", "last", (real(2, 5, 3),), "d0 d1"),
        Case(
            "SkipLayerNormalization",
            "all",
            (real(2, 3, 4), real(2, 3, 4), positive(4), real(4), real(4)),
            "d0 d1",
            {},
            MS,
        ),
        Case("SkipLayerNormalization", "broadcast", (real(2, 3, 4), real(3, 4), positive(4)), "d0 d1", {}, MS),
        Case(
            "SkipSimplifiedLayerNormalization",
            "all",
            (real(2, 3, 4), real(2, 3, 4), positive(4), real(4)),
            "d0 d1",
            {},
            MS,
        ),
        Case(
            "EmbedLayerNormalization",
            "segments",
            (
                np.asarray([[1, 2, 3], [4, 0, 2]], np.int32),
                np.asarray([[0, 1, 1], [0, 0, 1]], np.int32),
                real(6, 4),
                real(3, 4),
                real(2, 4),
                positive(4),
                real(4),
            ),
            "b",
            {},
            MS,
            2,
            chained=(),
        ),
    ]


def _attention() -> list[Case]:
    b, s, t, h, d, e = 2, 3, 4, 3, 4, 5
    four = (real(b, 6, s, d), real(b, 3, t, d), real(b, 3, t, e))
    three = (real(b, s, 6 * d), real(b, t, 3 * d), real(b, t, 3 * e))
    heads = {"q_num_heads": 6, "kv_num_heads": 3}
    cases = [
        Case("Attention", "4d grouped", four, "g r d e", opset=23, chained=(0, 1, 2)),
        Case("Attention", "4d plain", (real(b, h, s, d), *four[1:]), "g d e", opset=23, chained=(0, 1, 2)),
        Case("Attention", "3d grouped", three, "g r d e", heads, opset=23, chained=(0, 1, 2)),
        Case("Attention", "3d masked", (*three, real(b, 6, s, t)), "g r d e", heads, opset=23, chained=(0, 1, 2)),
        Case(
            "Attention",
            "3d scaled",
            (*three, real(s, t)),
            "g r d e",
            {**heads, "scale": 0.3},
            opset=23,
            chained=(0, 1, 2),
        ),
        Case(
            "Attention",
            "past",
            (*four, None, real(b, 3, 2, d), real(b, 3, 2, e)),
            "g r d e",
            opset=23,
            outputs=3,
            chained=(0, 1, 2),
        ),
        Case(
            "Attention", "causal capped", four, "g r d e", {"is_causal": 1, "softcap": 2.0}, opset=23, chained=(0, 1, 2)
        ),
    ]
    for rule in ("linear", "gated", "delta", "gated_delta"):
        gate = (real(b, s, 2 * d) * np.float32(0.1), positive(b, s, 2)) if rule == "gated_delta" else ()
        if rule == "gated":
            gate = (-positive(b, s, 2),)
        if rule == "delta":
            gate = (None, positive(b, s, 1))
        cases.append(
            Case(
                "LinearAttention",
                rule,
                (real(b, s, 6 * d), real(b, s, 2 * d), real(b, s, 2 * e), real(b, 2, d, e), *gate),
                "g r d e",
                {"q_num_heads": 6, "kv_num_heads": 2, "update_rule": rule},
                outputs=2,
                opset=27,
                chained=(0, 1, 2),
            )
        )
    tables, places = (real(8, 3), real(8, 3)), np.asarray([[0, 1, 5], [2, 3, 4]], np.int64)
    for interleaved in (0, 1):
        turn = {"interleaved": interleaved}
        cases += [
            Case("RotaryEmbedding", f"4d {interleaved}", (real(b, h, s, 6), *tables, places), "b h e", turn, opset=23),
            Case(
                "RotaryEmbedding",
                f"3d {interleaved}",
                (real(b, s, h * 6), *tables, places),
                "b h e",
                {**turn, "num_heads": h},
                opset=23,
            ),
            Case("RotaryEmbedding", f"ms 3d {interleaved}", (real(b, s, h * 6), places, *tables), "b h e", turn, MS),
            Case("RotaryEmbedding", f"ms 4d {interleaved}", (real(b, h, s, 6), places, *tables), "b h e", turn, MS),
        ]
    cases.append(
        Case(
            "RotaryEmbedding",
            "partial",
            (real(b, h, s, 8), *tables, places),
            "b h",
            {"rotary_embedding_dim": 6},
            opset=23,
        )
    )
    x = real(b, s, 5)
    cases += [
        Case("Attention", "ms packed", (x, real(5, 3 * h * d), real(3 * h * d)), "i h d", {"num_heads": h}, MS),
        Case(
            "Attention",
            "ms causal bias",
            (x, real(5, 3 * h * d), real(3 * h * d), None, None, real(b, h, s, s)),
            "i h d",
            {"num_heads": h, "unidirectional": 1, "qkv_hidden_sizes": [h * d, h * d, h * d]},
            MS,
        ),
        Case(
            "QAttention",
            "per tensor",
            (
                small(b, s, 5),
                small(5, 3 * h * d, kind=np.int8),
                real(3 * h * d),
                one(0.02),
                one(0.01),
                None,
                one(20, np.uint8),
                one(3, np.int8),
            ),
            "i h d",
            {"num_heads": h},
            MS,
        ),
        Case(
            "MultiHeadAttention",
            "separate",
            (real(b, s, h * d), real(b, t, h * d), real(b, t, h * e)),
            "h d e",
            {"num_heads": h},
            MS,
            chained=(0, 1, 2),
        ),
        Case(
            "MultiHeadAttention",
            "biased",
            (real(b, s, h * d), real(b, t, h * d), real(b, t, h * d), real(3 * h * d)),
            "h d",
            {"num_heads": h},
            MS,
            chained=(0, 1, 2),
        ),
        Case(
            "MultiHeadAttention",
            "cross",
            (real(b, s, h * d), real(b, h, t, d), real(b, h, t, d)),
            "h d",
            {"num_heads": h},
            MS,
            chained=(0, 1, 2),
        ),
        Case(
            "GroupQueryAttention",
            "prompt",
            (
                real(b, s, 6 * 8),
                real(b, s, 2 * 8),
                real(b, s, 2 * 8),
                np.zeros((b, 2, 0, 8), np.float32),
                np.zeros((b, 2, 0, 8), np.float32),
                np.full((b,), s - 1, np.int32),
                np.asarray([s], np.int32),
            ),
            "g r",
            {"num_heads": 6, "kv_num_heads": 2},
            MS,
            3,
            chained=(0, 1, 2),
        ),
    ]
    return cases


def _quantized() -> list[Case]:
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


def _elementwise() -> list[Case]:
    return [
        Case("Add", "residual", (real(2, 5, 3), real(2, 5, 3)), "d0 d1 d2", chained=(0, 1)),
        Case("Mul", "gate", (real(2, 5, 3, 3), real(2, 5, 1, 1)), "d0 d1 d2 d3", chained=(0, 1)),
        Case("Sub", "wider right", (real(5, 1), real(2, 1, 3)), "d0 d1 d2", chained=(0, 1)),
        Case("Where", "three", (np.asarray([[True], [False]]), real(2, 5), real(5)), "d0 d1", chained=(1, 2)),
        Case("PRelu", "per channel", (real(2, 5, 3), positive(5, 1)), "d0 d1 d2"),
        Case("Max", "three", (real(2, 5), real(5), real(2, 1)), "d0 d1", chained=(0, 1)),
        Case("Clip", "bounds", (real(2, 5), one(-0.5), one(0.5)), "d0 d1"),
        Case("Dropout", "mask", (real(2, 5),), "d0 d1", outputs=2),
        Case("CastLike", "half", (real(2, 5), one(1, np.float64)), "d0 d1"),
        Case("SwiGLU", "gate", (real(2, 5), real(2, 5)), "d0 d1", opset=28, chained=(0, 1)),
        Case("FastGelu", "bias", (real(2, 3, 5), real(5)), "d0 d1 d2", {}, MS),
        Case("BiasGelu", "bias", (real(2, 3, 5), real(5)), "d0 d1 d2", {}, MS),
        Case("Gelu", "ms", (real(2, 5),), "d0 d1", {}, MS),
        Case("QuickGelu", "ms", (real(2, 5),), "d0 d1", {"alpha": 1.5}, MS),
        Case("ExpandDims", "ms", (real(2, 5), one(1, np.int32)), "d0 d1", {}, MS),
    ]


def _spatial() -> list[Case]:
    return [
        Case("AveragePool", "3d", (real(2, 5, 4, 4, 3),), "n c", {"kernel_shape": [2, 2, 2]}),
        Case("MaxPool", "2d", (real(2, 5, 4, 4),), "n c", {"kernel_shape": [2, 2]}),
        Case("MaxPool", "indices", (real(2, 5, 4, 4),), "", {"kernel_shape": [2, 2]}, outputs=2),
        Case("GlobalAveragePool", "2d", (real(2, 5, 4, 4),), "n c"),
        Case("GlobalMaxPool", "1d", (real(2, 5, 4),), "n c"),
        Case("LpPool", "2d", (real(2, 5, 4, 4),), "n c", {"kernel_shape": [2, 2]}),
        Case("ReduceMean", "space", (real(2, 5, 4, 3), whole(2, 3)), "d0 d1"),
        Case("ReduceSum", "squeezed", (real(2, 5, 4), whole(1)), "d0 d2", {"keepdims": 0}),
        Case("ReduceMax", "attribute", (real(2, 5, 4),), "d0 d2", {"axes": [-2]}, opset=13),
        Case("ArgMax", "axis 2", (real(2, 5, 4),), "d0 d1", {"axis": 2, "keepdims": 0}),
        Case("CumSum", "axis 1", (real(2, 5, 4), one(1, np.int64)), "d0 d2"),
        Case(
            "Resize",
            "scales",
            (real(2, 5, 4, 3), None, np.asarray([1, 1, 2, 2], np.float32)),
            "d0 d1",
            {"mode": "linear"},
        ),
        Case("Resize", "sizes", (real(2, 5, 4, 3), None, None, whole(2, 5, 7, 6)), "d0 d1", {"mode": "nearest"}),
        Case(
            "Resize",
            "channels last",
            (real(2, 4, 3, 5), None, np.asarray([1, 2, 2, 1], np.float32)),
            "d0 d3",
            {"mode": "nearest"},
        ),
        Case(
            "Resize",
            "named axes",
            (real(2, 5, 4, 3), None, None, whole(8, 6)),
            "d0 d1",
            {"mode": "nearest", "axes": [2, 3]},
        ),
        Case(
            "Upsample",
            "scales",
            (real(2, 5, 4, 3), np.asarray([1, 1, 2, 2], np.float32)),
            "d0 d1",
            {"mode": "nearest"},
            opset=9,
        ),
        Case("Trilu", "upper", (real(2, 5, 4, 3),), "d0 d1"),
        Case("Det", "batch", (real(2, 5, 3, 3),), "d0 d1"),
        Case("GridSample", "2d", (real(2, 5, 4, 4), real(2, 3, 3, 2)), "n c y0 y1", chained=(0,)),
        Case(
            "RoiAlign",
            "rois",
            (real(2, 5, 6, 6), positive(3, 4) * np.float32(3), whole(0, 1, 0)),
            "c r",
            {"output_height": 2, "output_width": 2},
        ),
        Case("CenterCropPad", "axes", (real(2, 5, 4, 3), whole(3, 5)), "d0 d1", {"axes": [2, 3]}),
        Case("DFT", "axis 1", (real(2, 5, 4, 1), None, one(1, np.int64)), "d0 d2", chained=()),
        Case("Inverse", "batch", (real(2, 5, 3, 3),), "d0 d1", {}, MS),
        Case("TopK", "axis 1", (real(2, 5, 4), whole(2)), "d0 d2", {"axis": 1}, outputs=2),
        Case("GatherElements", "axis 1", (real(2, 5, 3), _rng.integers(0, 5, (2, 4, 3))), "d0 d2", {"axis": 1}),
        Case("GatherND", "batch", (real(2, 5, 3, 4), _rng.integers(0, 5, (2, 6, 1))), "d0 d2 d3 q1", {"batch_dims": 1}),
        Case(
            "ScatterElements",
            "axis 1",
            (real(2, 5, 3), _rng.permutation(5)[None, :4, None].repeat(2, 0).repeat(3, 2), real(2, 4, 3)),
            "d0 d2",
            {"axis": 1},
        ),
        Case("ScatterND", "places", (real(6, 5, 3), np.asarray([[4, 2], [1, 0]]), real(2, 3)), "d2"),
        Case("TensorScatter", "cache", (real(2, 3, 6, 4), real(2, 3, 2, 4), whole(1, 2)), "d0 d1 d3", opset=24),
        Case("Compress", "axis 1", (real(2, 5, 3), np.asarray([True, False, True, True, False])), "d0 d2", {"axis": 1}),
        Case(
            "OneHot", "last", (_rng.integers(0, 4, (2, 5)), one(4, np.int64), np.asarray([0, 1], np.float32)), "d0 d1"
        ),
        Case("ReverseSequence", "time", (real(4, 2, 5), whole(3, 4)), "d2", {"time_axis": 0, "batch_axis": 1}),
    ]


def _microsoft() -> list[Case]:
    """What onnxruntime's optimizers leave behind, as far as its processor kernels run it."""
    return [
        Case("CDist", "euclidean", (real(3, 4), real(5, 4)), "m n", {"metric": "euclidean"}, MS),
        Case(
            "ConvTransposeWithDynamicPads",
            "grouped",
            (real(2, 6, 5, 4), real(6, 5, 3, 2), whole(1, 0, 1, 0), real(10)),
            "n g i o",
            {"group": 2},
            MS,
        ),
        Case(
            "CropAndResize",
            "boxes",
            (
                real(2, 5, 6, 6),
                np.asarray([[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], [0, 0, 0.5, 0.5]], np.float32),
                np.asarray([0, 1, 0], np.int32),
                np.asarray([2, 3], np.int32),
            ),
            "c r",
            {},
            MS,
        ),
        Case("GatherND", "ms", (real(4, 5, 3), whole(3, 1)[:, None]), "d1 d2 q0", {}, MS),
        Case("GridSample", "ms", (real(2, 5, 4, 4), real(2, 3, 3, 2)), "n c y0 y1", {}, MS),
        Case("Trilu", "ms", (real(2, 5, 4, 3),), "d0 d1", {}, MS),
        Case("SimplifiedLayerNormalization", "default domain", (real(2, 3, 4), positive(4)), "d0 d1", {"axis": -1}),
        Case("MatMulInteger16", "plain", (small(3, 4, kind=np.int16), small(4, 5, kind=np.int16)), "i k j", {}, MS),
        Case(
            "MaxpoolWithMask",
            "2d",
            (real(2, 5, 4, 4), np.ones((2, 5, 4, 4), np.int32)),
            "n c",
            {"kernel_shape": [2, 2]},
            MS,
        ),
    ]


def _movers() -> list[Case]:
    """Most have no rule to check: these only run through the pipeline law."""
    shuffled = _rng.permutation(6)
    return [
        Case("Transpose", "4d", (real(2, 3, 4, 5),), "", {"perm": [0, 2, 3, 1]}),
        Case("Reshape", "merge", (real(2, 3, 4, 5), whole(0, 12, 5)), ""),
        Case("Reshape", "split", (real(2, 12, 5), whole(2, 3, 4, -1)), ""),
        Case("Reshape", "regroup", (real(2, 12, 5), whole(2, 2, 30)), ""),
        Case("Flatten", "axis 1", (real(2, 3, 4),), "", {"axis": 1}),
        Case("Squeeze", "middle", (real(2, 1, 4), whole(1)), ""),
        Case("Unsqueeze", "ends", (real(2, 4), whole(0, 3)), ""),
        Case("Concat", "axis 1", (real(2, 3, 4), real(2, 5, 4)), "", {"axis": 1}, chained=(0, 1)),
        Case("Split", "parts", (real(2, 7, 3), whole(4, 3)), "", {"axis": 1}, outputs=2),
        Case("Split", "equal", (real(2, 8, 3),), "", {"axis": 1, "num_outputs": 2}, outputs=2),
        Case("Split", "attribute", (real(2, 7, 3),), "", {"axis": 1, "split": [4, 3]}, outputs=2, opset=11),
        Case("Slice", "range", (real(2, 7, 5), whole(2), whole(6), whole(1)), ""),
        Case("Slice", "reversed", (real(2, 7, 5), whole(-1), whole(-100), whole(1), whole(-1)), ""),
        Case("Slice", "strided space", (real(2, 7, 5), whole(0), whole(5), whole(2), whole(2)), ""),
        Case("Slice", "attributes", (real(2, 7, 5),), "", {"starts": [1], "ends": [6], "axes": [1]}, opset=9),
        Case("Pad", "channels", (real(2, 5, 3), whole(0, 2, 0, 0, 1, 0)), ""),
        Case("Pad", "negative", (real(2, 7, 3), whole(0, -2, 0, 0, -1, 0)), ""),
        Case("Pad", "reflect", (real(2, 5, 4), whole(0, 0, 1, 0, 0, 2)), "", {"mode": "reflect"}),
        Case("Pad", "reflected channels", (real(2, 5, 4), whole(0, 1, 0, 0, 2, 0)), "", {"mode": "reflect"}),
        Case("Pad", "constant one", (real(2, 5, 3), whole(0, 1, 0, 0, 0, 0), one(1.5)), ""),
        Case("Pad", "attribute", (real(2, 5, 3),), "", {"pads": [0, 1, 0, 0, 0, 1]}, opset=10),
        Case("Pad", "ms", (real(2, 5, 3), whole(0, 1, 0, 0, 0, 1)), "", {}, MS),
        Case("Tile", "channels", (real(2, 3, 4), whole(1, 2, 1)), ""),
        Case("Expand", "broadcast", (real(2, 5, 1), whole(2, 5, 4)), ""),
        Case("DepthToSpace", "DCR", (real(2, 12, 2, 3),), "n c h w", {"blocksize": 2}),
        Case("DepthToSpace", "CRD", (real(2, 12, 2, 3),), "n c h w", {"blocksize": 2, "mode": "CRD"}),
        Case("SpaceToDepth", "2d", (real(2, 3, 4, 6),), "n c h w", {"blocksize": 2}),
        Case("Gather", "permuted", (real(2, 6, 3), shuffled), "", {"axis": 1}),
        Case("Gather", "repeated", (real(2, 6, 3), whole(0, 2, 2, 5)), "", {"axis": 1}),
        Case("Gather", "single", (real(2, 6, 3), one(2, np.int64)), "", {"axis": 1}),
        Case("Identity", "plain", (real(2, 6),), "d0 d1"),
    ]


CASES: tuple[Case, ...] = (
    *_convolutions(),
    *_products(),
    *_recurrent(),
    *_normalizations(),
    *_attention(),
    *_quantized(),
    *_elementwise(),
    *_spatial(),
    *_microsoft(),
    *_movers(),
)


@dataclass(frozen=True)
class Form:
    """An operator that no processor kernel runs: its rule can only be read.  Shapes in and out, and the bound rule."""

    op: str
    inputs: tuple[tuple[int, ...] | None, ...]
    outputs: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, object]
    text: str


FORMS: tuple[Form, ...] = (
    Form(
        "NhwcConv",
        ((2, 7, 6, 6), (10, 3, 3, 2), (10,)),
        ((2, 5, 5, 10),),
        {"group": 2},
        "n x0 x1 (g i), (g o) i k0 k1, (g o) -> n y0 y1 (g o)",
    ),
    Form(
        "NhwcFusedConv",
        ((2, 7, 6, 6), (10, 3, 3, 2), (10,), (2, 5, 5, 10)),
        ((2, 5, 5, 10),),
        {"group": 2},
        "n x0 x1 (g i), (g o) i k0 k1, (g o), n y0 y1 (g o) -> n y0 y1 (g o)",
    ),
    Form(
        "GroupNorm",
        ((2, 3, 5, 12), (12,), (12,)),
        ((2, 3, 5, 12),),
        {"groups": 4},
        "n x0 x1 (g c), (g c), (g c) -> n x0 x1 (g c)",
    ),
    Form(
        "SkipGroupNorm",
        ((2, 12, 3, 5), (12,), (12,), (2, 12), (12,)),
        ((2, 12, 3, 5), (2, 12, 3, 5)),
        {"groups": 4, "channels_last": 0},
        "n (g c) x0 x1, (g c), (g c), n (g c), (g c) -> n (g c) x0 x1, n (g c) x0 x1",
    ),
    Form("MultiHeadAttention", ((2, 5, 3, 3, 4),), ((2, 5, 12),), {"num_heads": 3}, "b s h u d -> b s (h d)"),
    Form(
        "MultiHeadAttention",
        ((2, 5, 12), (2, 7, 3, 2, 4)),
        ((2, 5, 12),),
        {"num_heads": 3},
        "b s (h d), b t h u d -> b s (h d)",
    ),
    Form("BiasSplitGelu", ((2, 5, 12), (12,)), ((2, 5, 6),), {}, "n s (u c), (u c) -> n s c"),
    Form("BiasDropout", ((2, 5, 6), (6,), (2, 5, 6)), ((2, 5, 6),), {}, "d0 d1 d2, d2, d0 d1 d2 -> d0 d1 d2"),
    Form("BiasAdd", ((2, 5, 6), (6,), (2, 5, 6)), ((2, 5, 6),), {}, "d0 d1 d2, d2, d0 d1 d2 -> d0 d1 d2"),
    Form(
        "FusedMatMulActivation",
        ((2, 4, 3), (2, 4, 5)),
        ((2, 3, 5),),
        {"transA": 1, "activation": "Relu"},
        "b0 k i, b0 k j -> b0 i j",
    ),
    Form("GatedRMSNorm", ((2, 5, 6), (6,), (2, 5, 6)), ((2, 5, 6),), {}, "d0 d1 d2, d2, d0 d1 d2 -> d0 d1 d2"),
    Form("MulInteger", ((2, 5, 6), (1,), (6,), (1,)), ((2, 5, 6),), {}, "d0 d1 d2, _, d2, _ -> d0 d1 d2"),
    Form("TorchEmbedding", ((9, 4), (2, 5)), ((2, 5, 4),), {}, "v d, q0 q1 -> q0 q1 d"),
    Form("ReduceSumInteger", ((2, 5, 6),), ((2, 1, 6),), {"axes": [1]}, "d0 d1 d2 -> d0 1 d2"),
    Form(
        "QLinearReduceMean",
        ((2, 5, 6), (1,), (1,), (1,), (1,)),
        ((2, 6),),
        {"axes": [1], "keepdims": 0},
        "d0 d1 d2, _, _, _, _ -> d0 d2",
    ),
    Form("LayerNormalization", ((2, 5, 6), (6,), (6,)), ((2, 5, 6),), {}, "d0 d1 d2, d2, d2 -> d0 d1 d2"),
    Form("SimplifiedLayerNormalization", ((2, 5, 6), (6,)), ((2, 5, 6),), {}, "d0 d1 d2, d2 -> d0 d1 d2"),
)
