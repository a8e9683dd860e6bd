"""Pieces of random graphs that work on tensors of any rank."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from random_builder import Builder, Value


def activation(b: Builder, x: Value) -> Value | None:
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


def swish(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Mul", [x.name, b.op("Sigmoid", [x.name])]), x.shape)


def clip(b: Builder, x: Value) -> Value | None:
    bounds = [b.put(np.asarray(v, np.float32)) for v in (-1.0, 6.0)]
    return Value(b.op("Clip", [x.name, *bounds]), x.shape)


def prelu(b: Builder, x: Value) -> Value | None:
    shape = {4: (x.width, 1, 1), 3: (x.width,), 2: (x.width,)}[len(x.shape)]
    return Value(b.op("PRelu", [x.name, b.weight(*shape)]), x.shape)


def constant(b: Builder, x: Value) -> Value | None:
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


def partner(b: Builder, x: Value) -> Value | None:
    same = [v for v in b.live if v.shape == x.shape and v.name != x.name]
    return same[int(b.rng.integers(len(same)))] if same else None


def join(b: Builder, x: Value) -> Value | None:
    """A residual sum, product or maximum with any tensor of the same shape."""
    other = partner(b, x)
    if other is None:
        return None
    kind = ("Add", "Add", "Add", "Mul", "Sub", "Max")[int(b.rng.integers(6))]
    if b.chance(0.1):
        return Value(b.op("Sum", [x.name, other.name, x.name]), x.shape)
    return Value(b.op(kind, [x.name, other.name]), x.shape)


def select(b: Builder, x: Value) -> Value | None:
    other = partner(b, x)
    if other is None:
        return None
    test = b.op("Greater", [x.name, other.name])
    return Value(b.op("Where", [test, x.name, other.name]), x.shape)


def width_axis(x: Value) -> int:
    return 2 if len(x.shape) == 3 else 1


def concat(b: Builder, x: Value) -> Value | None:
    axis = width_axis(x)
    fit = [v for v in b.live if len(v.shape) == len(x.shape) and v.shape[:axis] == x.shape[:axis]]
    fit = [v for v in fit if v.shape[axis + 1 :] == x.shape[axis + 1 :] and v.width + x.width <= 32]
    if not fit:
        return None
    other = fit[int(b.rng.integers(len(fit)))]
    shape = list(x.shape)
    shape[axis] += other.width
    return Value(b.op("Concat", [x.name, other.name], axis=axis), tuple(shape))


def split_axis(b: Builder, x: Value) -> Value | None:
    """Equal or unequal parts; both stay alive, so that they may meet again."""
    axis, c = width_axis(x), x.width
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


def slice_axis(b: Builder, x: Value) -> Value | None:
    axis, c = width_axis(x), x.width
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


def pad(b: Builder, x: Value) -> Value | None:
    axis, rank = width_axis(x), len(x.shape)
    before, after = b.pick(0, 1, 2), b.pick(0, 1)
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = before, after
    shape = list(x.shape)
    shape[axis] += before + after
    return Value(b.op("Pad", [x.name, b.ints(*pads)]), tuple(shape))


def gather(b: Builder, x: Value) -> Value | None:
    axis, c = width_axis(x), x.width
    index = b.rng.permutation(c) if b.chance(0.5) else np.sort(b.rng.integers(0, c, max(c - 1, 2)))
    shape = list(x.shape)
    shape[axis] = len(index)
    return Value(b.op("Gather", [x.name, b.ints(*index.tolist())], axis=axis), tuple(shape))


def normalize(b: Builder, x: Value) -> Value | None:
    if len(x.shape) == 4:
        c = x.width
        return Value(b.op("InstanceNormalization", [x.name, b.positive(c), b.weight(c)]), x.shape)
    if len(x.shape) == 3:
        return Value(b.op("LayerNormalization", [x.name, b.positive(x.width), b.weight(x.width)]), x.shape)
    return Value(b.op("Softmax", [x.name], axis=1), x.shape)


def gated(b: Builder, x: Value) -> Value | None:
    if x.width % 2 or x.width < 4:
        return None
    left, right = b.many("Split", [x.name], 2, axis=width_axis(x), num_outputs=2)
    shape = list(x.shape)
    shape[width_axis(x)] //= 2
    return Value(b.op("Mul", [left, b.op("Sigmoid", [right])]), tuple(shape))


def sized(b: Builder, x: str, axis: int) -> str:
    """The size of one axis as a vector of one, by arithmetic on Shape."""
    if b.chance(0.5):
        return b.op("Gather", [b.op("Shape", [x]), b.ints(axis)], axis=0)
    return b.op("Slice", [b.op("Shape", [x]), b.ints(axis), b.ints(axis + 1), b.ints(0)])


def halves(b: Builder, x: Value) -> Value | None:
    """chunk as tracing exporters write it: the middle is computed from the size of the axis."""
    axis, c = width_axis(x), x.width
    if c % 2 or c < 4:
        return None
    size = sized(b, x.name, axis)
    middle = b.op("Div", [b.op("Add", [size, b.ints(1)]), b.ints(2)])
    shape = list(x.shape)
    shape[axis] = c // 2
    first = b.op("Slice", [x.name, b.ints(0), middle, b.ints(axis)])
    second = b.op("Slice", [x.name, middle, b.op("Mul", [middle, b.ints(2)]), b.ints(axis)])
    b.live.append(Value(second, tuple(shape)))
    return Value(first, tuple(shape))


def scaled_by_size(b: Builder, x: Value) -> Value | None:
    """Divided by the root of its own width, as attention scales are written."""
    width = b.op("Cast", [sized(b, x.name, width_axis(x))], to=onnx.TensorProto.FLOAT)
    return Value(b.op("Div", [x.name, b.op("Sqrt", [width])]), x.shape)


def expanded(b: Builder, x: Value) -> Value | None:
    """A constant blown up to the tensor's own shape, then added."""
    y = b.op("Expand", [b.weight(*((1,) * len(x.shape))), b.op("Shape", [x.name])])
    if b.chance(0.3):
        y = b.op(
            "ConstantOfShape", [b.op("Shape", [x.name])], value=numpy_helper.from_array(np.asarray([0.5], np.float32))
        )
    return Value(b.op("Add", [x.name, y]), x.shape)


def reversed_channels(b: Builder, x: Value) -> Value | None:
    return Value(b.op("Slice", [x.name, b.ints(-1), b.ints(-(2**31)), b.ints(width_axis(x)), b.ints(-1)]), x.shape)


def across(b: Builder, x: Value) -> Value | None:
    """A gate that looks at all channels at once, which therefore stay."""
    axis = width_axis(x)
    kind = ("ReduceMax", "ReduceMean")[b.pick(0, 1)]
    y = b.op(kind, [x.name, b.ints(axis)], keepdims=1)
    return Value(b.op("Mul", [x.name, b.op("Sigmoid", [y])]), x.shape)


def stacked(b: Builder, x: Value) -> Value | None:
    """Stacked on a new axis with another tensor, weighed, and summed away."""
    other = partner(b, x)
    if other is None:
        return None
    pair = [b.op("Unsqueeze", [v.name, b.ints(1)]) for v in (x, other)]
    y = b.op("Concat", pair, axis=1)
    y = b.op("Mul", [y, b.weight(2, *((1,) * (len(x.shape) - 1)))])
    return Value(b.op("ReduceSum", [y, b.ints(1)], keepdims=0), x.shape)


def rolled(b: Builder, x: Value) -> Value | None:
    """Channels rolled by two, as shift layers do."""
    axis, c = width_axis(x), x.width
    if c < 4:
        return None
    head = b.op("Slice", [x.name, b.ints(0), b.ints(c - 2), b.ints(axis)])
    tail = b.op("Slice", [x.name, b.ints(-2), b.ints(2**63 - 1), b.ints(axis)])
    return Value(b.op("Concat", [tail, head], axis=axis), x.shape)
