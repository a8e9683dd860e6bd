"""Rounding to integers and back, in float arithmetic; gradients pass straight through the rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, rounded, standard
from onnxprune.tuning.operators.convolution import convolve
from onnxprune.tuning.operators.types import torch_type


def _spread(value: Tensor, x: Tensor, call: Call) -> Tensor:
    """A scale or zero point (one, one per channel, or one per block), reshaped to broadcast with ``x``."""
    axis = call.integer("axis", 1) % max(x.dim(), 1)
    block = call.integer("block_size", 0)
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape([-1 if k == axis else 1 for k in range(x.dim())])


def _limits(kind: torch.dtype) -> tuple[int, int]:
    if kind.is_floating_point:
        raise Unsupported("rounding to floats")
    info = torch.iinfo(kind)
    return int(info.min), int(info.max)


def _quantize(call: Call) -> Tensor:
    """Integers of the zero point's type, kept as floats if a gradient must pass."""
    x, scale, point = call.x, call.need(1), call.get(2)
    if call.integer("output_dtype", 0):
        kind = torch_type(call.integer("output_dtype", 0))
    else:
        kind = torch.uint8 if point is None else point.dtype
    low, high = _limits(kind)
    y = rounded(x / _spread(scale, x, call))
    y = y if point is None else y + _spread(point, x, call).to(y.dtype)
    y = y.clamp(low, high)
    return y if y.requires_grad else y.to(kind)


def _dequantize(call: Call) -> Tensor:
    x, scale, point = call.x, call.need(1), call.get(2)
    y = x.to(scale.dtype)
    y = y if point is None else y - _spread(point, x, call).to(y.dtype)
    return y * _spread(scale, x, call)


def _dynamic(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    low, high = call.x.min().clamp(max=0), call.x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale).detach()
    point = torch.round(-low / scale).clamp(0, 255).detach()
    y = (rounded(call.x / scale) + point).clamp(0, 255)
    return (y if y.requires_grad else y.to(torch.uint8)), scale, point.to(torch.uint8)


def _integer_conv(call: Call) -> Tensor:
    x, weight = call.need(0).double(), call.need(1).double()
    for slot in (2, 3):
        point = call.get(slot)
        if point is None:
            continue
        if slot == 2:
            x = x - point.double()
        else:
            weight = weight - point.double().reshape(-1, *[1] * (weight.dim() - 1))
    return convolve(call, x, weight, None).to(torch.int32)


_Q, _D = Entry(_quantize, rounds=True), Entry(_dequantize)
TABLE: OperatorTable = {
    **standard(
        {
            "QuantizeLinear": _Q,
            "DequantizeLinear": _D,
            "DynamicQuantizeLinear": Entry(_dynamic, rounds=True),
            "ConvInteger": Entry(_integer_conv),
        }
    ),
    ("com.microsoft", "QuantizeLinear"): _Q,
    ("com.microsoft", "DequantizeLinear"): _D,
}
