"""Softmax, and normalizations by stored statistics or by statistics of the sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, positive_axis, standard
from onnxprune.tuning.parameters import STATISTICS


def _batch_norm(call: Call) -> Tensor | tuple[Tensor, ...]:
    if call.integer("training_mode", 0):
        return _batch_norm_of_batch(call)
    if call.integer("spatial", 1) != 1:
        raise Unsupported("statistics per position")
    scale, bias, mean, variance = (call.need(slot) for slot in (1, 2, 3, 4))
    return F.batch_norm(call.x, mean, variance, scale, bias, False, 0.0, call.number("epsilon", 1e-5))


def _batch_norm_of_batch(call: Call) -> tuple[Tensor, ...]:
    """Normalization by the statistics of the batch.  Also returns running statistics, with the population variance (ONNX)."""
    x, momentum = call.x, call.number("momentum", 0.9)
    scale, bias, running_mean, running_variance = (call.need(slot) for slot in (1, 2, 3, 4))
    axes = (0, *range(2, x.dim()))
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean, variance = x.mean(axes), x.var(axes, correction=0)
    apart = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + call.number("epsilon", 1e-5))
    out = apart * scale.view(shape) + bias.view(shape)
    old = (running_mean, running_variance)
    return out, *(a * momentum + b * (1 - momentum) for a, b in zip(old, (mean, variance), strict=True))


def _instance_norm(call: Call) -> Tensor:
    return F.instance_norm(call.x, weight=call.need(1), bias=call.need(2), eps=call.number("epsilon", 1e-5))


def _normalized(x: Tensor, axes: Sequence[int], epsilon: float, centred: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(normalized, mean, 1 / standard deviation)."""
    mean = x.mean(tuple(axes), keepdim=True)
    apart = x - mean if centred else x
    inverse = torch.rsqrt(apart.pow(2).mean(tuple(axes), keepdim=True) + epsilon)
    return apart * inverse, mean, inverse


def _layer_norm(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    first = positive_axis(call.integer("axis", -1), call.x.dim())
    y, mean, inverse = _normalized(call.x, range(first, call.x.dim()), call.number("epsilon", 1e-5), True)
    bias = call.get(2)
    y = y * call.need(1)
    return y if bias is None else y + bias, mean, inverse


def _rms_norm(call: Call) -> tuple[Tensor, Tensor]:
    first = positive_axis(call.integer("axis", -1), call.x.dim())
    y, _, inverse = _normalized(call.x, range(first, call.x.dim()), call.number("epsilon", 1e-5), False)
    return y * call.need(1), inverse


def _group_norm(call: Call) -> Tensor:
    x, scale, bias = call.x, call.need(1), call.need(2)
    groups, channels = call.integer("num_groups", 1), call.x.shape[1]
    if scale.numel() == groups != channels:
        # Opset 18 has one scale per group.
        scale, bias = (v.repeat_interleave(channels // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, call.number("epsilon", 1e-5))


def _local_response(call: Call) -> Tensor:
    size, x = call.integer("size", 1), call.x
    before = (size - 1) // 2
    squares = F.pad(x.pow(2).flatten(2).unsqueeze(1), (0, 0, before, size - 1 - before))
    sums = squares.unfold(2, size, 1).sum(-1).squeeze(1).reshape(x.shape)
    alpha, beta = call.number("alpha", 1e-4), call.number("beta", 0.75)
    return x / (call.number("bias", 1.0) + alpha / size * sums).pow(beta)


def _mean_variance(call: Call) -> Tensor:
    axes = call.integers("axes") or [0, 2, 3]
    apart = call.x - call.x.mean(axes, keepdim=True)
    return apart / (apart.pow(2).mean(axes, keepdim=True).sqrt() + 1e-9)


def _unit_length(call: Call) -> Tensor:
    order, axis = call.integer("p", 2), call.integer("axis", -1)
    size = call.x.abs().sum(axis, keepdim=True) if order == 1 else call.x.pow(2).sum(axis, keepdim=True).sqrt()
    return torch.where(size == 0, torch.zeros_like(call.x), call.x / size)


def _along(call: Call, log: bool) -> Tensor:
    """Softmax along an axis; before opset 13, over all axes from ``axis`` on together."""
    function = torch.log_softmax if log else torch.softmax
    if call.opset >= 13:
        return function(call.x, call.integer("axis", -1))
    axis = positive_axis(call.integer("axis", 1), call.x.dim())
    return function(call.x.flatten(axis), -1).reshape(call.x.shape)


def _hardmax(call: Call) -> Tensor:
    axis = call.integer("axis", -1 if call.opset >= 13 else 1) % call.x.dim()
    rows = call.x.movedim(axis, -1) if call.opset >= 13 else call.x.flatten(axis)
    picked = F.one_hot(rows.argmax(-1), rows.shape[-1]).to(call.x.dtype)
    return picked.movedim(-1, axis) if call.opset >= 13 else picked.reshape(call.x.shape)


def _skip(call: Call, centred: bool, slots: tuple[int | None, int]) -> tuple[Tensor | None, ...]:
    """Normalizes the sum of two branches (and a bias): (normalized, mean, 1 / standard deviation, the sum)."""
    beta, bias = (None if slot is None else call.get(slot) for slot in slots)
    total = call.x + call.need(1)
    total = total if bias is None else total + bias
    y, mean, inverse = _normalized(total, [total.dim() - 1], call.number("epsilon", 1e-12), centred)
    y = y * call.need(2)
    return (y if beta is None else y + beta), mean, inverse, total


def _embeddings(call: Call) -> tuple[Tensor, Tensor | None]:
    ids, segments = call.x.long(), call.get(1)
    places, mask = call.get(8), call.get(7)
    if mask is not None:
        raise Unsupported("a mask")
    where = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape) if places is None else places.long()
    total = call.need(2)[ids] + call.need(3)[where]
    if segments is not None:
        total = total + call.need(4)[segments.long()]
    y, _, _ = _normalized(total, [2], call.number("epsilon", 1e-12), True)
    return y * call.need(5) + call.need(6), torch.zeros(ids.shape[0], dtype=torch.int32)


_SIMPLE = Entry(_rms_norm)
TABLE: OperatorTable = {
    **standard(
        {
            "BatchNormalization": Entry(_batch_norm, stored=STATISTICS["BatchNormalization"]),
            "InstanceNormalization": Entry(_instance_norm),
            "LayerNormalization": Entry(_layer_norm),
            "RMSNormalization": _SIMPLE,
            "SimplifiedLayerNormalization": _SIMPLE,
            "GroupNormalization": Entry(_group_norm),
            "LRN": Entry(_local_response),
            "MeanVarianceNormalization": Entry(_mean_variance),
            "LpNormalization": Entry(_unit_length),
            "Softmax": Entry(lambda call: _along(call, False)),
            "LogSoftmax": Entry(lambda call: _along(call, True)),
            "Hardmax": Entry(_hardmax, chooses=True),
        }
    ),
    ("com.microsoft", "LayerNormalization"): Entry(_layer_norm),
    ("com.microsoft", "SimplifiedLayerNormalization"): _SIMPLE,
    ("com.microsoft", "SkipLayerNormalization"): Entry(lambda call: _skip(call, True, (3, 4))),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): Entry(lambda call: _skip(call, False, (None, 3))),
    ("com.microsoft", "EmbedLayerNormalization"): Entry(_embeddings),
}
