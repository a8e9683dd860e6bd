"""Fused attention and rotary embeddings: heads may leave, or positions inside every head.

Query heads come in groups that share one key/value head: ``(g r)``, g groups of r heads.  By default the operator
scales scores by the head size, so a cut of the head size writes down the old scale.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from onnxprune.coupling.rule import Locked, NodeInfo, Rule, RuleEntry

_SCORES = frozenset("bstTp")


def attention(info: NodeInfo) -> Rule | Locked:
    """ai.onnx Attention: Q, K and V of rank 4, or of rank 3 with the heads packed into the last axis."""
    ranks = {info.rank(slot) for slot in range(3)}
    if ranks not in ({3}, {4}):
        return Locked("mixes packed and unpacked heads")
    if ranks == {3}:
        kv = info.node.integer("kv_num_heads", 0)
        heads = info.node.integer("q_num_heads", 0)
        data, out = "b s (g r d), b t (g d), b t (g e)", "b s (g r e)"
        sizes = {"g": kv, "r": heads // max(kv, 1)}
        attributes = {"q_num_heads": "g r", "kv_num_heads": "g"}
    else:
        kv, heads = (info.shape(1) or (0, 0))[1], (info.shape(0) or (0, 0))[1]
        data, out = "b (g r) s d, b g t d, b g t e", "b (g r) s e"
        sizes, attributes = {"g": kv}, {}
    if not kv or heads % kv:
        return Locked("groups its heads unevenly")
    mask = _bias(info, 3, heads)
    return Rule(
        f"{data}, {mask}, b g p d, b g p e, b -> {out}, b g T d, b g T e, b (g r) s T",
        _SCORES,
        attributes,
        sizes=sizes,
        macs=(("b", "g", "r", "s", "t", "d"), ("b", "g", "r", "s", "t", "e")),
        masks=((0, info.rank(0) - 1),),
        pins=_scale(info, "d", (info.shape(0) or (1,))[-1] // (heads if ranks == {3} else 1)),
    )


def _bias(info: NodeInfo, slot: int, heads: int) -> str:
    """Term of a mask or bias on the scores, broadcast from the right: (batch, heads, queries, keys)."""
    shape = info.shape(slot)
    if not shape:
        return "_"
    names = ["1", "(g r)" if heads > 1 and len(shape) > 2 and shape[-3] == heads else "1", "w", "x"]
    words = names[-len(shape) :]
    if len(shape) == 4 and shape[0] > 1:
        words[0] = "b"
    return " ".join("1" if size == 1 else word for word, size in zip(words, shape, strict=True))


def _scale(info: NodeInfo, factor: str, head: int) -> MappingProxyType[str, tuple[str, float]]:
    stated = info.node.attribute("scale")
    if stated is not None and stated.f != 0.0:
        return MappingProxyType({})
    return MappingProxyType({"scale": (factor, 1 / math.sqrt(max(head, 1)))})


def linear_attention(info: NodeInfo) -> Rule | Locked:
    """Heads, key positions (summed in the state) and value positions may leave independently."""
    kv, heads = info.node.integer("kv_num_heads", 0), info.node.integer("q_num_heads", 0)
    if not kv or heads % kv or info.node.domain:
        return Locked("groups its heads unevenly")
    decay, beta = (info.shape(4) or (0,))[-1], (info.shape(5) or (0,))[-1]
    size = (info.shape(0) or (1,))[-1] // heads
    gate = "b t (g d)" if decay == kv * size else "b t g"
    return Rule(
        f"b t (g r d), b t (g d), b t (g e), b g d e, {gate}, b t {'g' if beta == kv else '1'} -> b t (g r e), b g d e",
        frozenset("bt"),
        {"q_num_heads": "g r", "kv_num_heads": "g"},
        sizes={"g": kv, "r": heads // kv},
        macs=(("b", "t", "g", "r", "d", "e"), ("b", "t", "g", "d", "e")),
        masks=((0, 2), (1, 2)),
        pins=_scale(info, "d", size),
    )


def packed(info: NodeInfo) -> Rule | Locked:
    """com.microsoft Attention: one weight makes queries, keys and values, stacked in its columns."""
    sizes = info.node.integers("qkv_hidden_sizes")
    if sizes and len(set(sizes)) > 1:
        return Locked("packs queries, keys and values of different sizes into one weight")
    heads = info.node.integer("num_heads", 0)
    columns = (info.shape(1) or (0, 0))[-1]
    if not heads or columns % (3 * heads):
        return Locked("packs weights whose width its heads do not divide")
    head = columns // (3 * heads)
    rotary = info.node.integer("do_rotary", 0)
    bias = _bias(info, 5, heads).replace("(g r)", "h")
    attributes = {"num_heads": "h", **({"qkv_hidden_sizes": "h d, h d, h d"} if sizes else {})}
    return Rule(
        f"b s i, i (u h d), (u h d), _, u2 b h p d, {bias}, _ -> b s (h d), u2 b h T d",
        _SCORES | {"u", "u2"} | ({"d"} if rotary else frozenset()),
        attributes,
        sizes={"u": 3, "h": heads, "d": head},
        macs=(("b", "s", "i", "u", "h", "d"), ("b", "s", "s", "h", "d")),
        # A cut position must leave the scores too, not only the output.
        masks=((1, 1), (2, 0)),
        pins=_scale(info, "d", head),
    )


def packed_quantized(info: NodeInfo) -> Rule | Locked:
    """QAttention: com.microsoft Attention with 8-bit data and weights."""
    heads = info.node.integer("num_heads", 0)
    columns = (info.shape(1) or (0, 0))[-1]
    if not heads or columns % (3 * heads):
        return Locked("packs weights whose width its heads do not divide")
    head = columns // (3 * heads)
    scale, point = ("(u h d)" if (info.shape(slot) or (1,))[-1] == columns and columns > 1 else "_" for slot in (4, 7))
    return Rule(
        f"b s i, i (u h d), (u h d), _, {scale}, _, _, {point}, u2 b h p d -> b s (h d), u2 b h T d",
        _SCORES | {"u", "u2"} | ({"d"} if info.node.integer("do_rotary", 0) else frozenset()),
        {"num_heads": "h"},
        sizes={"u": 3, "h": heads, "d": head},
        macs=(("b", "s", "i", "u", "h", "d"), ("b", "s", "s", "h", "d")),
        masks=((1, 1), (2, 0)),
        pins=_scale(info, "d", head),
        zeros=MappingProxyType({0: 6, 1: 7}),
    )


def multi_head(info: NodeInfo) -> Rule | Locked:
    """com.microsoft MultiHeadAttention: separate, or packed as (b s h 3 d), or with keys and values as (b t h 2 d)."""
    heads = info.node.integer("num_heads", 0)
    query, key, value = info.shape(0) or (), info.shape(1), info.shape(2)
    if not heads or not query:
        return Locked("does not state its number of heads")
    extra = f"_, {_bias(info, 5, heads).replace('(g r)', 'h')}"
    mix = _SCORES | {"u"}
    if len(query) == 5:
        terms, head, tail = ["b s h u d", "_", "_"], query[-1], "d"
    else:
        head = query[-1] // heads
        tail = "e"
        if key is None:
            terms = ["b s (h d)", "_", "_"]
        elif len(key) == 5:
            terms, tail = ["b s (h d)", "b t h u d", "_"], "d"
        elif len(key) == 4:
            terms, tail = ["b s (h d)", "b h t d", "b h t d"], "d"
        else:
            terms = ["b s (h d)", "b t (h d)", "b t (h e)"]
    bias = "_"
    if info.shape(3) is not None:
        same = value is None or value[-1] == (query[-1] if len(value) == 3 else head)
        if not same or (info.shape(3) or (0,))[0] != 3 * heads * head:
            return Locked("packs biases of different sizes into one vector")
        bias, tail = "(u h d)", "d"
        terms = [term.replace("e", "d") for term in terms]
    return Rule(
        f"{', '.join(terms)}, {bias}, {extra}, b h p d, b h p {tail}, _, _"
        f" -> b s (h {tail}), b h T d, b h T {tail}, b h s T",
        mix,
        {"num_heads": "h"},
        sizes={"h": heads, "d": head},
        macs=(("b", "s", "t", "h", "d"), ("b", "s", "t", "h", tail))
        if len(query) < 5
        else (("b", "s", "s", "h", "d"),),
        masks=((0, len(query) - 1), (3, 0)),
        pins=_scale(info, "d", head),
    )


def grouped_query(info: NodeInfo) -> Rule | Locked:
    """com.microsoft GroupQueryAttention with separate queries, keys and values."""
    heads, kv = info.node.integer("num_heads", 0), info.node.integer("kv_num_heads", 0)
    query, key = info.shape(0), info.shape(1)
    if query is None or key is None:
        return Locked("packs queries, keys and values of different sizes into one tensor")
    if not kv or heads % kv or len(query) != 3 or len(key) != 3:
        return Locked("groups its heads unevenly")
    if info.node.integer("kv_cache_bit_width", 0) or info.node.string("k_quant_type", "NONE") != "NONE":
        return Locked("keeps quantized keys and values")
    head = query[-1] // heads
    return Rule(
        "b s (g r d), b t (g d), b t (g d), b g p d, b g p d, _, _, m f, m f, _, "
        f"{_bias(info, 10, heads)}, (g r), _, _, d, d, _ -> b s (g r d), b g T d, b g T d, b (g r) s T",
        # Kernels need a head size in multiples of eight, so positions inside a head stay.
        _SCORES | {"f", "d"},
        {"num_heads": "g r", "kv_num_heads": "g"},
        sizes={"g": kv, "r": heads // kv, "d": head},
        macs=(("b", "s", "t", "g", "r", "d"), ("b", "s", "t", "g", "r", "d")),
    )


def rotary(info: NodeInfo) -> Rule | Locked:
    """ai.onnx RotaryEmbedding(X, cos, sin, positions)."""
    return _rotary(info, (1, 2), 3)


def rotary_microsoft(info: NodeInfo) -> Rule | Locked:
    """com.microsoft RotaryEmbedding(input, positions, cos, sin)."""
    if info.node.integer("is_packed_batching", 0):
        return Locked("packs sequences of different lengths into one")
    return _rotary(info, (2, 3), 1)


def _rotary(info: NodeInfo, tables: tuple[int, int], positions: int) -> Rule | Locked:
    """The operator rotates pairs of positions (u), each by its own angle (e).  A pair leaves with its table column."""
    shape, table = info.shape(0) or (), info.shape(tables[0]) or ()
    half, heads = (table[-1] if table else 0), info.node.integer("num_heads", 0)
    if len(shape) not in (3, 4) or not half:
        return Locked("rotates tensors of unknown rank")
    heads = heads or (shape[-1] // (2 * half) if len(shape) == 3 else shape[1])
    head = shape[-1] // heads if len(shape) == 3 else shape[-1]
    partial = info.node.integer("rotary_embedding_dim", 0) not in (0, head) or head != 2 * half
    pair = "e u" if info.node.integer("interleaved", 0) else "u e"
    if partial:
        pair = "d"
    data = f"b s (h {pair})" if len(shape) == 3 else f"b h s {f'({pair})' if ' ' in pair else pair}"
    cache = " ".join([*("bs" if len(table) == 3 else "m"), "f" if partial else "e"])
    slots = ["_"] * len(info.node.inputs)
    if len(info.shape(positions) or ()) == 2:
        slots[positions] = "b s"
    slots[0] = data
    for slot in tables:
        slots[slot] = cache
    return Rule(
        f"{', '.join(slots)} -> {data}",
        frozenset("udfsm"),
        {"num_heads": "h"} if len(shape) == 3 and info.node.integer("num_heads", 0) else {},
        sizes={"h": heads, **({} if partial else {"u": 2})},
    )


TABLE: dict[str, RuleEntry] = {
    "Attention": attention,
    "LinearAttention": linear_attention,
    "RotaryEmbedding": rotary,
}
MICROSOFT: dict[str, RuleEntry] = {
    "Attention": packed,
    "QAttention": packed_quantized,
    "MultiHeadAttention": multi_head,
    "GroupQueryAttention": grouped_query,
    "RotaryEmbedding": rotary_microsoft,
}
