"""Attention in its layouts, and rotary positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, standard


def _heads(x: Tensor, count: int) -> Tensor:
    """(batch, time, heads * size) as (batch, heads, time, size)."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2) if x.dim() == 3 else x


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, causal: int | None, cap: float = 0.0
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v over (batch, heads, time, size).  Groups of query heads share keys and values.

    ``causal``: query i sees the keys up to i + ``causal``; ``None`` for all.  A query that sees none answers zero.
    """
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    if causal is not None:
        late = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1 + causal)
        scores = scores.masked_fill(late, -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0) @ v


def _attention(call: Call) -> tuple[Tensor | None, ...]:
    flat = call.x.dim() == 3
    q = _heads(call.x, call.integer("q_num_heads", 1))
    k, v = (_heads(call.need(slot), call.integer("kv_num_heads", 1)) for slot in (1, 2))
    for name in ("left_window_size", "right_window_size"):
        if call.integer(name, -1) != -1:
            raise Unsupported("a window of attention")
    if call.outputs > 3 or call.get(6) is not None:
        raise Unsupported("the scores as an output" if call.outputs > 3 else "lengths of the keys")
    past = call.get(4), call.get(5)
    if past[0] is not None and past[1] is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    before = 0 if past[0] is None else past[0].shape[2]
    mask = call.get(3)
    if mask is not None and mask.shape[-1] < k.shape[2]:
        raise Unsupported("a mask that is shorter than the keys")
    causal = before if call.integer("is_causal", 0) else None
    y = attend(q, k, v, _scale(call, q), mask, causal, call.number("softcap", 0.0))
    return (_joined(y) if flat else y), k, v, None


def _scale(call: Call, q: Tensor) -> float:
    return call.number("scale", 0.0) or 1 / math.sqrt(q.shape[-1])


def _packed(call: Call) -> Tensor:
    """onnxruntime's Attention: one product makes queries, keys and values."""
    for slot, what in ((3, "a mask"), (4, "a past"), (6, "a length of the past")):
        if call.get(slot) is not None:
            raise Unsupported(what)
    if call.integer("do_rotary", 0):
        raise Unsupported("rotary positions")
    heads, bias = call.integer("num_heads", 1), call.get(2)
    whole = call.x @ call.need(1)
    whole = whole if bias is None else whole + bias
    sizes = call.integers("qkv_hidden_sizes") or [whole.shape[-1] // 3] * 3
    q, k, v = (_heads(part, heads) for part in whole.split(sizes, -1))
    return _joined(attend(q, k, v, _scale(call, q), call.get(5), 0 if call.integer("unidirectional", 0) else None))


def _many_heads(call: Call) -> Tensor:
    for slot, what in ((4, "a mask"), (6, "a past"), (7, "a past")):
        if call.get(slot) is not None:
            raise Unsupported(what)
    if call.get(1) is None or call.get(2) is None or call.x.dim() != 3:
        raise Unsupported("packed keys and values")
    heads, bias = call.integer("num_heads", 1), call.get(3)
    q, k, v = call.x, call.need(1), call.need(2)
    if bias is not None:
        added = bias.split([q.shape[-1], q.shape[-1], bias.numel() - 2 * q.shape[-1]])
        if k.dim() != 3:
            raise Unsupported("a bias beside keys of four axes")
        q, k, v = q + added[0], k + added[1], v + added[2]
    q, k, v = (_heads(x, heads) for x in (q, k, v))
    return _joined(attend(q, k, v, _scale(call, q), call.get(5), 0 if call.integer("unidirectional", 0) else None))


def _turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """``x``: (batch, heads, time, size), the first twice as many as ``cos`` has turned."""
    width = 2 * cos.shape[-1]
    part, rest = x[..., :width], x[..., width:]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if interleaved:
        real, imaginary = part[..., 0::2], part[..., 1::2]
        pair = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)
        return torch.cat([pair.flatten(-2), rest], -1)
    real, imaginary = part.chunk(2, -1)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos, rest], -1)


def _rotary(call: Call, tables: tuple[int, int], places: int) -> Tensor:
    cos, sin, where = call.need(tables[0]), call.need(tables[1]), call.get(places)
    x, flat = call.x, call.x.dim() == 3
    heads = call.integer("num_heads", 0)
    if flat and not heads:
        width = call.integer("rotary_embedding_dim", 0) or 2 * cos.shape[-1]
        heads = x.shape[-1] // width
    x = _heads(x, heads)
    if where is not None:
        if where.numel() == 1 and where.dim() == 1:
            where = where + torch.arange(x.shape[2], device=where.device)
            where = where.expand(x.shape[0], -1)
        cos, sin = cos[where.long()], sin[where.long()]
    y = _turned(x, cos, sin, bool(call.integer("interleaved", 0)))
    return _joined(y) if flat else y


TABLE: OperatorTable = {
    **standard(
        {
            "Attention": Entry(_attention),
            "RotaryEmbedding": Entry(lambda call: _rotary(call, (1, 2), 3)),
        }
    ),
    ("com.microsoft", "Attention"): Entry(_packed),
    ("com.microsoft", "MultiHeadAttention"): Entry(_many_heads),
    ("com.microsoft", "RotaryEmbedding"): Entry(lambda call: _rotary(call, (2, 3), 1)),
}
