"""Pieces of random graphs that work on tokens or flat vectors."""

from __future__ import annotations

import numpy as np
from random_any_pieces import sized
from random_builder import Builder, Value


def tokens(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    y = b.op("Transpose", [b.reshape(x.name, x.name, (c, h * w))], perm=[0, 2, 1])
    return Value(y, (n, h * w, c))


def flat(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if c * h * w > 1200:
        return None
    if b.chance(0.5):
        return Value(b.op("Flatten", [x.name], axis=1), (n, c * h * w))
    return Value(b.reshape(x.name, x.name, (c * h * w,)), (n, c * h * w))


def pooled(b: Builder, x: Value) -> Value | None:
    n, c = x.shape[:2]
    if b.chance(0.5):
        return Value(b.op("Flatten", [b.op("GlobalAveragePool", [x.name])], axis=1), (n, c))
    return Value(b.op("ReduceMean", [x.name, b.ints(2, 3)], keepdims=0), (n, c))


def matmul(b: Builder, x: Value) -> Value | None:
    out, c = b.pick(4, 6, 8, 12), x.width
    if len(x.shape) == 3 and b.chance(0.2):
        y = b.op("Einsum", [x.name, b.weight(out, c, fan=c)], equation="ntc,oc->nto")
    else:
        y = b.op("MatMul", [x.name, b.weight(c, out, fan=c)])
    if b.chance(0.6):
        y = b.op("Add", [y, b.weight(out)])
    return Value(y, (*x.shape[:-1], out))


def gemm(b: Builder, x: Value) -> Value | None:
    out, c, turned = b.pick(4, 6, 8), x.width, b.pick(0, 1)
    weight = b.weight(*((out, c) if turned else (c, out)), fan=c)
    bias = [b.weight(*((out,), (1, out), (1,))[b.pick(0, 1, 2)])] if b.chance(0.7) else []
    return Value(
        b.op("Gemm", [x.name, weight, *bias], transB=turned, alpha=0.7 if b.chance(0.2) else 1.0), (x.shape[0], out)
    )


def attend(b: Builder, x: Value) -> Value | None:
    n, t, c = x.shape
    heads, size = b.pick(2, 3, 4), b.pick(2, 4)
    width = heads * size

    def project(stem: Value) -> str:
        y = b.op("MatMul", [stem.name, b.weight(c, width, fan=c)])
        y = b.reshape(y, x.name, (t, heads, size))
        return b.op("Transpose", [y], perm=[0, 2, 1, 3])

    if b.chance(0.3):
        y = b.op("MatMul", [x.name, b.weight(c, 3 * width, fan=c)])
        y = b.op("Transpose", [b.reshape(y, x.name, (t, 3, heads, size))], perm=[2, 0, 3, 1, 4])
        q, k, v = (b.op("Gather", [y, b.put(np.asarray(i, np.int64))], axis=0) for i in range(3))
    else:
        q, k, v = project(x), project(x), project(x)
    scores = b.op("MatMul", [q, b.op("Transpose", [k], perm=[0, 1, 3, 2])])
    scores = b.op("Mul", [scores, b.put(np.asarray(size**-0.5, np.float32))])
    y = b.op("MatMul", [b.op("Softmax", [scores], axis=-1), v])
    y = b.reshape(b.op("Transpose", [y], perm=[0, 2, 1, 3]), x.name, (t, width))
    y = b.op("MatMul", [y, b.weight(width, c, fan=width)])
    return Value(b.op("Add", [y, x.name]), x.shape)


def recur(b: Builder, x: Value) -> Value | None:
    n, t, c = x.shape
    hidden, both = b.pick(3, 4, 6), b.pick(0, 1)
    kind, gates = (("LSTM", 4), ("GRU", 3), ("RNN", 1))[b.pick(0, 1, 2)]
    d = 1 + both
    inputs = [
        b.op("Transpose", [x.name], perm=[1, 0, 2]),
        b.weight(d, gates * hidden, c, fan=c),
        b.weight(d, gates * hidden, hidden, fan=hidden),
    ]
    if b.chance(0.6):
        inputs.append(b.weight(d, 2 * gates * hidden))
    y = b.op(kind, inputs, hidden_size=hidden, direction="bidirectional" if both else "forward")
    if both:
        y = b.op("Transpose", [y], perm=[2, 0, 1, 3])
        return Value(b.reshape(y, x.name, (t, d * hidden)), (n, t, d * hidden))
    y = b.op("Squeeze", [y, b.ints(1)])
    return Value(b.op("Transpose", [y], perm=[1, 0, 2]), (n, t, hidden))


def mean_tokens(b: Builder, x: Value) -> Value | None:
    return Value(b.op("ReduceMean", [x.name, b.ints(1)], keepdims=0), (x.shape[0], x.shape[2]))


def first_token(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Gather", [x.name, b.put(np.asarray(0, np.int64))], axis=1), (x.shape[0], x.shape[2]))


def computed_weight(b: Builder, x: Value) -> Value | None:
    """A weight that the graph computes from constants: transposed, scaled, or normalized."""
    out, c = b.pick(4, 6, 8), x.width
    weight = b.op("Transpose", [b.weight(out, c, fan=c)], perm=[1, 0])
    if b.chance(0.5):
        weight = b.op("Mul", [weight, b.weight(out)])
    if b.chance(0.3):
        weight = b.op("Unsqueeze", [b.op("Reshape", [weight, b.ints(c * out)]), b.ints(0)])
        weight = b.op("Reshape", [weight, b.ints(c, -1)])
    y = b.op("MatMul", [x.name, weight])
    return Value(y, (*x.shape[:-1], out))


def manual_norm(b: Builder, x: Value) -> Value | None:
    """LayerNorm written out: mean, difference, variance, root."""
    mean = b.op("ReduceMean", [x.name, b.ints(-1)], keepdims=1)
    diff = b.op("Sub", [x.name, mean])
    variance = b.op("ReduceMean", [b.op("Pow", [diff, b.put(np.asarray(2, np.float32))]), b.ints(-1)], keepdims=1)
    root = b.op("Sqrt", [b.op("Add", [variance, b.put(np.asarray(1e-3, np.float32))])])
    return Value(b.op("Div", [diff, root]), x.shape)


def attend_channels(b: Builder, x: Value) -> Value | None:
    """Attention over heads of channels in one Einsum each, on (batch, heads, size, places)."""
    n, c, h, w = x.shape
    heads = next((k for k in (2, 3, 4) if c % k == 0 and c > k), 0)
    if not heads:
        return None
    q = b.op("Conv", [x.name, b.weight(c, c, 1, 1, fan=c)])
    k = b.op("Conv", [x.name, b.weight(c, c, 1, 1, fan=c)])
    q, k, v = (b.reshape(t, x.name, (heads, c // heads, h * w)) for t in (q, k, x.name))
    scores = b.op("Softmax", [b.op("Einsum", [q, k], equation="bhdi,bhdj->bhij")], axis=-1)
    y = b.op("Einsum", [scores, v], equation="bhij,bhdj->bhdi")
    return Value(b.reshape(y, x.name, (c, h, w)), x.shape)


def recur_state(b: Builder, x: Value) -> Value | None:
    """LSTM whose initial states are made for the batch at hand, and whose last state is what is read."""
    n, t, c = x.shape
    hidden = b.pick(4, 6)
    batch = sized(b, x.name, 0)
    shape = b.op("Concat", [b.ints(1), batch, b.ints(hidden)], axis=0)
    zero = b.op("ConstantOfShape", [shape]) if b.chance(0.5) else b.op("Expand", [b.weight(1, 1, hidden), shape])
    inputs = [
        b.op("Transpose", [x.name], perm=[1, 0, 2]),
        b.weight(1, 4 * hidden, c, fan=c),
        b.weight(1, 4 * hidden, hidden, fan=hidden),
        b.weight(1, 8 * hidden),
        "",
        zero,
        zero,
    ]
    outs = b.many("LSTM", inputs, 3, hidden_size=hidden)
    return Value(b.op("Squeeze", [outs[1], b.ints(0)]), (n, hidden))


def multiplied(b: Builder, x: Value) -> Value | None:
    """The outer product of a vector with itself or with another one, flattened, and read by a layer."""
    n, c = x.shape
    others = [v for v in b.live if len(v.shape) == 2 and v.name != x.name and v.width <= 12]
    other = others[int(b.rng.integers(len(others)))] if others and b.chance(0.5) else x
    if c > 12:
        return None
    column, row = b.op("Unsqueeze", [x.name, b.ints(2)]), b.op("Unsqueeze", [other.name, b.ints(1)])
    y = b.op("MatMul" if b.chance(0.5) else "Mul", [column, row])
    size = c * other.width
    y = b.op("Flatten", [y], axis=1) if b.chance(0.5) else b.reshape(y, x.name, (size,))
    if b.chance(0.4):
        y = b.op("Tanh", [b.op("Mul", [y, b.weight(size)])])
    return gemm(b, Value(y, (n, size)))
