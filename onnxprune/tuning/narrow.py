"""A function whose hidden steps compute in bfloat16.

The last layers, and all steps after them, compute in float32: an output is compared with the original's as it is, and may
hold pixels beside probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from onnxprune.tuning.function import Function, channels_last
from onnxprune.tuning.levels import Level
from onnxprune.tuning.program import Step


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware.  Emulated, it is slower than float32."""
    # Versions of torch before 2.9 cannot tell.
    told: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(told.get("amx_bf16") or told.get("avx512_bf16"))


def narrowed(function: Function, weights: Collection[str]) -> Function:
    """``function`` with those steps in bfloat16 that lead to a later layer.

    ``weights``: see :func:`layer_weights`.  Products of bfloat16 numbers are summed in float32, and stored with
    a relative error of at most 2⁻⁹.
    """
    levels, steps = function.levels, function.steps
    places = frozenset(
        place
        for place in leading_places(steps, function.given, weights)
        # Shape arithmetic holds positions, which bfloat16 rounds from 257 on.
        if max((levels.of(out) for out in steps[place].outputs), default=Level.FIXED) == Level.DATA
    )
    return replace(function, narrow=places, fixed={**function.fixed, **_stored(function, places)}, _by_shape={})


def _stored(function: Function, places: Collection[int]) -> dict[str, Tensor]:
    """The fixed weights of convolutions in ``places``, rounded once here instead of in every run."""
    kernels: set[str | None] = set()
    others: set[str] = set()
    for place, step in enumerate(function.steps):
        kernel = step.inputs[1] if place in places and step.node.op == "Conv" else None
        kernels.add(kernel)
        others.update(value for value in step.reads() if value != kernel)
    return {
        name: channels_last(value).to(torch.bfloat16)
        for name, value in function.fixed.items()
        if name in kernels - others
    }


def layer_weights(function: Function) -> frozenset[str]:
    """The matrices and kernels among the parameters, and all values that depend only on them and on constants.

    A bias, a scale and a kernel with one output make no layer: with one, a detector counts the bins of its boxes.
    """
    moving = set(function.given)
    made = {name for name, weight in function.parameters.items() if sum(size > 1 for size in weight.shape) > 1}
    for step in function.steps:
        reads = set(step.reads())
        known = moving if reads & moving else made if reads & made else set[str]()
        known.update(out for out in step.outputs if out is not None)
    return frozenset(made)


def leading_places(steps: Sequence[Step], given: Collection[str], weights: Collection[str]) -> frozenset[int]:
    """The places of the steps between the values ``given`` and a later layer: a step that also reads one of ``weights``.

    Steps with bodies are left out.
    """
    moving = set(given)
    for step in steps:
        if moving & set(step.reads()):
            moving.update(out for out in step.outputs if out is not None)
    leading: set[str] = set()
    places = set()
    for place in reversed(range(len(steps))):
        step, reads = steps[place], set(steps[place].reads())
        if not reads & moving:
            continue
        leads = any(out in leading for out in step.outputs)
        if leads and not step.blocks:
            places.add(place)
        if leads or reads & set(weights):
            leading |= reads
    return frozenset(places)
