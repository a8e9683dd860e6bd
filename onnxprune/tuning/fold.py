"""Folds batch normalizations with stored statistics into the convolution before them, during training.

The function of the weights stays the same, and so do all gradients: scale and bias remain parameters of their own.  This
saves one pass over the activations forward, two backward, and the memory of a second copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from onnxprune.tuning.fuse import fused
from onnxprune.tuning.operators.call import Call, Entry
from onnxprune.tuning.program import STANDARD, Step


def folded(steps: Sequence[Step], wanted: Collection[str]) -> tuple[Step, ...]:
    """``steps`` with each BatchNormalization folded into the Conv before it, unless something else reads the value in between."""
    return fused(steps, wanted, _convolution, _both)


def _convolution(step: Step, makers: Mapping[str, Step]) -> Step | None:
    """The convolution that ``step`` normalizes."""
    before = makers.get(step.inputs[0] or "") if _is(step, "BatchNormalization") and _by_stored(step) else None
    return before if before is not None and _is(before, "Conv") else None


def _is(step: Step, op: str) -> bool:
    return step.node.op == op and step.node.domain in STANDARD and step.entry is not None


def _by_stored(step: Step) -> bool:
    return (
        not step.attributes.get("training_mode", 0)
        and step.attributes.get("spatial", 1) == 1
        and sum(out is not None for out in step.outputs) == 1
    )


def _both(convolution: Step, norm: Step) -> tuple[Step, Step]:
    """One step that scales the weights, and the convolution with them.  Nothing trained: the first runs once."""
    weight, bias = (f"{norm.outputs[0]}/scaled {name}" for name in ("weight", "bias"))
    inputs = (*convolution.inputs, None)[:3]
    scaling = replace(norm.node, inputs=(*inputs[1:], *norm.inputs[1:5]), outputs=(weight, bias))
    epsilon = Call(norm.node.op, norm.opset, (), norm.attributes).number("epsilon", 1e-5)
    scale = Step(scaling, Entry(lambda call: _scaled(call, epsilon), stored=(4, 5)), {}, norm.opset, {})
    node = replace(convolution.node, inputs=(inputs[0], weight, bias), outputs=norm.outputs[:1])
    return scale, replace(convolution, node=node)


def _scaled(call: Call, epsilon: float) -> tuple[Tensor, Tensor]:
    weight, bias = call.need(0), call.get(1)
    scale, shift, mean, variance = (call.need(slot) for slot in range(2, 6))
    factor = scale * torch.rsqrt(variance + epsilon)
    centre = mean if bias is None else mean - bias
    return weight * factor.reshape(-1, *[1] * (weight.dim() - 1)), shift - centre * factor
