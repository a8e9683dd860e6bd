"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, positive_axis, standard


def _over(function: Callable[[Tensor, list[int], bool], Tensor]) -> Entry:
    def run(call: Call) -> Tensor:
        axes = call.listed(1, "axes")
        if not axes and call.integer("noop_with_empty_axes", 0):
            return function(call.x.unsqueeze(0), [0], False)
        axes = [a % max(call.x.dim(), 1) for a in axes] if axes else list(range(call.x.dim()))
        if not axes:
            return function(call.x.unsqueeze(0), [0], False)
        if not call.x.numel():
            raise Unsupported("nothing to reduce")
        return function(call.x, axes, bool(call.integer("keepdims", 1)))

    return Entry(run, host=(1,))


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keep)
    return torch.div(
        x.sum(axes, keep),
        x.sum(axes, keep).new_tensor(x.numel() // max(x.sum(axes, keep).numel(), 1)),
        rounding_mode="trunc",
    ).to(x.dtype)


def _best(call: Call, largest: bool) -> Tensor:
    axis, keep = positive_axis(call.integer("axis", 0), call.x.dim()), bool(call.integer("keepdims", 1))
    pick = torch.argmax if largest else torch.argmin
    if not call.integer("select_last_index", 0):
        return pick(call.x, axis, keepdim=keep)
    return call.x.shape[axis] - 1 - pick(call.x.flip(axis), axis, keepdim=keep)


def _running(call: Call, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    axis = int(call.need(1)) % call.x.dim()
    x = call.x.flip(axis) if call.integer("reverse", 0) else call.x
    y = function(x, axis)
    if call.integer("exclusive", 0):
        first = (
            torch.zeros_like(y.narrow(axis, 0, 1))
            if function is torch.cumsum
            else torch.ones_like(y.narrow(axis, 0, 1))
        )
        y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return (y.flip(axis) if call.integer("reverse", 0) else y).to(call.x.dtype)


TABLE: OperatorTable = standard(
    {
        "ReduceSum": _over(lambda x, axes, keep: x.sum(axes, keep).to(x.dtype)),
        "ReduceMean": _over(_mean),
        "ReduceMax": _over(lambda x, axes, keep: x.amax(axes, keep)),
        "ReduceMin": _over(lambda x, axes, keep: x.amin(axes, keep)),
        "ReduceProd": _over(lambda x, axes, keep: _product(x, axes, keep).to(x.dtype)),
        "ReduceL1": _over(lambda x, axes, keep: x.abs().sum(axes, keep).to(x.dtype)),
        "ReduceL2": _over(lambda x, axes, keep: x.pow(2).sum(axes, keep).sqrt().to(x.dtype)),
        "ReduceSumSquare": _over(lambda x, axes, keep: x.pow(2).sum(axes, keep).to(x.dtype)),
        "ReduceLogSum": _over(lambda x, axes, keep: x.sum(axes, keep).log()),
        "ReduceLogSumExp": _over(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
        "ArgMax": Entry(lambda call: _best(call, True), chooses=True),
        "ArgMin": Entry(lambda call: _best(call, False), chooses=True),
        "CumSum": Entry(lambda call: _running(call, torch.cumsum), host=(1,)),
        "CumProd": Entry(lambda call: _running(call, torch.cumprod), host=(1,)),
    }
)
