"""Operators that no processor kernel runs: shapes, and the rule as it must be bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
