"""The output loss: the share of the information in the original's outputs that a changed model loses.

It is computed per kind of numbers (:mod:`onnxprune.measure.kinds`).  ``o`` is the original's output, ``p`` the changed
model's, ``c`` a channel.  Sums run over samples and positions.

* probabilities: ``L = Σ D(o, p) / Σ D(o, ō)``.  ``D`` is the Kullback-Leibler divergence, per number for single events
  and per row for rows that sum to one.  ``ō`` is the mean of the channel.  All three are softened first:
  ``ε + (1 - 2ε)·p`` for single events, ``(p + ε) / (1 + Cε)`` for rows of C, with ε = 0.02.
* numbers: ``L = mean over c of Σ w·(o - p)² / Σ w·((o - ō)² + (0.05·o)²)``.  ``ō`` is the mean over samples at the
  position.  So a model gets no credit for the constant part of a position (its place in a grid).  ``w`` spreads half of
  the weight evenly, and half by the information of the probabilities at the same position
  (:func:`onnxprune.measure.kinds.information_by_place`).  Without such probabilities it spreads all of it evenly.

The loss of a model is the mean over its kinds.  0: no output changed.  1: no better than answering the mean.

Why this formula: a ratio has no unit, so boxes in pixels and probabilities can be added.  Each channel has its own scale,
so a small one cannot hide behind a large one.  Users read kinds together (a box and its class), so each kind counts once,
however many channels or levels it has.  Squares and divergences both grow with the square of a small error, so the losses
of cuts in different places add up.  Softening keeps thousands of background scores near 0 from outweighing a few objects.
A coordinate counts most where an object is.  Half of the weight stays even, because a few samples do not show every place
where an object can be.

Plain class scores, and outputs without floating-point numbers, keep their own measures:
:func:`onnxprune.metrics.plain_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import metrics
from onnxprune.coupling.groups import Coupling
from onnxprune.measure.fields import Field, fields_of
from onnxprune.measure.kinds import (
    NUMBERS,
    Form,
    Kind,
    average,
    divergence,
    information_by_place,
    kinds_of,
    softened,
    values_of,
)

Array = np.ndarray
#: The error of a channel that hardly changes is measured against this share of its size.
MIN_SPREAD = 0.05
#: With fewer samples, the mean at a position is mostly the sample itself.
SEVERAL = 4
#: Floors of the denominators, to divide by more than rounding errors: a share of the mean over the channels, and a mean
#: divergence.
DEAD, NOTHING = 1e-10, 1e-6


@dataclass(frozen=True, eq=False)
class ReferencePart:
    """One part of a kind: the original's numbers (probabilities are softened), and a ``weight`` that broadcasts to them."""

    field: Field
    original: Array
    weight: Array | None


@dataclass(frozen=True, eq=False)
class Scale:
    """One kind.  ``denominator`` divides its loss: (channels,) for numbers and () for probabilities."""

    form: Form
    parts: tuple[ReferencePart, ...]
    denominator: Array

    def loss(self, outputs: Sequence[Array]) -> float:
        lost = np.zeros(self.denominator.shape)
        for part in self.parts:
            values = values_of(part.field, outputs[part.field.output])
            if self.form == NUMBERS:
                lost = lost + _squares(part.original - values, part.weight)
            else:
                softer = softened(values, self.form)
                lost = lost + divergence(part.original, softer, self.form).sum(dtype=np.float64)
        return float(np.mean(lost / self.denominator))


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """The measure, made once from the original's outputs and then applied to many models.

    ``reference``: the original's outputs, samples on axis 0.  :meth:`of` costs a few passes over the outputs, and two
    logarithms per probability.
    """

    reference: tuple[Array, ...]
    scales: tuple[Scale, ...]

    def of(self, outputs: Sequence[Array]) -> float:
        """The loss of a model with these ``outputs``; NaN if they hold NaN."""
        if not self.scales or any(a.shape != b.shape for a, b in zip(self.reference, outputs, strict=True)):
            # The number of detections differs: the outputs can only be compared as they are.
            return metrics.plain_loss(self.reference, outputs)
        comparable = [_comparable(a, b) for a, b in zip(self.reference, outputs, strict=True)]
        return float(np.mean([scale.loss(comparable) for scale in self.scales]))


def output_loss(coupling: Coupling, names: Sequence[str], reference: Sequence[Array]) -> OutputLoss:
    """The measure for the model of ``coupling``.

    ``names``: value ids of outputs.  ``reference``: the original's values there, samples on axis 0.
    """
    kept = tuple(reference)
    if metrics.is_scores(kept) or metrics.is_discrete(kept):
        return OutputLoss(kept, ())
    comparable = [_comparable(array, array) for array in kept]
    shapes = coupling.facts.shapes
    fields = [
        field
        for field in fields_of(coupling, names)
        if comparable[field.output].dtype.kind == "f"
        and comparable[field.output].size
        # Batches of different shapes lie end to end: their axes mean nothing.
        and comparable[field.output].shape[1:] == shapes.get(names[field.output], ())[1:]
    ]
    kinds = kinds_of(fields, comparable)
    information = information_by_place(kinds)
    return OutputLoss(kept, tuple(_numbers(kind, information) if kind.form == NUMBERS else _events(kind) for kind in kinds))


def _events(kind: Kind) -> Scale:
    usual = softened(average(kind), kind.form)
    parts = tuple(ReferencePart(part.field, softened(part.values, kind.form), None) for part in kind.parts)
    denominator = sum(float(divergence(p.original, usual, kind.form).sum(dtype=np.float64)) for p in parts)
    least = NOTHING * sum(p.original.size for p in parts)
    return Scale(kind.form, parts, np.asarray(max(denominator, least)))


def _numbers(kind: Kind, information: Mapping[tuple[int, int], Array]) -> Scale:
    weights = _weights(kind, information)
    parts = tuple(
        ReferencePart(part.field, part.values, weight) for part, weight in zip(kind.parts, weights, strict=True)
    )
    spread = sum(_squares(p.original - _usual(p.original), p.weight) for p in parts)
    size = sum(_squares(p.original, p.weight) for p in parts)
    denominator = np.asarray(spread + MIN_SPREAD**2 * size)
    return Scale(kind.form, parts, np.maximum(denominator, max(DEAD * float(denominator.mean()), 1e-30)))


def _weights(kind: Kind, information: Mapping[tuple[int, int], Array]) -> list[Array | None]:
    """The weights of each part: half even, half by the ``information`` beside it; ``None`` if there is none."""
    beside = [information.get(part.places) for part in kind.parts]
    total = sum(float(one.sum(dtype=np.float64)) for one in beside if one is not None)
    if any(one is None for one in beside) or total <= 0:
        return [None] * len(kind.parts)
    count = sum(one.size for one in beside if one is not None)
    return [None if one is None else np.asarray(0.5 + one * (0.5 * count / total)) for one in beside]


def _usual(values: Array) -> Array:
    """The mean over samples at each position; with few samples, the mean of the channel."""
    if len(values) >= SEVERAL:
        return np.asarray(values.mean(axis=0, keepdims=True))
    return np.asarray(values.mean(axis=(0, 2), keepdims=True)) if values.shape[2] >= SEVERAL else np.zeros_like(values)


def _squares(difference: Array, weight: Array | None) -> Array:
    """Weighted sums of squares per channel, (channels,) float64."""
    squares = np.square(difference)
    if weight is not None:
        squares *= weight
    return np.asarray(squares.sum(axis=(0, 2), dtype=np.float64))


def _comparable(original: Array, changed: Array) -> Array:
    """``changed`` with 0 where the original is not finite: masked places are infinite by design and have no error."""
    if original.dtype.kind != "f":
        return changed
    finite = np.isfinite(original)
    return changed if finite.all() else np.where(finite, changed, 0)
