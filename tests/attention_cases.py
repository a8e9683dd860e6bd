"""One-node cases of attention in every layout, and of what onnxruntime fuses around it."""

from __future__ import annotations

import numpy as np
from case import MS, Case, one, positive, real, small, whole


def attention() -> list[Case]:
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


def microsoft() -> list[Case]:
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
