"""Mixed precision: training computes hidden layers in bfloat16 where the CPU multiplies it in hardware.

Weights, their gradients, their averages, the loss and every evaluation stay in float32 (Micikevicius et al., arXiv
1710.03740; Kalamkar et al., arXiv 1905.12322).
"""

from __future__ import annotations

from dataclasses import replace

import onnx
import torch

from onnxprune.errors import ModelError
from onnxprune.tuning.function import Function, Values
from onnxprune.tuning.narrow import layer_weights, multiplies_bfloat16, narrowed
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.original import by_torch, torch_function
from onnxprune.tuning.pair import Feeds, ModelPair, samples_in

#: Rounding may change the loss of a sample by this share, on average.
ROUNDED = 0.05
#: Convolutions make at least this share of the numbers, and a step makes so many on average.  A detector makes a quarter
#: of its numbers with convolutions, residual networks a third; their training steps take 0.5 to 0.75 of the time.  A
#: network of attention makes 1 %: torch's other functions are slower in bfloat16, so a small one takes as long as in
#: float32, and with 5,000 numbers per step twice as long.
CONVOLVED, NUMBERS = 0.2, 50_000


def mixed(both: ModelPair, original: onnx.ModelProto, feeds: Feeds) -> ModelPair:
    """``both`` with mixed precision in training, for each of its models that this hardly changes on ``feeds``.

    Cost: a few passes of both models over ``feeds``, and the memory of one training step on them.
    """
    function = both.function
    if function.device.type != "cpu" or not multiplies_bfloat16():
        return both
    given, count = both.given_of(feeds), samples_in(feeds)
    if not _pays(function, given):
        return both
    with torch.no_grad():
        wanted, exact = both.original(feeds), function(given)
        losses = both.apart(exact, wanted, count)

    def alike(tuned: Values, original: Values) -> bool:
        return bool((both.apart(tuned, original, count) - losses).abs().mean() <= ROUNDED * losses.mean())

    layers = layer_weights(function)
    narrow = narrowed(function, layers)
    values = _computed(narrow, given)
    if values is not None and alike(values, wanted):
        both = replace(both, trained=narrow)
    theirs = torch_function(original, tuple(wanted), function.device)
    if theirs is not None:
        theirs = narrowed(theirs, layers)
        values = _computed(theirs, {name: to_torch(array) for name, array in feeds.items()})
        if values is not None and alike(exact, values):
            both = replace(both, original=by_torch(theirs))
    return both


def _pays(function: Function, given: Values) -> bool:
    """Whether mixed precision makes a step on ``given`` faster.

    Not if convolutions have groups: these are bound by memory, and conversions cost what the others gain.
    """
    if any(step.attributes.get("group", 1) != 1 for step in function.steps):
        return False
    numbers = function.numbers(given)
    convolved = sum(n for n, step in zip(numbers, function.steps, strict=True) if step.node.op == "Conv")
    return convolved >= CONVOLVED * sum(numbers) and sum(numbers) >= NUMBERS * len(numbers)


def _computed(function: Function, given: Values) -> Values | None:
    """The values of ``function``; ``None`` if torch has no bfloat16 form of an operator or of its gradient."""
    try:
        values = function(given)
        wanted = [value for value in values.values() if value.requires_grad]
        if wanted:
            weights = list(function.parameters.values())
            torch.autograd.grad([value.sum() for value in wanted], weights, allow_unused=True)
    except (ModelError, RuntimeError):
        return None
    return {name: value.detach() for name, value in values.items()}
