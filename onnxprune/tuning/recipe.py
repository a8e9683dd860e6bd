"""The recipe: how fast weights move, and which average of them is kept.

A step is relative to the size of the weights (You et al., arXiv 1904.00962; Shazeer and Stern, arXiv
1804.04235): Adam's direction, times the root mean square of the weights that one output sums (Li et al., arXiv
1712.09913, call it filter normalization).  So one rate fits narrow and wide layers, scales near one and small weights,
and channels whose sizes differ because a batch normalization was folded into them.

The mean of the n steps that one output sums is divided by √n.  After a Relu all inputs are positive, so n steps of one
sign would shift the output by n steps, where others change it by √n.  (Gradient centralization removes the mean: Yong et
al., arXiv 2004.01461.  A layer without a bias needs it.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Vectors (scales, biases) move whole channels, so they take this share of a step.
VECTORS = 0.2
#: The rate rises during this share of the run, and during at least so many steps: the first ones follow single batches.
#: At most :data:`RISING` of a short run.
WARM_UP, WARM_STEPS, RISING = 0.05, 8, 0.4
#: The average reaches back over this share of the steps so far.
AVERAGED = 0.1
#: A gradient is shortened to at most this many times the usual length.
LONG = 2.0
#: Smallest size of a tensor that starts at zero.  For a vector, as a share of the values that it is added to or scales.
SMALLEST = 1e-3
BETAS, EPSILON = (0.9, 0.99), 1e-12


@dataclass(frozen=True)
class Schedule:
    """One cosine of about ``steps`` steps.  ``full``: its highest rate."""

    full: float
    steps: float

    def rate(self, share: float) -> float:
        """The rate when ``share`` of the steps is done: linear warm-up, then a cosine to zero."""
        warm = max(WARM_UP, min(WARM_STEPS / max(self.steps, 1.0), RISING))
        if share < warm:
            return self.full * (share / warm)
        return self.full * 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))


def size_of(weight: Tensor, sums: tuple[int, ...], smallest: float) -> Tensor:
    """Root mean square of the weights of each output, or of all if ``sums`` is empty.  Broadcasts to ``weight``.

    At least ``smallest`` for the whole tensor, and a thousandth of the whole for an output.
    """
    squares = weight.square()
    whole = squares.mean().sqrt().clamp_min(smallest)
    if not sums:
        return whole
    return torch.maximum(squares.mean(sums, keepdim=True).sqrt(), SMALLEST * whole)


@dataclass(eq=False)
class Optimizer:
    """Adam with relative steps, gradients cut to the usual length, and a running average of the weights.

    ``smallest``: the size of a weight that is near zero, for the relative step.  ``sums``: see
    :func:`onnxprune.tuning.sums.summed_axes`.
    """

    names: Sequence[str]
    weights: Sequence[Tensor]
    smallest: Sequence[float]
    sums: Sequence[tuple[int, ...]]
    averages: list[Tensor] = field(default_factory=list)
    _first: list[Tensor] = field(default_factory=list)
    _second: list[Tensor] = field(default_factory=list)
    _steps: int = 0
    _usual: float = 0.0

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.averages = [w.detach().clone() for w in self.weights]
            self._first = [torch.zeros_like(w) for w in self.weights]
            self._second = [torch.zeros_like(w) for w in self.weights]

    def move(self, rate: float) -> None:
        """Move each weight by about ``rate`` of its tensor's size, and clear the gradients.

        Does not move if a gradient is not finite.
        """
        with torch.no_grad():
            gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights]
            length = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
            if math.isfinite(length):
                self._move(gradients, length, rate)
            for weight in self.weights:
                weight.grad = None

    def _move(self, gradients: list[Tensor], length: float, rate: float) -> None:
        self._steps += 1
        usual = self._usual or length
        if length > LONG * usual:
            torch._foreach_mul_(gradients, LONG * usual / length)
        self._usual = 0.9 * usual + 0.1 * min(length, LONG * usual)
        torch._foreach_lerp_(self._first, gradients, 1 - BETAS[0])
        torch._foreach_mul_(self._second, BETAS[1])
        torch._foreach_addcmul_(self._second, gradients, gradients, 1 - BETAS[1])
        first, second = (1 - beta**self._steps for beta in BETAS)
        below = torch._foreach_sqrt(torch._foreach_div(self._second, second))
        torch._foreach_add_(below, EPSILON)
        moves = torch._foreach_div(torch._foreach_div(self._first, first), below)
        for move, weight, low, sums in zip(moves, self.weights, self.smallest, self.sums, strict=True):
            if sums:
                mean = move.mean(sums, keepdim=True)
                move -= mean * (1 - math.sqrt(mean.numel() / move.numel()))
            move *= -rate * (VECTORS if weight.dim() < 2 else 1.0) * size_of(weight, sums, low)
        torch._foreach_add_(list(self.weights), moves)
        # The average starts at the first weights and forgets old ones over time.
        forget = max(1 / (AVERAGED * self._steps + 1), 1e-3)
        torch._foreach_lerp_(self.averages, list(self.weights), min(forget, 1.0))

    def averaged(self) -> dict[str, Tensor]:
        """Copies of the averages, by name."""
        return {name: value.clone() for name, value in zip(self.names, self.averages, strict=True)}

    def restart(self, values: Mapping[str, Tensor]) -> None:
        """Restart from the weights ``values``."""
        with torch.no_grad():
            for name, weight, average in zip(self.names, self.weights, self.averages, strict=True):
                weight.copy_(values[name])
                average.copy_(values[name])
            for moment in (*self._first, *self._second):
                moment.zero_()
        self._steps, self._usual = 0, 0.0
