"""The output loss: which share of what the original's outputs say a changed model no longer says.

Per kind of numbers (:mod:`onnxprune.measure.kinds`), with the original's ``o``, the changed model's ``p``, channels
``c``, samples ``s`` and positions ``i``:

* probabilities: ``L = Σ D(o, p) / Σ D(o, ō)``.  ``D`` is the Kullback-Leibler divergence, per number for single events
  and per row for rows that sum to one; ``ō`` is the mean of the channel.  All three are softened before:
  ``ε + (1 - 2ε)·p`` for single events, ``(p + ε) / (1 + Cε)`` for rows of C, with ε = 0.02.
* numbers: ``L = mean over c of Σ w·(o - p)² / Σ w·((o - ō)² + (0.05·o)²)``.  ``ō`` is the mean over samples at the
  position, so that what a position always says (its place in a grid) is no merit.  ``w`` spreads half of the weight
  evenly, and half by how much the probabilities beside a number say there
  (:func:`onnxprune.measure.kinds.attention`); all evenly where there are none.

The loss of a model is the mean over its kinds.  0: nothing moved.  1: no better than to answer the mean.

Why so.  A ratio has no unit: boxes in pixels and probabilities can be added.  A channel in its own scale cannot hide
behind another.  Kinds are read together (a box and its class), so each counts as one, however many channels or levels
it has.  Squares and divergences both grow with the square of a small error, so that losses of cuts in different places
add up.  Softening keeps thousands of background scores near 0 from outweighing a few objects, and a coordinate counts
most where something is.  Half of the weight stays even, because a few samples do not show every place where
something can be.

Plain class scores, and outputs that hold no floating-point numbers, keep their own measures:
:func:`onnxprune.metrics.damage`.
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
    attention,
    average,
    divergence,
    kinds_of,
    seen,
    softened,
)

Array = np.ndarray
#: A channel that hardly changes is measured against this share of its size.
LEAST_SPREAD = 0.05
#: With fewer samples the mean at a position is mostly that sample itself.
SEVERAL = 4
#: Share of the squares of all channels, and mean divergence, below which there is nothing to lose but rounding.
DEAD, NOTHING = 1e-10, 1e-6


@dataclass(frozen=True, eq=False)
class Held:
    """One part of a kind: what the original says (softened where these are probabilities), and ``weight``, which
    broadcasts against it."""

    field: Field
    original: Array
    weight: Array | None


@dataclass(frozen=True, eq=False)
class Scale:
    """One kind: ``whole`` is what there is to lose, (channels,) for numbers and () for probabilities."""

    form: Form
    parts: tuple[Held, ...]
    whole: Array

    def loss(self, outputs: Sequence[Array]) -> float:
        lost = np.zeros(self.whole.shape)
        for part in self.parts:
            found = seen(part.field, outputs[part.field.output])
            if self.form == NUMBERS:
                lost = lost + _squares(part.original - found, part.weight)
            else:
                softer = softened(found, self.form)
                lost = lost + divergence(part.original, softer, self.form).sum(dtype=np.float64)
        return float(np.mean(lost / self.whole))


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """Made once from the original's outputs, asked about many models: see the module's text.

    ``reference``: the original's outputs, samples on axis 0.  Cost of :meth:`of`: a few passes over the outputs, two
    logarithms per probability.
    """

    reference: tuple[Array, ...]
    scales: tuple[Scale, ...]

    def of(self, outputs: Sequence[Array]) -> float:
        """The loss of a model that answers ``outputs``; NaN where these hold NaN."""
        if not self.scales or any(a.shape != b.shape for a, b in zip(self.reference, outputs, strict=True)):
            # Rows of detections differ in number: they can only be compared as they stand.
            return metrics.damage(self.reference, outputs)
        told = [_finite(a, b) for a, b in zip(self.reference, outputs, strict=True)]
        return float(np.mean([scale.loss(told) for scale in self.scales]))


def output_loss(coupling: Coupling, names: Sequence[str], reference: Sequence[Array]) -> OutputLoss:
    """The measure for a model of which ``coupling`` knows the graph.

    ``names``: value ids of outputs; ``reference``: the original's answers there, samples on axis 0.
    """
    kept = tuple(reference)
    if metrics.is_scores(kept) or metrics.is_discrete(kept):
        return OutputLoss(kept, ())
    told = [_finite(array, array) for array in kept]
    shapes = coupling.facts.shapes
    fields = [
        field
        for field in fields_of(coupling, names)
        if told[field.output].dtype.kind == "f"
        and told[field.output].size
        # Batches that differ in shape are laid end to end.
        and told[field.output].shape[1:] == shapes.get(names[field.output], ())[1:]
    ]
    kinds = kinds_of(fields, told)
    said = attention(kinds)
    return OutputLoss(kept, tuple(_numbers(kind, said) if kind.form == NUMBERS else _events(kind) for kind in kinds))


def _events(kind: Kind) -> Scale:
    usual = softened(average(kind), kind.form)
    parts = tuple(Held(part.field, softened(part.values, kind.form), None) for part in kind.parts)
    whole = sum(float(divergence(p.original, usual, kind.form).sum(dtype=np.float64)) for p in parts)
    least = NOTHING * sum(p.original.size for p in parts)
    return Scale(kind.form, parts, np.asarray(max(whole, least)))


def _numbers(kind: Kind, said: Mapping[tuple[int, int], Array]) -> Scale:
    weights = _weights(kind, said)
    parts = tuple(Held(part.field, part.values, weight) for part, weight in zip(kind.parts, weights, strict=True))
    spread = sum(_squares(p.original - _usual(p.original), p.weight) for p in parts)
    size = sum(_squares(p.original, p.weight) for p in parts)
    whole = np.asarray(spread + LEAST_SPREAD**2 * size)
    return Scale(kind.form, parts, np.maximum(whole, max(DEAD * float(whole.mean()), 1e-30)))


def _weights(kind: Kind, said: Mapping[tuple[int, int], Array]) -> list[Array | None]:
    """Per part half of the weight evenly, half by what is said there; ``None`` where nothing is said beside it."""
    beside = [said.get(part.places) for part in kind.parts]
    total = sum(float(found.sum(dtype=np.float64)) for found in beside if found is not None)
    if any(found is None for found in beside) or total <= 0:
        return [None] * len(kind.parts)
    count = sum(found.size for found in beside if found is not None)
    return [None if found is None else np.asarray(0.5 + found * (0.5 * count / total)) for found in beside]


def _usual(values: Array) -> Array:
    """What a position says whatever is fed; of few samples, what a channel says wherever it is."""
    if len(values) >= SEVERAL:
        return np.asarray(values.mean(axis=0, keepdims=True))
    return np.asarray(values.mean(axis=(0, 2), keepdims=True)) if values.shape[2] >= SEVERAL else np.zeros_like(values)


def _squares(difference: Array, weight: Array | None) -> Array:
    """Weighted sums of squares per channel, (channels,) float64."""
    squares = np.square(difference)
    if weight is not None:
        squares *= weight
    return np.asarray(squares.sum(axis=(0, 2), dtype=np.float64))


def _finite(original: Array, found: Array) -> Array:
    """Masked places are infinite by design: what is no number in the original has no distance to anything."""
    if original.dtype.kind != "f":
        return found
    told = np.isfinite(original)
    return found if told.all() else np.where(told, found, 0)
