"""The training loss: the error of the tuned model's outputs against the original's, per sample, with a gradient.

Each channel counts in its own scale.  Each kind of value has the same weight:

- rows that sum to one are probabilities: Kullback-Leibler divergence, KL(original ‖ tuned);
- values between 0 and 1 are yes-or-no answers: the same divergence, per element;
- one row of scores per sample holds logits: the same divergence after a softmax, plus the squared error of the scores
  minus their mean;
- anything else: squared error over the channel's variance.  If the same output also holds answers between 0 and 1, the
  original's surest answer at a position is its weight: a box counts where an object is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxprune import metrics
from onnxprune.tuning.hidden import DEAD, LEAST, HiddenValue, channel_axis, scales

Array = np.ndarray
#: (tuned, original, samples) -> one number per sample.
ErrorFunction = Callable[[Tensor, Tensor, int], Tensor]
TINY = 1e-6
#: The weight of a position where the original sees nothing, relative to one where it is sure.
BACKGROUND = 0.02


@dataclass(frozen=True)
class LossTerm:
    """One kind of value in one output."""

    name: str
    kind: str
    of: ErrorFunction


def output_terms(names: Sequence[str], seen: Mapping[str, Array], bounded: Collection[str]) -> tuple[LossTerm, ...]:
    """The terms of the outputs ``names``.  Their kinds follow from ``seen``, the original's outputs on some samples.

    Samples are on axis 0.  ``bounded``: outputs of a sigmoid or the like; others may lie between 0 and 1 by chance.
    """
    return tuple(term for name in names for term in _terms(name, seen[name], len(names) == 1, name in bounded))


def _terms(name: str, values: Array, only: bool, bounded: bool) -> list[LossTerm]:
    if values.ndim == 0 or not values.size:
        return []
    wide = values.astype(np.float64)
    for axis in range(1, values.ndim):
        if values.shape[axis] > 1 and wide.min() >= 0 and np.allclose(wide.sum(axis), 1, atol=1e-3):
            return [LossTerm(name, "probabilities", _divergence(axis))]
    if only and metrics.is_scores([values]):
        spread = float((wide - wide.mean(1, keepdims=True)).std())
        return [LossTerm(name, "logits", _logits(spread if spread > LEAST else 1.0))]
    axis = channel_axis(values)
    rows = _filled(np.moveaxis(wide, axis, 0).reshape(values.shape[axis], -1) if values.ndim > 1 else wide[None])
    inside = (rows.min(1) >= 0) & (rows.max(1) <= 1) & bounded
    answers, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    terms = []
    if len(answers):
        terms.append(LossTerm(name, "answers", _answers(axis, answers, rows[answers])))
    if len(others):
        scale = scales(rows[others], DEAD)
        where = answers if len(answers) and values.ndim > 2 else None
        terms.append(LossTerm(name, "values", _values(axis, others, scale, where, rows)))
    return terms


def _filled(rows: Array) -> Array:
    """``rows``, with the mean of the row in place of infinities and NaN: a mask writes them where nothing is."""
    finite = np.isfinite(rows)
    if finite.all():
        return rows
    means = np.where(finite, rows, 0).sum(1, keepdims=True) / np.maximum(finite.sum(1, keepdims=True), 1)
    return np.where(finite, rows, means)


def _per_sample(x: Tensor, count: int) -> Tensor:
    """The mean per sample; the mean of everything if axis 0 does not hold samples."""
    if x.dim() and len(x) and len(x) % count == 0:
        return x.reshape(count, -1).mean(1)
    return x.mean().expand(count)


def _divergence(axis: int) -> ErrorFunction:
    def of(tuned: Tensor, original: Tensor, count: int) -> Tensor:
        p, q = original.clamp_min(TINY), tuned.clamp_min(TINY)
        return _per_sample((p * (p / q).log()).sum(axis), count)

    return of


def _logits(spread: float) -> ErrorFunction:
    def of(tuned: Tensor, original: Tensor, count: int) -> Tensor:
        p, q = torch.log_softmax(original, 1), torch.log_softmax(tuned, 1)
        apart = (tuned - tuned.mean(1, keepdim=True)) - (original - original.mean(1, keepdim=True))
        return _per_sample((p.exp() * (p - q)).sum(1) + (apart / spread).square().mean(1), count)

    return of


def _picked(x: Tensor, axis: int, channels: Tensor) -> Tensor:
    return x.index_select(axis, channels) if x.dim() > 1 else x.unsqueeze(1)


def _answers(axis: int, channels: Array, rows: Array) -> ErrorFunction:
    picked = torch.as_tensor(channels)
    # The unit is the loss of the constant mean answer, so a rare class counts as much as a common one.
    mean = np.clip(rows.mean(), 1e-4, 1 - 1e-4)
    unit = float(-mean * np.log(mean) - (1 - mean) * np.log(1 - mean))

    def of(tuned: Tensor, original: Tensor, count: int) -> Tensor:
        p, q = (_picked(x, axis, picked.to(x.device)).clamp(TINY, 1 - TINY) for x in (original, tuned))
        return _per_sample(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log(), count) / unit

    return of


def _values(axis: int, channels: Array, scale: Array, where: Array | None, rows: Array) -> ErrorFunction:
    picked = torch.as_tensor(channels)
    unit = torch.as_tensor(scale, dtype=torch.float32)
    answers = None if where is None else torch.as_tensor(where)
    usual = 1.0 if where is None else float(rows[where].max(0).mean()) + BACKGROUND

    def of(tuned: Tensor, original: Tensor, count: int) -> Tensor:
        a, b = (_picked(x, axis, picked.to(x.device)) for x in (tuned, original))
        finite = torch.isfinite(a) & torch.isfinite(b)
        if not finite.all():
            # Before the difference: the gradient of infinity minus infinity would be NaN, even if it is not used.
            a, b = (torch.where(finite, x, torch.zeros_like(x)) for x in (a, b))
        shape = [-1 if k == axis else 1 for k in range(a.dim())] if a.dim() > 1 else [1]
        apart = ((a - b) / unit.to(device=a.device, dtype=a.dtype).reshape(shape)).square()
        if answers is not None:
            sure = original.index_select(axis, answers.to(original.device)).amax(axis, keepdim=True)
            apart = apart * ((sure + BACKGROUND) / usual)
        return _per_sample(apart, count)

    return of


class _Apart(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Weighted squared distance of each row of axis 0.

    It takes two passes forward and one backward.  The same from torch's own operators takes seven, a quarter of the time
    of a step of a small network.
    """

    @staticmethod
    def forward(ctx: Any, tuned: Tensor, original: Tensor, axis: int, weights: Tensor) -> Tensor:
        """The distances, (rows,).  ``weights`` (channels,) belong to ``axis``, which is not 0."""
        apart = tuned - original
        other = [k for k in range(1, apart.dim()) if k != axis]
        squares = apart.square().sum(other) if other else apart.square()
        ctx.save_for_backward(apart, weights)
        ctx.axis = axis
        return squares @ weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        apart, weights = ctx.saved_tensors
        shape = [-1 if k == ctx.axis else 1 for k in range(apart.dim())]
        factor = weights.reshape(shape) * gradients[0].reshape(-1, *[1] * (apart.dim() - 1))
        return apart * (2 * factor), None, None, None


def hidden_error(hidden: HiddenValue, tuned: Tensor, original: Tensor, count: int) -> Tensor:
    """Squared error over variance, averaged over the common channels: one number per sample.

    An error e above 1 counts as 1 + ln e.  The mean would be a better guess than such a value, so it teaches nothing, but
    a few of them would outweigh all else: an attention that divides by a sum near zero had errors of 180,000.
    """
    return _tamed(_hidden_error(hidden, tuned, original, count))


def _tamed(errors: Tensor) -> Tensor:
    return torch.where(errors > 1, 1 + errors.clamp_min(1).log(), errors)


def _hidden_error(hidden: HiddenValue, tuned: Tensor, original: Tensor, count: int) -> Tensor:
    if hidden.mine is not None and hidden.theirs is not None:
        if len(hidden.mine) < tuned.shape[hidden.axis]:
            tuned = tuned.index_select(hidden.axis, torch.as_tensor(hidden.mine, device=tuned.device))
        original = original.index_select(hidden.axis, torch.as_tensor(hidden.theirs, device=original.device))
    scale = torch.as_tensor(hidden.scale, device=tuned.device, dtype=tuned.dtype)
    if not hidden.axis:
        return _per_sample(((tuned - original) / scale).square(), count)
    weights = len(tuned) / (tuned.numel() * scale.square())
    return _per_sample(_Apart.apply(tuned, original, hidden.axis, weights), count)


def output_error(
    terms: Sequence[LossTerm], tuned: Mapping[str, Tensor], original: Mapping[str, Tensor], count: int
) -> Tensor:
    """The error per sample: the mean over outputs of each kind, then the mean over kinds."""
    kinds: dict[str, list[Tensor]] = {}
    for term in terms:
        kinds.setdefault(term.kind, []).append(term.of(tuned[term.name], original[term.name], count))
    return torch.stack([torch.stack(parts).mean(0) for parts in kinds.values()]).mean(0)
