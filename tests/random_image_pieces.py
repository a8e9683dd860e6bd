"""Pieces of random graphs that work on images."""

from __future__ import annotations

import numpy as np
from random_any_pieces import sized
from random_builder import Builder, Value


def conv(b: Builder, x: Value) -> Value | None:
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


def depthwise(b: Builder, x: Value) -> Value | None:
    c, times = x.shape[1], b.pick(1, 1, 2)
    out = b.op("Conv", [x.name, b.weight(c * times, 1, 3, 3, fan=9)], pads=[1] * 4, group=c)
    return Value(out, (x.shape[0], c * times, *x.shape[2:]))


def transposed(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h > 8:
        return None
    groups = 2 if c % 2 == 0 and b.chance(0.4) else 1
    per = b.pick(2, 4)
    inputs = [x.name, b.weight(c, per, 2, 2, fan=c), *([b.weight(per * groups)] if b.chance(0.5) else [])]
    return Value(b.op("ConvTranspose", inputs, strides=[2, 2], group=groups), (n, per * groups, 2 * h, 2 * w))


def batch_norm(b: Builder, x: Value) -> Value | None:
    if len(x.shape) == 3:
        return None
    c = x.width
    inputs = [x.name, b.positive(c), b.weight(c), b.weight(c), b.positive(c)]
    return Value(b.op("BatchNormalization", inputs), x.shape)


def batch_norm_of_the_batch(b: Builder, x: Value) -> Value | None:
    """A norm without running statistics, as exporters write it also for inference."""
    if len(x.shape) != 4:
        return None
    c = x.width
    inputs = [x.name, b.positive(c), b.weight(c), b.weight(c), b.positive(c)]
    return Value(b.many("BatchNormalization", inputs, 3, training_mode=1)[0], x.shape)


def residual(b: Builder, x: Value) -> Value | None:
    if len(x.shape) != 4:
        return None
    c, inner = x.width, b.pick(4, 6)
    y = b.op("Relu", [b.op("Conv", [x.name, b.weight(inner, c, 1, 1, fan=c)])])
    y = b.op("Conv", [y, b.weight(c, inner, 3, 3, fan=9 * inner), b.weight(c)], pads=[1] * 4)
    return Value(b.op("Add", [y, x.name]), x.shape)


def gate(b: Builder, x: Value) -> Value | None:
    c, inner = x.width, b.pick(2, 4)
    if b.chance(0.5):
        y = b.op("GlobalAveragePool", [x.name])
    else:
        y = b.op("ReduceMean", [x.name, b.ints(2, 3)], keepdims=1)
    y = b.op("Relu", [b.op("Conv", [y, b.weight(inner, c, 1, 1, fan=c), b.weight(inner)])])
    y = b.op("Sigmoid", [b.op("Conv", [y, b.weight(c, inner, 1, 1, fan=inner)])])
    return Value(b.op("Mul", [x.name, y] if b.chance(0.5) else [y, x.name]), x.shape)


def shuffle(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    groups = next((g for g in (2, 3, 4) if c % g == 0), 0)
    if not groups:
        return None
    y = b.reshape(x.name, x.name, (groups, c // groups, h, w))
    y = b.op("Transpose", [y], perm=[0, 2, 1, 3, 4])
    return Value(b.reshape(y, x.name, (c, h, w)), x.shape)


def depth(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    mode = "DCR" if b.chance(0.5) else "CRD"
    if c % 4 == 0 and c > 4 and h <= 8:
        return Value(b.op("DepthToSpace", [x.name], blocksize=2, mode=mode), (n, c // 4, 2 * h, 2 * w))
    if h % 2 == 0 and w % 2 == 0 and c <= 6:
        return Value(b.op("SpaceToDepth", [x.name], blocksize=2), (n, 4 * c, h // 2, w // 2))
    return None


def pool(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h < 2 or w < 2:
        return None
    kind = "MaxPool" if b.chance(0.5) else "AveragePool"
    if b.chance(0.5):
        return Value(b.op(kind, [x.name], kernel_shape=[3, 3], pads=[1] * 4), x.shape)
    return Value(b.op(kind, [x.name], kernel_shape=[2, 2], strides=[2, 2]), (n, c, h // 2, w // 2))


def resize(b: Builder, x: Value) -> Value | None:
    n, c, h, w = x.shape
    if h > 8:
        return None
    scales = b.put(np.asarray([1, 1, 2, 2], np.float32))
    return Value(
        b.op("Resize", [x.name, "", scales], mode="nearest" if b.chance(0.5) else "linear"), (n, c, 2 * h, 2 * w)
    )


def group_norm(b: Builder, x: Value) -> Value | None:
    """As exporters write it: Reshape, InstanceNormalization over groups, Reshape back."""
    n, c, h, w = x.shape
    groups = next((g for g in (2, 3, 4) if c % g == 0 and c > g), 0)
    if not groups or h * w * (c // groups) < 8:
        return None
    y = b.reshape(x.name, x.name, (groups, c // groups * h * w))
    y = b.op("InstanceNormalization", [y, b.positive(groups), b.weight(groups)])
    y = b.reshape(y, x.name, (c, h, w))
    return Value(b.op("Mul", [y, b.weight(c, 1, 1)]), x.shape)


def tile(b: Builder, x: Value) -> Value | None:
    if x.width > 8 or len(x.shape) != 4:
        return None
    n, c, h, w = x.shape
    return Value(b.op("Tile", [x.name, b.ints(1, 2, 1, 1)]), (n, 2 * c, h, w))


def viewed(b: Builder, x: Value) -> Value | None:
    """Flatten the places with every size asked of the tensor, then back: all dims follow by themselves."""
    n, c, h, w = x.shape
    sizes = [sized(b, x.name, axis) for axis in range(4)]
    y = b.op("Reshape", [x.name, b.op("Concat", [sizes[0], sizes[1], b.ints(-1)], axis=0)])
    y = b.op("Softmax" if b.chance(0.4) else "Relu", [y])
    return Value(b.op("Reshape", [y, b.op("Concat", sizes, axis=0)]), x.shape)


def shuffled_by_size(b: Builder, x: Value) -> Value | None:
    """Channel shuffle whose channels per group are computed."""
    n, c, h, w = x.shape
    if c % 2 or c < 4:
        return None
    sizes = [sized(b, x.name, axis) for axis in range(4)]
    per = b.op("Div", [sizes[1], b.ints(2)])
    y = b.op("Reshape", [x.name, b.op("Concat", [sizes[0], b.ints(2), per, sizes[2], sizes[3]], axis=0)])
    y = b.op("Transpose", [y], perm=[0, 2, 1, 3, 4])
    return Value(b.op("Reshape", [y, b.op("Concat", [sizes[0], b.ints(-1), sizes[2], sizes[3]], axis=0)]), x.shape)


def resized_to(b: Builder, x: Value) -> Value | None:
    """Resize to sizes of which some come from Shape (the batch and the channels), some are literals."""
    n, c, h, w = x.shape
    if h > 8:
        return None
    head = [sized(b, x.name, 0), sized(b, x.name, 1)]
    sizes = b.op("Concat", [*head, b.ints(2 * h, 2 * w)], axis=0)
    return Value(b.op("Resize", [x.name, "", "", sizes], mode="nearest"), (n, c, 2 * h, 2 * w))


def channels_last(b: Builder, x: Value) -> Value | None:
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


def places(b: Builder, x: Value) -> Value | None:
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


def option_a(b: Builder, x: Value) -> Value | None:
    """A shortcut without weights: every second place, and channels of zeros around."""
    n, c, h, w = x.shape
    if h < 2 or w < 2 or c > 12:
        return None
    y = b.op("Slice", [x.name, b.ints(0, 0), b.ints(h, w), b.ints(2, 3), b.ints(2, 2)])
    y = b.op("Pad", [y, b.ints(0, c // 2, 0, 0, 0, c // 2, 0, 0)])
    out, size = c + 2 * (c // 2), (-(-h // 2), -(-w // 2))
    z = b.op("Conv", [x.name, b.weight(out, c, 3, 3, fan=9 * c)], pads=[1] * 4, strides=[2, 2])
    return Value(b.op("Add", [y, z]), (n, out, *size))


def modulated(b: Builder, x: Value) -> Value | None:
    """A convolution whose weight is scaled by what the batch looks like."""
    n, c, h, w = x.shape
    out, size = b.pick(4, 6, 8), b.pick(1, 3)
    style = b.op("Sigmoid", [b.op("ReduceMean", [x.name, b.ints(0, 2, 3)], keepdims=1)])
    kernel = b.op("Mul", [b.weight(out, c, size, size, fan=c * size * size), style])
    if b.chance(0.3):
        squares = b.op("ReduceSum", [b.op("Mul", [kernel, kernel]), b.ints(1, 2, 3)], keepdims=1)
        kernel = b.op("Div", [kernel, b.op("Sqrt", [b.op("Add", [squares, b.put(np.asarray(1.0, np.float32))])])])
    return Value(b.op("Conv", [x.name, kernel], pads=[size // 2] * 4), (n, out, h, w))
