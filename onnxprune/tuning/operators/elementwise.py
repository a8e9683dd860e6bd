"""Arithmetic, comparisons and activations: one value in, one value out, broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, plain, rounded, standard


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Entry:
    return Entry(lambda call: function(call.need(0), call.need(1)))


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Entry:
    return Entry(lambda call: reduce(function, [x for x in call.inputs if x is not None]))


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(call: Call) -> Tensor:
    a, b = call.need(0), call.need(1)
    return torch.fmod(a, b) if call.integer("fmod", 0) else torch.remainder(a, b)


def _pow(a: Tensor, b: Tensor) -> Tensor:
    b = b.detach()
    if b.numel() == 1:
        # An exponent as a number: torch then takes no logarithm of a negative base.
        return torch.pow(a, b.item()).to(a.dtype).broadcast_to(torch.broadcast_shapes(a.shape, b.shape))
    return torch.pow(a, b.to(a.dtype) if a.is_floating_point() else b).to(a.dtype)


def _mean(call: Call) -> Tensor:
    given = [x for x in call.inputs if x is not None]
    return reduce(torch.add, given) / len(given)


def _clip(call: Call) -> Tensor:
    bounds = []
    for slot, name in ((1, "min"), (2, "max")):
        stated = call.attributes.get(name)
        bounds.append(call.get(slot) if stated is None else torch.tensor(call.number(name, 0.0)))
    if all(bound is None for bound in bounds):
        return call.x
    if call.x.is_floating_point() and not any(b is not None and b.requires_grad for b in bounds):
        low, high = (None if b is None else float(b) for b in bounds)
        return between(call.x, -math.inf if low is None else low, math.inf if high is None else high)
    return torch.clamp(call.x, *bounds)


def between(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` clipped to low ... high; to ``high`` if low is greater.  The gradient is zero at the bounds.

    The gradient of torch.clamp takes three times as long.
    """
    return F.hardtanh(x, low, high) if low < high else torch.clamp(x, low, high)


def _hard_sigmoid(call: Call) -> Tensor:
    return between(call.x * call.number("alpha", 0.2) + call.number("beta", 0.5), 0.0, 1.0)


def _gelu(x: Tensor, approximate: str) -> Tensor:
    return F.gelu(x, approximate=approximate)


def _isinf(call: Call) -> Tensor:
    infinite = torch.zeros_like(call.x, dtype=torch.bool)
    if call.integer("detect_negative", 1):
        infinite = infinite | (call.x == -math.inf)
    return infinite | (call.x == math.inf) if call.integer("detect_positive", 1) else infinite


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def _shrink(call: Call) -> Tensor:
    bias, limit = call.number("bias", 0.0), call.number("lambd", 0.5)
    zero = torch.zeros_like(call.x)
    return torch.where(call.x < -limit, call.x + bias, torch.where(call.x > limit, call.x - bias, zero))


def _selu(call: Call) -> Tensor:
    alpha, gamma = call.number("alpha", 1.67326319217681884765625), call.number("gamma", 1.05070102214813232421875)
    return gamma * torch.where(call.x > 0, call.x, alpha * torch.expm1(call.x.clamp(max=0)))


def _bit_shift(call: Call) -> Tensor:
    left = call.text("direction", "LEFT") == "LEFT"
    return (torch.bitwise_left_shift if left else torch.bitwise_right_shift)(call.need(0), call.need(1))


def _swiglu(call: Call) -> Tensor:
    return call.x * torch.sigmoid(call.number("alpha", 1.0) * call.x) * call.need(1)


def _bias_gelu(approximate: str) -> Callable[[Call], Tensor]:
    def run(call: Call) -> Tensor:
        bias = call.get(1)
        return _gelu(call.x if bias is None else call.x + bias, approximate)

    return run


def _quick_gelu(call: Call) -> Tensor:
    return call.x * torch.sigmoid(call.number("alpha", 1.702) * call.x)


def _bias_split_gelu(call: Call) -> Tensor:
    left, right = (call.x + call.need(1)).chunk(2, -1)
    return left * F.gelu(right)


def _dropout(call: Call) -> tuple[Tensor, Tensor]:
    return call.x, torch.ones_like(call.x, dtype=torch.bool)


ARITHMETIC = {
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _two(_div),
    "Pow": Entry(lambda call: _pow(call.need(0), call.need(1)), stored=(1,)),
    "Mod": Entry(_mod),
    "Sum": _many(torch.add),
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Mean": Entry(_mean),
    "Neg": plain(torch.neg),
    "Abs": plain(torch.abs),
    "Sqrt": plain(torch.sqrt),
    "Exp": plain(torch.exp),
    "Log": plain(torch.log),
    "Reciprocal": plain(torch.reciprocal),
    "Erf": plain(torch.erf),
    "Sign": plain(torch.sign),
    "Floor": plain(torch.floor),
    "Ceil": plain(torch.ceil),
    "Round": Entry(lambda call: rounded(call.x), rounds=True),
    "Where": Entry(lambda call: torch.where(call.need(0), call.need(1), call.need(2))),
    "Clip": Entry(_clip),
    "Sin": plain(torch.sin),
    "Cos": plain(torch.cos),
    "Tan": plain(torch.tan),
    "Asin": plain(torch.asin),
    "Acos": plain(torch.acos),
    "Atan": plain(torch.atan),
    "Sinh": plain(torch.sinh),
    "Cosh": plain(torch.cosh),
    "Asinh": plain(torch.asinh),
    "Acosh": plain(torch.acosh),
    "Atanh": plain(torch.atanh),
}

COMPARISONS = {
    "Equal": _two(torch.eq),
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "Less": _two(torch.lt),
    "LessOrEqual": _two(torch.le),
    "And": _two(torch.logical_and),
    "Or": _two(torch.logical_or),
    "Xor": _two(torch.logical_xor),
    "Not": plain(torch.logical_not),
    "IsNaN": plain(torch.isnan),
    "IsInf": Entry(_isinf),
    "BitwiseAnd": _two(torch.bitwise_and),
    "BitwiseOr": _two(torch.bitwise_or),
    "BitwiseXor": _two(torch.bitwise_xor),
    "BitShift": Entry(_bit_shift),
}

ACTIVATIONS = {
    "Relu": plain(torch.relu),
    "Sigmoid": plain(torch.sigmoid),
    "Tanh": plain(torch.tanh),
    "Softplus": Entry(lambda call: F.softplus(call.x)),
    "Softsign": plain(F.softsign),
    "HardSwish": plain(F.hardswish),
    "HardSigmoid": Entry(_hard_sigmoid),
    "LeakyRelu": Entry(lambda call: F.leaky_relu(call.x, call.number("alpha", 0.01))),
    "ThresholdedRelu": Entry(lambda c: torch.where(c.x > c.number("alpha", 1.0), c.x, torch.zeros_like(c.x))),
    "Elu": Entry(lambda call: F.elu(call.x, call.number("alpha", 1.0))),
    "Celu": Entry(lambda call: F.celu(call.x, call.number("alpha", 1.0))),
    "Selu": Entry(_selu),
    "Gelu": Entry(lambda call: _gelu(call.x, call.text("approximate", "none"))),
    "Mish": Entry(lambda call: F.mish(call.x)),
    "Swish": Entry(lambda call: call.x * torch.sigmoid(call.number("alpha", 1.0) * call.x)),
    "SwiGLU": Entry(_swiglu),
    "Shrink": Entry(_shrink),
    "PRelu": _two(_prelu),
    "Identity": plain(lambda x: x),
    "Dropout": Entry(_dropout),
}

#: Operators that onnxruntime's optimizer writes.
RUNTIME = {
    "Gelu": Entry(_bias_gelu("none")),
    "BiasGelu": Entry(_bias_gelu("none")),
    "FastGelu": Entry(_bias_gelu("tanh")),
    "QuickGelu": Entry(_quick_gelu),
    "BiasSplitGelu": Entry(_bias_split_gelu),
}

TABLE: OperatorTable = {
    **standard({**ARITHMETIC, **COMPARISONS, **ACTIVATIONS}),
    **{("com.microsoft", name): entry for name, entry in RUNTIME.items()},
}
