"""Pooling over spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, standard
from onnxprune.tuning.operators.space import padded, pads_of, window

LARGEST: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _kernel(call: Call) -> list[int]:
    kernel = call.integers("kernel_shape")
    if kernel is None or len(kernel) not in LARGEST:
        raise Unsupported("a pool over more than three axes")
    return kernel


def _pads(call: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Pads per axis: (before, stated after, after up to the end of the last window)."""
    strides, dilations = window(call, len(kernel))
    space = call.x.shape[2:]
    before, after = pads_of(call, space, kernel)
    reach = []
    for n, b, a, k, s, d in zip(space, before, after, kernel, strides, dilations, strict=True):
        free = n + b + a - ((k - 1) * d + 1)
        last = -(-free // s) if call.integer("ceil_mode", 0) else free // s
        # Leave out a window that would begin in the padding after the input.
        last -= 1 if call.integer("ceil_mode", 0) and last * s >= n + b else 0
        reach.append(last * s + (k - 1) * d + 1 - n - b)
    return before, after, reach


def _largest(call: Call) -> tuple[Tensor, Tensor | None]:
    kernel = _kernel(call)
    strides, dilations = window(call, len(kernel))
    before, _, reach = _pads(call, kernel)
    pool = LARGEST[len(kernel)]
    x = call.x if call.x.is_floating_point() else call.x.float()
    if before == [max(r, 0) for r in reach] and all(2 * b <= k for b, k in zip(before, kernel, strict=True)):
        y = pool(x, kernel, strides, before, dilations, return_indices=call.outputs > 1)
    elif call.outputs > 1:
        raise Unsupported("places, with pads that are not the same on both sides")
    else:
        y = pool(padded(x, before, reach, -math.inf), kernel, strides, 0, dilations)
    if call.outputs == 1:
        return y.to(call.x.dtype), None
    if call.integer("storage_order", 0):
        raise Unsupported("places in column order")
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(kernel))
    return y[0].to(call.x.dtype), y[1] + planes * math.prod(x.shape[2:])


def _summed(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Sums over windows inside ``x``."""
    if all(d == 1 for d in dilations):
        return MEAN[len(kernel)](x, kernel, strides) * math.prod(kernel)
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        count = (x.shape[axis] - (k - 1) * d - 1) // s + 1
        places = torch.arange(count, device=x.device) * s
        x = torch.stack([x.index_select(axis, places + i * d) for i in range(k)]).sum(0)
    return x


def _mean(call: Call) -> Tensor:
    kernel = _kernel(call)
    strides, dilations = window(call, len(kernel))
    before, after, reach = _pads(call, kernel)
    if not any(before) and max(reach) <= 0 and all(d == 1 for d in dilations):
        return MEAN[len(kernel)](call.x, kernel, strides)
    sums = _summed(padded(call.x, before, reach), kernel, strides, dilations)
    ones = torch.ones_like(call.x[:1, :1])
    if call.integer("count_include_pad", 0):
        # Positions that only complete the last window do not count as padding.
        counted = [min(a, r) for a, r in zip(after, reach, strict=True)]
        ones = padded(
            padded(ones, before, counted, 1.0), [0] * len(kernel), [r - c for r, c in zip(reach, counted, strict=True)]
        )
    else:
        ones = padded(ones, before, reach)
    return sums / _summed(ones, kernel, strides, dilations)


def _norm(call: Call) -> Tensor:
    kernel = _kernel(call)
    strides, dilations = window(call, len(kernel))
    before, _, reach = _pads(call, kernel)
    order = call.integer("p", 2)
    return _summed(padded(call.x.abs().pow(order), before, reach), kernel, strides, dilations).pow(1 / order)


def _space(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def _masked(call: Call) -> Tensor:
    """The input counts as the smallest number where the mask is zero."""
    hidden = torch.where(call.need(1) == 0, torch.finfo(call.x.dtype).min, call.x)
    return _largest(Call(call.op, call.opset, (hidden,), call.attributes))[0]


def _channels_last(call: Call) -> Tensor:
    x = call.x.movedim(-1, 1)
    return _largest(Call(call.op, call.opset, (x,), call.attributes))[0].movedim(1, -1)


TABLE: OperatorTable = {
    **standard(
        {
            "MaxPool": Entry(_largest),
            "AveragePool": Entry(_mean),
            "LpPool": Entry(_norm),
            "GlobalAveragePool": Entry(lambda call: call.x.mean(_space(call.x), keepdim=True)),
            "GlobalMaxPool": Entry(lambda call: call.x.amax(_space(call.x), keepdim=True)),
        }
    ),
    ("com.microsoft", "MaxpoolWithMask"): Entry(_masked),
    ("com.microsoft", "NhwcMaxPool"): Entry(_channels_last),
}
