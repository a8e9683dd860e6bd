"""Joins a gate with the product of the gate and its own input, x·g(x), into one step during training.

The function stays the same, and so do its gradients.  torch's joint functions read and write the activations a third as
often as a gate, a product and the sum of two gradients.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch.nn.functional as F

from onnxprune.tuning.fuse import fused
from onnxprune.tuning.operators.call import Entry, plain
from onnxprune.tuning.program import STANDARD, Step

SILU, HARD_SWISH = plain(F.silu), plain(F.hardswish)


def gated(steps: Sequence[Step], wanted: Collection[str]) -> tuple[Step, ...]:
    """``steps`` with each x·g(x) as one step, unless something else reads the gate g(x)."""
    return fused(steps, wanted, _gate, _one)


def _joint(step: Step) -> Entry | None:
    """The entry of x·g(x) if ``step`` is a gate g."""
    if step.node.domain not in STANDARD or step.entry is None:
        return None
    if step.node.op == "Sigmoid":
        return SILU
    if step.node.op == "HardSigmoid":
        slope, middle = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
        assert isinstance(slope, float) and isinstance(middle, float)
        return HARD_SWISH if math.isclose(slope, 1 / 6, rel_tol=1e-6) and middle == 0.5 else None
    return None


def _gate(step: Step, makers: Mapping[str, Step]) -> Step | None:
    """The gate that ``step`` multiplies with its own input."""
    if step.node.op != "Mul" or step.node.domain not in STANDARD or len(step.inputs) != 2:
        return None
    for one, other in (step.inputs, step.inputs[::-1]):
        gate = makers.get(one or "")
        if gate is not None and _joint(gate) is not None and gate.inputs[0] == other:
            return gate
    return None


def _one(gate: Step, product: Step) -> tuple[Step]:
    entry = _joint(gate)
    assert entry is not None
    return (Step(replace(product.node, inputs=gate.inputs[:1]), entry, {}, product.opset, {}),)
