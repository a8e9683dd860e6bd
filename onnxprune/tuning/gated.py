"""Joins a gate with the product of the gate and its own input, x·g(x), into one step during training.

The function stays the same, and so do its gradients.  torch's joint functions read and write the activations a third as
often as a gate, a product and the sum of two gradients.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch.nn.functional as F

from onnxprune.tuning.operators.call import Entry, plain
from onnxprune.tuning.program import STANDARD, Step

SILU, HARD_SWISH = plain(F.silu), plain(F.hardswish)


def gated(steps: Sequence[Step], wanted: Collection[str]) -> tuple[Step, ...]:
    """``steps`` with each x·g(x) as one step, unless something else reads the gate g(x)."""
    uses = Counter(value for step in steps for value in step.reads())
    gates = {step.outputs[0]: step for step in steps if _joint(step) is not None}
    products = {}
    for step in steps:
        gate = _gate_of(step, gates)
        if gate is not None and uses[gate.outputs[0] or ""] == 1 and gate.outputs[0] not in wanted:
            products[step] = gate
    gone = set(products.values())
    return tuple(_one(products[step], step) if step in products else step for step in steps if step not in gone)


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


def _gate_of(step: Step, gates: dict[str | None, Step]) -> Step | None:
    """The gate that ``step`` multiplies with its own input."""
    if step.node.op != "Mul" or step.node.domain not in STANDARD or len(step.inputs) != 2:
        return None
    for one, other in (step.inputs, step.inputs[::-1]):
        if one in gates and gates[one].inputs[0] == other:
            return gates[one]
    return None


def _one(gate: Step, product: Step) -> Step:
    entry = _joint(gate)
    assert entry is not None
    return Step(replace(product.node, inputs=gate.inputs[:1]), entry, {}, product.opset, {})
