"""Seeded random graphs, built from pieces as exporters write them: what no architecture list would contain.

``random_model(seed)`` gives a valid float32 model with one image input (the batch may be dynamic), one to three
outputs and some dozens of nodes.  The same seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

Array = np.ndarray
OPSET = 18


@dataclass(frozen=True)
class Value:
    """A tensor: its name and its shape at batch 2.  Rank 4 is NCHW, rank 3 is (batch, token, width), rank 2 flat."""

    name: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else self.shape[1]


@dataclass(eq=False)
class Builder:
    rng: np.random.Generator
    dynamic: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shared: dict[tuple[int, ...], str] = field(default_factory=dict)
    live: list[Value] = field(default_factory=list)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, *options: int) -> int:
        return int(options[int(self.rng.integers(len(options)))])

    def put(self, array: Array, stem: str = "w") -> str:
        """A constant: an initializer, or now and then a Constant node."""
        name = self.name(stem)
        if self.chance(0.15):
            self.nodes.append(oh.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan: int = 1) -> str:
        """Random weights; sometimes those of an earlier node of the same shape, or seen through Identity."""
        if self.chance(0.12) and shape in self.shared:
            return self.shared[shape]
        array = (self.rng.standard_normal(shape) / np.sqrt(max(fan, 1))).astype(np.float32)
        name = self.put(array)
        if self.chance(0.05):
            name = self.op("Identity", [name])
        self.shared[shape] = name
        return name

    def positive(self, size: int) -> str:
        return self.put((self.rng.random(size) + 0.5).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.put(np.asarray(values, np.int64), "n")

    def op(self, kind: str, inputs: list[str], **attributes: object) -> str:
        out = self.name(kind.lower())
        name = out if self.chance(0.9) else ""
        self.nodes.append(oh.make_node(kind, inputs, [out], name=name, **attributes))
        return out

    def many(self, kind: str, inputs: list[str], count: int, **attributes: object) -> list[str]:
        outs = [self.name(kind.lower()) for _ in range(count)]
        self.nodes.append(oh.make_node(kind, inputs, outs, **attributes))
        return outs

    def reshape(self, x: str, batch_of: str, dims: tuple[int, ...]) -> str:
        """To (batch, *dims): by literals, by 0 or -1, or by arithmetic on Shape as tracing exporters write it."""
        way = self.pick(0, 1, 2) if not self.dynamic else self.pick(1, 2, 3)
        if way == 0:
            return self.op("Reshape", [x, self.ints(2, *dims)])
        if way == 1:
            return self.op("Reshape", [x, self.ints(0, *dims)])
        if way == 3 or not self.dynamic:
            place = int(self.rng.integers(len(dims)))
            free = [-1 if k == place else d for k, d in enumerate(dims)]
            return self.op("Reshape", [x, self.ints(0, *free)])
        shape = self.op("Shape", [batch_of])
        batch = self.op("Gather", [shape, self.put(np.asarray(0, np.int64))], axis=0)
        first = self.op("Unsqueeze", [batch, self.ints(0)])
        rest = [self.ints(d) for d in dims]
        return self.op("Reshape", [x, self.op("Concat", [first, *rest], axis=0)])


Piece = Callable[[Builder, Value], "Value | None"]


def _conv(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    kernel = b.pick(1, 3)
    out = b.pick(4, 6, 8, 12)
    groups = 1
    if b.chance(0.3):
        groups = next((g for g in (4, 2, 3) if c % g == 0 and out % g == 0), 1)
    inputs = [x.name, b.weight(out, c // groups, kernel, kernel, fan=c // groups * kernel * kernel)]
    if b.chance(0.6):
        inputs.append(b.weight(out))
    stride = 2 if b.chance(0.1) and h > 3 and w > 3 else 1
    pads = [kernel // 2] * 4
    size = [(s + 2 * (kernel // 2) - kernel) // stride + 1 for s in (h, w)]
    attributes: dict[str, object] = {"pads": pads, "strides": [stride, stride]}
    if groups > 1 or b.chance(0.5):
        attributes["group"] = groups
    return Value(b.op("Conv", inputs, **attributes), (n, out, *size))


def _depthwise(b: Builder, x: Value) -> Value | None:
    c, times = x.shape[1], b.pick(1, 1, 2)
    out = b.op("Conv", [x.name, b.weight(c * times, 1, 3, 3, fan=9)], pads=[1] * 4, group=c)
    return Value(out, (x.shape[0], c * times, *x.shape[2:]))


def _transposed(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h > 8:
        return None
    groups = 2 if c % 2 == 0 and b.chance(0.4) else 1
    per = b.pick(2, 4)
    inputs = [x.name, b.weight(c, per, 2, 2, fan=c), *([b.weight(per * groups)] if b.chance(0.5) else [])]
    return Value(b.op("ConvTranspose", inputs, strides=[2, 2], group=groups), (n, per * groups, 2 * h, 2 * w))


def _batch_norm(b: Builder, x: Value) -> Value | None:
    if len(x.shape) == 3:
        return None
    c = x.width
    return Value(b.op("BatchNormalization", [x.name, b.positive(c), b.weight(c), b.weight(c), b.positive(c)]), x.shape)


def _activation(b: Builder, x: Value) -> Value | None:
    kinds = (
        "Relu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "LeakyRelu",
        "Elu",
        "Softplus",
        "Identity",
        "Erf",
        "Neg",
        "Dropout",
    )
    kind = kinds[int(b.rng.integers(len(kinds)))]
    return Value(b.op(kind, [x.name]), x.shape)


def _swish(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Mul", [x.name, b.op("Sigmoid", [x.name])]), x.shape)


def _clip(b: Builder, x: Value) -> Value | None:
    bounds = [b.put(np.asarray(v, np.float32)) for v in (-1.0, 6.0)]
    return Value(b.op("Clip", [x.name, *bounds]), x.shape)


def _prelu(b: Builder, x: Value) -> Value | None:
    shape = {4: (x.width, 1, 1), 3: (x.width,), 2: (x.width,)}[len(x.shape)]
    return Value(b.op("PRelu", [x.name, b.weight(*shape)]), x.shape)


def _constant(b: Builder, x: Value) -> Value | None:
    """Broadcast with a constant of some rank, from either side."""
    forms: list[tuple[int, ...]] = [(), (1,)]
    forms += {
        4: [(x.width, 1, 1), (1, x.width, 1, 1)],
        3: [(x.width,), (1, 1, x.width)],
        2: [(x.width,), (1, x.width)],
    }[len(x.shape)]
    other = b.weight(*forms[int(b.rng.integers(len(forms)))])
    pair = [x.name, other] if b.chance(0.7) else [other, x.name]
    kind = ("Add", "Mul", "Sub", "Max", "Min")[int(b.rng.integers(5))]
    return Value(b.op(kind, pair), x.shape)


def _partner(b: Builder, x: Value) -> Value | None:
    same = [v for v in b.live if v.shape == x.shape and v.name != x.name]
    return same[int(b.rng.integers(len(same)))] if same else None


def _join(b: Builder, x: Value) -> Value | None:
    """A residual sum, product or maximum with any tensor of the same shape."""
    other = _partner(b, x)
    if other is None:
        return None
    kind = ("Add", "Add", "Add", "Mul", "Sub", "Max")[int(b.rng.integers(6))]
    if b.chance(0.1):
        return Value(b.op("Sum", [x.name, other.name, x.name]), x.shape)
    return Value(b.op(kind, [x.name, other.name]), x.shape)


def _select(b: Builder, x: Value) -> Value | None:
    other = _partner(b, x)
    if other is None:
        return None
    test = b.op("Greater", [x.name, other.name])
    return Value(b.op("Where", [test, x.name, other.name]), x.shape)


def _residual(b: Builder, x: Value) -> Value | None:
    if len(x.shape) != 4:
        return None
    c, inner = x.width, b.pick(4, 6)
    y = b.op("Relu", [b.op("Conv", [x.name, b.weight(inner, c, 1, 1, fan=c)])])
    y = b.op("Conv", [y, b.weight(c, inner, 3, 3, fan=9 * inner), b.weight(c)], pads=[1] * 4)
    return Value(b.op("Add", [y, x.name]), x.shape)


def _gate(b: Builder, x: Value) -> Value | None:
    c, inner = x.width, b.pick(2, 4)
    if b.chance(0.5):
        y = b.op("GlobalAveragePool", [x.name])
    else:
        y = b.op("ReduceMean", [x.name, b.ints(2, 3)], keepdims=1)
    y = b.op("Relu", [b.op("Conv", [y, b.weight(inner, c, 1, 1, fan=c), b.weight(inner)])])
    y = b.op("Sigmoid", [b.op("Conv", [y, b.weight(c, inner, 1, 1, fan=inner)])])
    return Value(b.op("Mul", [x.name, y] if b.chance(0.5) else [y, x.name]), x.shape)


def _axis(x: Value) -> int:
    return 2 if len(x.shape) == 3 else 1


def _concat(b: Builder, x: Value) -> Value | None:
    axis = _axis(x)
    fit = [v for v in b.live if len(v.shape) == len(x.shape) and v.shape[:axis] == x.shape[:axis]]
    fit = [v for v in fit if v.shape[axis + 1 :] == x.shape[axis + 1 :] and v.width + x.width <= 32]
    if not fit:
        return None
    other = fit[int(b.rng.integers(len(fit)))]
    shape = list(x.shape)
    shape[axis] += other.width
    return Value(b.op("Concat", [x.name, other.name], axis=axis), tuple(shape))


def _split(b: Builder, x: Value) -> Value | None:
    """Equal or unequal parts; both stay alive, so that they may meet again."""
    axis, c = _axis(x), x.width
    if c < 4:
        return None
    half = c // 2 if b.chance(0.5) and c % 2 == 0 else int(b.rng.integers(1, c))
    if half * 2 == c and b.chance(0.5):
        parts = b.many("Split", [x.name], 2, axis=axis, num_outputs=2)
    else:
        parts = b.many("Split", [x.name, b.ints(half, c - half)], 2, axis=axis)
    found = []
    for part, size in zip(parts, (half, c - half), strict=True):
        shape = list(x.shape)
        shape[axis] = size
        found.append(Value(part, tuple(shape)))
    b.live.append(found[1])
    return found[0]


def _slice(b: Builder, x: Value) -> Value | None:
    axis, c = _axis(x), x.width
    if c < 4:
        return None
    start = int(b.rng.integers(0, c - 2))
    stop = int(b.rng.integers(start + 2, c + 1))
    end = stop - c if stop < c and b.chance(0.3) else stop if stop < c else 2**31 - 1
    step = 1
    count = stop - start
    if b.chance(0.15):
        step, count = 2, -(-(stop - start) // 2)
    shape = list(x.shape)
    shape[axis] = count
    inputs = [x.name, b.ints(start), b.ints(end), b.ints(axis)]
    return Value(b.op("Slice", [*inputs, b.ints(step)] if step > 1 or b.chance(0.5) else inputs), tuple(shape))


def _pad(b: Builder, x: Value) -> Value | None:
    axis, rank = _axis(x), len(x.shape)
    before, after = b.pick(0, 1, 2), b.pick(0, 1)
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, after
    shape = list(x.shape)
    shape[axis] += before + after
    return Value(b.op("Pad", [x.name, b.ints(*pads)]), tuple(shape))


def _gather(b: Builder, x: Value) -> Value | None:
    axis, c = _axis(x), x.width
    index = b.rng.permutation(c) if b.chance(0.5) else np.sort(b.rng.integers(0, c, max(c - 1, 2)))
    shape = list(x.shape)
    shape[axis] = len(index)
    return Value(b.op("Gather", [x.name, b.ints(*index.tolist())], axis=axis), tuple(shape))


def _shuffle(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    groups = next((g for g in (2, 3, 4) if c % g == 0), 0)
    if not groups:
        return None
    y = b.reshape(x.name, x.name, (groups, c // groups, h, w))
    y = b.op("Transpose", [y], perm=[0, 2, 1, 3, 4])
    return Value(b.reshape(y, x.name, (c, h, w)), x.shape)


def _depth(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    mode = "DCR" if b.chance(0.5) else "CRD"
    if c % 4 == 0 and c > 4 and h <= 8:
        return Value(b.op("DepthToSpace", [x.name], blocksize=2, mode=mode), (n, c // 4, 2 * h, 2 * w))
    if h % 2 == 0 and w % 2 == 0 and c <= 6:
        return Value(b.op("SpaceToDepth", [x.name], blocksize=2), (n, 4 * c, h // 2, w // 2))
    return None


def _pool(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h < 2 or w < 2:
        return None
    kind = "MaxPool" if b.chance(0.5) else "AveragePool"
    if b.chance(0.5):
        return Value(b.op(kind, [x.name], kernel_shape=[3, 3], pads=[1] * 4), x.shape)
    return Value(b.op(kind, [x.name], kernel_shape=[2, 2], strides=[2, 2]), (n, c, h // 2, w // 2))


def _resize(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h > 8:
        return None
    scales = b.put(np.asarray([1, 1, 2, 2], np.float32))
    return Value(
        b.op("Resize", [x.name, "", scales], mode="nearest" if b.chance(0.5) else "linear"), (n, c, 2 * h, 2 * w)
    )


def _normalize(b: Builder, x: Value) -> Value | None:
    if len(x.shape) == 4:
        c = x.width
        return Value(b.op("InstanceNormalization", [x.name, b.positive(c), b.weight(c)]), x.shape)
    if len(x.shape) == 3:
        return Value(b.op("LayerNormalization", [x.name, b.positive(x.width), b.weight(x.width)]), x.shape)
    return Value(b.op("Softmax", [x.name], axis=1), x.shape)


def _group_norm(b: Builder, x: Value) -> Value | None:
    """As exporters write it: Reshape, InstanceNormalization over groups, Reshape back."""
    n, c, h, w = x.shape
    groups = next((g for g in (2, 3, 4) if c % g == 0 and c > g), 0)
    if not groups or h * w * (c // groups) < 8:
        return None
    y = b.reshape(x.name, x.name, (groups, c // groups * h * w))
    y = b.op("InstanceNormalization", [y, b.positive(groups), b.weight(groups)])
    y = b.reshape(y, x.name, (c, h, w))
    return Value(b.op("Mul", [y, b.weight(c, 1, 1)]), x.shape)


def _tile(b: Builder, x: Value) -> Value | None:
    if x.width > 8 or len(x.shape) != 4:
        return None
    n, c, h, w = x.shape
    return Value(b.op("Tile", [x.name, b.ints(1, 2, 1, 1)]), (n, 2 * c, h, w))


def _tokens(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    y = b.op("Transpose", [b.reshape(x.name, x.name, (c, h * w))], perm=[0, 2, 1])
    return Value(y, (n, h * w, c))


def _flat(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if c * h * w > 1200:
        return None
    if b.chance(0.5):
        return Value(b.op("Flatten", [x.name], axis=1), (n, c * h * w))
    return Value(b.reshape(x.name, x.name, (c * h * w,)), (n, c * h * w))


def _pooled(b: Builder, x: Value) -> Value | None:
    n, c = x.shape[:2]
    if b.chance(0.5):
        return Value(b.op("Flatten", [b.op("GlobalAveragePool", [x.name])], axis=1), (n, c))
    return Value(b.op("ReduceMean", [x.name, b.ints(2, 3)], keepdims=0), (n, c))


def _matmul(b: Builder, x: Value) -> Value | None:
    out, c = b.pick(4, 6, 8, 12), x.width
    if len(x.shape) == 3 and b.chance(0.2):
        y = b.op("Einsum", [x.name, b.weight(out, c, fan=c)], equation="ntc,oc->nto")
    else:
        y = b.op("MatMul", [x.name, b.weight(c, out, fan=c)])
    if b.chance(0.6):
        y = b.op("Add", [y, b.weight(out)])
    return Value(y, (*x.shape[:-1], out))


def _gemm(b: Builder, x: Value) -> Value | None:
    out, c, turned = b.pick(4, 6, 8), x.width, b.pick(0, 1)
    weight = b.weight(*((out, c) if turned else (c, out)), fan=c)
    bias = [b.weight(*((out,), (1, out), (1,))[b.pick(0, 1, 2)])] if b.chance(0.7) else []
    return Value(
        b.op("Gemm", [x.name, weight, *bias], transB=turned, alpha=0.7 if b.chance(0.2) else 1.0), (x.shape[0], out)
    )


def _attend(b: Builder, x: Value) -> Value | None:
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


def _recur(b: Builder, x: Value) -> Value | None:
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


def _gated(b: Builder, x: Value) -> Value | None:
    if x.width % 2 or x.width < 4:
        return None
    left, right = b.many("Split", [x.name], 2, axis=_axis(x), num_outputs=2)
    shape = list(x.shape)
    shape[_axis(x)] //= 2
    return Value(b.op("Mul", [left, b.op("Sigmoid", [right])]), tuple(shape))


def _mean_tokens(b: Builder, x: Value) -> Value | None:
    return Value(b.op("ReduceMean", [x.name, b.ints(1)], keepdims=0), (x.shape[0], x.shape[2]))


def _first_token(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Gather", [x.name, b.put(np.asarray(0, np.int64))], axis=1), (x.shape[0], x.shape[2]))


def _sized(b: Builder, x: str, axis: int) -> str:
    """The size of one axis as a vector of one, by arithmetic on Shape."""
    if b.chance(0.5):
        return b.op("Gather", [b.op("Shape", [x]), b.ints(axis)], axis=0)
    return b.op("Slice", [b.op("Shape", [x]), b.ints(axis), b.ints(axis + 1), b.ints(0)])


def _halves(b: Builder, x: Value) -> Value | None:
    """chunk as tracing exporters write it: the middle is computed from the size of the axis."""
    axis, c = _axis(x), x.width
    if c % 2 or c < 4:
        return None
    size = _sized(b, x.name, axis)
    middle = b.op("Div", [b.op("Add", [size, b.ints(1)]), b.ints(2)])
    shape = list(x.shape)
    shape[axis] = c // 2
    first = b.op("Slice", [x.name, b.ints(0), middle, b.ints(axis)])
    second = b.op("Slice", [x.name, middle, b.op("Mul", [middle, b.ints(2)]), b.ints(axis)])
    b.live.append(Value(second, tuple(shape)))
    return Value(first, tuple(shape))


def _viewed(b: Builder, x: Value) -> Value | None:
    """Flatten the places with every size asked of the tensor, then back: all dims follow by themselves."""
    n, c, h, w = x.shape
    sizes = [_sized(b, x.name, axis) for axis in range(4)]
    y = b.op("Reshape", [x.name, b.op("Concat", [sizes[0], sizes[1], b.ints(-1)], axis=0)])
    y = b.op("Softmax" if b.chance(0.4) else "Relu", [y])
    return Value(b.op("Reshape", [y, b.op("Concat", sizes, axis=0)]), x.shape)


def _shuffled_by_size(b: Builder, x: Value) -> Value | None:
    """Channel shuffle whose channels per group are computed."""
    n, c, h, w = x.shape
    if c % 2 or c < 4:
        return None
    sizes = [_sized(b, x.name, axis) for axis in range(4)]
    per = b.op("Div", [sizes[1], b.ints(2)])
    y = b.op("Reshape", [x.name, b.op("Concat", [sizes[0], b.ints(2), per, sizes[2], sizes[3]], axis=0)])
    y = b.op("Transpose", [y], perm=[0, 2, 1, 3, 4])
    return Value(b.op("Reshape", [y, b.op("Concat", [sizes[0], b.ints(-1), sizes[2], sizes[3]], axis=0)]), x.shape)


def _scaled_by_size(b: Builder, x: Value) -> Value | None:
    """Divided by the root of its own width, as attention scales are written."""
    width = b.op("Cast", [_sized(b, x.name, _axis(x))], to=onnx.TensorProto.FLOAT)
    return Value(b.op("Div", [x.name, b.op("Sqrt", [width])]), x.shape)


def _resized_to(b: Builder, x: Value) -> Value | None:
    """Resize to sizes of which some come from Shape (the batch and the channels), some are literals."""
    n, c, h, w = x.shape
    if h > 8:
        return None
    head = [_sized(b, x.name, 0), _sized(b, x.name, 1)]
    sizes = b.op("Concat", [*head, b.ints(2 * h, 2 * w)], axis=0)
    return Value(b.op("Resize", [x.name, "", "", sizes], mode="nearest"), (n, c, 2 * h, 2 * w))


def _expanded(b: Builder, x: Value) -> Value | None:
    """A constant blown up to the tensor's own shape, then added."""
    y = b.op("Expand", [b.weight(*((1,) * len(x.shape))), b.op("Shape", [x.name])])
    if b.chance(0.3):
        y = b.op(
            "ConstantOfShape", [b.op("Shape", [x.name])], value=numpy_helper.from_array(np.asarray([0.5], np.float32))
        )
    return Value(b.op("Add", [x.name, y]), x.shape)


def _channels_last(b: Builder, x: Value) -> Value | None:
    """To NHWC, a product or a norm there, and back."""
    n, c, h, w = x.shape
    y = b.op("Transpose", [x.name], perm=[0, 2, 3, 1])
    out = b.pick(4, 6, 8)
    way = b.pick(0, 1, 2)
    if way == 0:
        y = b.op("Add", [b.op("MatMul", [y, b.weight(c, out, fan=c)]), b.weight(out)])
    elif way == 1:
        y, out = b.op("LayerNormalization", [y, b.positive(c), b.weight(c)], axis=-1), c
    else:
        y, out = b.op("Mul", [y, b.weight(c)]), c
    return Value(b.op("Transpose", [y], perm=[0, 3, 1, 2]), (n, out, h, w))


def _computed_weight(b: Builder, x: Value) -> Value | None:
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


def _manual_norm(b: Builder, x: Value) -> Value | None:
    """LayerNorm written out: mean, difference, variance, root."""
    mean = b.op("ReduceMean", [x.name, b.ints(-1)], keepdims=1)
    diff = b.op("Sub", [x.name, mean])
    variance = b.op("ReduceMean", [b.op("Pow", [diff, b.put(np.asarray(2, np.float32))]), b.ints(-1)], keepdims=1)
    root = b.op("Sqrt", [b.op("Add", [variance, b.put(np.asarray(1e-3, np.float32))])])
    return Value(b.op("Div", [diff, root]), x.shape)


def _places(b: Builder, x: Value) -> Value | None:
    """Movement in space: concatenation, flip, shift, or border."""
    n, c, h, w = x.shape
    way = b.pick(0, 1, 2, 3)
    if way == 0:
        return Value(b.op("Concat", [x.name, x.name], axis=2), (n, c, 2 * h, w)) if h <= 8 else None
    if way == 1:
        return Value(b.op("Slice", [x.name, b.ints(-1), b.ints(-(2**31)), b.ints(3), b.ints(-1)]), x.shape)
    if way == 2 and h > 2:
        return Value(b.op("Slice", [x.name, b.ints(0), b.ints(h), b.ints(2), b.ints(2)]), (n, c, -(-h // 2), w))
    if h < 3 or w < 3:
        return None
    mode = "reflect" if b.chance(0.5) else "edge"
    return Value(b.op("Pad", [x.name, b.ints(0, 0, 1, 1, 0, 0, 1, 1)], mode=mode), (n, c, h + 2, w + 2))


def _option_a(b: Builder, x: Value) -> Value | None:
    """A shortcut without weights: every second place, and channels of zeros around."""
    n, c, h, w = x.shape
    if h < 2 or w < 2 or c > 12:
        return None
    y = b.op("Slice", [x.name, b.ints(0, 0), b.ints(h, w), b.ints(2, 3), b.ints(2, 2)])
    y = b.op("Pad", [y, b.ints(0, c // 2, 0, 0, 0, c // 2, 0, 0)])
    out, size = c + 2 * (c // 2), (-(-h // 2), -(-w // 2))
    z = b.op("Conv", [x.name, b.weight(out, c, 3, 3, fan=9 * c)], pads=[1] * 4, strides=[2, 2])
    return Value(b.op("Add", [y, z]), (n, out, *size))


def _reversed_channels(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Slice", [x.name, b.ints(-1), b.ints(-(2**31)), b.ints(_axis(x)), b.ints(-1)]), x.shape)


def _across(b: Builder, x: Value) -> Value | None:
    """A gate that looks at all channels at once, which therefore stay."""
    axis = _axis(x)
    kind = ("ReduceMax", "ReduceMean")[b.pick(0, 1)]
    y = b.op(kind, [x.name, b.ints(axis)], keepdims=1)
    return Value(b.op("Mul", [x.name, b.op("Sigmoid", [y])]), x.shape)


def _stacked(b: Builder, x: Value) -> Value | None:
    """Stacked on a new axis with another tensor, weighed, and summed away."""
    other = _partner(b, x)
    if other is None:
        return None
    pair = [b.op("Unsqueeze", [v.name, b.ints(1)]) for v in (x, other)]
    y = b.op("Concat", pair, axis=1)
    y = b.op("Mul", [y, b.weight(2, *((1,) * (len(x.shape) - 1)))])
    return Value(b.op("ReduceSum", [y, b.ints(1)], keepdims=0), x.shape)


def _attend_channels(b: Builder, x: Value) -> Value | None:
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


def _recur_state(b: Builder, x: Value) -> Value | None:
    """LSTM whose initial states are made for the batch at hand, and whose last state is what is read."""
    n, t, c = x.shape
    hidden = b.pick(4, 6)
    batch = _sized(b, x.name, 0)
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


def _rolled(b: Builder, x: Value) -> Value | None:
    """Channels rolled by two, as shift layers do."""
    axis, c = _axis(x), x.width
    if c < 4:
        return None
    head = b.op("Slice", [x.name, b.ints(0), b.ints(c - 2), b.ints(axis)])
    tail = b.op("Slice", [x.name, b.ints(-2), b.ints(2**63 - 1), b.ints(axis)])
    return Value(b.op("Concat", [tail, head], axis=axis), x.shape)


ANY: tuple[Piece, ...] = (_activation, _swish, _clip, _prelu, _constant, _join, _join, _select, _concat, _split, _slice)
ANY += (_pad, _gather, _gated, _normalize, _halves, _scaled_by_size, _expanded, _reversed_channels, _across, _stacked)
ANY += (_rolled,)
IMAGE: tuple[Piece, ...] = (
    _conv,
    _conv,
    _conv,
    _conv,
    _depthwise,
    _transposed,
    _batch_norm,
    _residual,
    _gate,
    _shuffle,
)
IMAGE += (_depth, _pool, _resize, _group_norm, _tile, _tokens, _pooled, _flat, _viewed, _shuffled_by_size)
IMAGE += (_resized_to, _channels_last, _places, _option_a, _attend_channels)
TOKENS: tuple[Piece, ...] = (_matmul, _matmul, _matmul, _attend, _recur, _recur_state, _mean_tokens)
TOKENS += (_first_token, _computed_weight, _manual_norm)
FLAT: tuple[Piece, ...] = (_gemm, _gemm, _matmul, _batch_norm, _computed_weight)


def random_model(seed: int) -> onnx.ModelProto:
    """The graph of this seed."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, dynamic=bool(rng.random() < 0.5))
    side = b.pick(6, 8)
    b.live.append(Value("image", (2, 3, side, side)))
    first = _conv(b, b.live[0])
    assert first is not None
    b.live = [first]
    for _ in range(int(rng.integers(6, 22))):
        place = -1 if b.chance(0.7) else int(rng.integers(len(b.live)))
        x = b.live[place]
        own = {4: IMAGE, 3: TOKENS, 2: FLAT}[len(x.shape)]
        pieces = own if b.chance(0.6) else ANY
        made = pieces[int(rng.integers(len(pieces)))](b, x)
        if made is not None:
            b.live.append(made)
    outputs = [_finish(b, b.live[-1], 0)]
    for extra in range(b.pick(0, 0, 1, 2)):
        outputs.append(_finish(b, b.live[int(rng.integers(len(b.live)))], extra + 1))
    batch: int | str = "batch" if b.dynamic else 2
    graph = oh.make_graph(
        b.nodes,
        f"random_{seed}",
        [oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [batch, 3, side, side])],
        [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, width]) for name, width in outputs],
        b.weights,
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", OPSET)], ir_version=8)


def _finish(b: Builder, x: Value, place: int) -> tuple[str, int]:
    """A classifier on ``x``: (name, width) of a graph output."""
    if len(x.shape) == 4:
        x = _pooled(b, x) or x
    elif len(x.shape) == 3:
        x = _mean_tokens(b, x) or x
    c, out = x.width, f"output_{place}"
    b.nodes.append(oh.make_node("Gemm", [x.name, b.weight(c, 5, fan=c), b.weight(5)], [out]))
    return out, 5
