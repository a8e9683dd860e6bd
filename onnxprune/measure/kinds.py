"""Kinds of numbers: fields of the outputs that belong together, and the error measure of each.

A kind has one of three forms.

* ``UNIT``: probabilities of single events, after a sigmoid.  Its error is the binary Kullback-Leibler divergence.
* ``ROWS``: probabilities that sum to one over the channels, after a softmax.  Its error is their divergence.
* ``NUMBERS``: anything else.  Its error is the square of the difference.

Levels of one head (the same channels at several resolutions) are one kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.measure.fields import Field

Array = np.ndarray
Form = Literal["unit", "rows", "numbers"]
UNIT: Form = "unit"
ROWS: Form = "rows"
NUMBERS: Form = "numbers"
#: Probabilities below this, or above 1 minus this, count as certain: no user sets a threshold there.
CERTAIN = 0.02
#: If the mean of 4p(1 - p) is larger, numbers between 0 and 1 are places or shades, not decisions.  Evenly spread
#: numbers have 2/3.
UNDECIDED = 0.5
#: Allowance for rounding: how far numbers may leave 0 … 1, and the sum of a row may differ from one.
ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class FieldValues:
    """A field and its numbers in the original: (samples, channels, positions), floating-point."""

    field: Field
    values: Array

    @property
    def places(self) -> tuple[int, int]:
        """(samples, positions).  Fields with equal numbers stand side by side."""
        return self.values.shape[0], self.values.shape[2]


@dataclass(frozen=True, eq=False)
class Kind:
    """``parts``: one field, or the levels of one head."""

    form: Form
    parts: tuple[FieldValues, ...]


def kinds_of(fields: Sequence[Field], outputs: Sequence[Array]) -> tuple[Kind, ...]:
    """The kinds of the original's ``outputs`` (floating-point, samples on axis 0)."""
    heads: dict[tuple[object, ...], list[FieldValues]] = {}
    for field in fields:
        part = FieldValues(field, values_of(field, outputs[field.output]))
        key: tuple[object, ...] = (outputs[field.output].ndim, field.axis, len(field.channels), field.squashed)
        if any(part.places == other.places for other in heads.get(key, ())):
            # The same size: another head, not another level.
            key = (*key, field.output, field.makers)
        heads.setdefault(key, []).append(part)
    return tuple(Kind(_form(parts), tuple(parts)) for parts in heads.values())


def values_of(field: Field, output: Array) -> Array:
    """The numbers of ``field`` in ``output``: (samples, channels, positions), a view if possible."""
    if field.axis is None:
        values = output.reshape(len(output), 1, -1)
    else:
        first, last = int(field.channels[0]), int(field.channels[-1])
        contiguous = last - first + 1 == len(field.channels)
        moved = np.moveaxis(output, field.axis, 1)[:, slice(first, last + 1) if contiguous else field.channels]
        values = moved.reshape(*moved.shape[:2], -1)
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values


def _form(parts: Sequence[FieldValues]) -> Form:
    if not parts[0].field.squashed or not all(part.values.size for part in parts):
        return NUMBERS
    if any(part.values.min() < -ROUNDING or part.values.max() > 1 + ROUNDING for part in parts):
        return NUMBERS
    if len(parts[0].field.channels) > 1 and all(
        np.allclose(part.values.sum(axis=1), 1.0, atol=ROUNDING) for part in parts
    ):
        return ROWS
    undecided = np.mean([(4 * part.values * (1 - part.values)).mean() for part in parts])
    return UNIT if undecided < UNDECIDED else NUMBERS


def softened(values: Array, form: Form) -> Array:
    """Probabilities (…, channels, positions), moved away from 0 by about :data:`CERTAIN`, so that logarithms stay small."""
    kept = np.clip(values, 0, 1)
    if form == ROWS:
        kept += values.dtype.type(CERTAIN)
        kept /= values.dtype.type(1 + CERTAIN * values.shape[-2])
        return np.asarray(kept)
    kept *= values.dtype.type(1 - 2 * CERTAIN)
    kept += values.dtype.type(CERTAIN)
    return np.asarray(kept)


def divergence(original: Array, changed: Array, form: Form) -> Array:
    """Kullback-Leibler divergence per number of softened probabilities.  For ``ROWS`` only sums over channels count."""
    if form == ROWS:
        return np.asarray(original * np.log(original / changed))
    one = original.dtype.type(1)
    return np.asarray(original * np.log(original / changed) + (one - original) * np.log((one - original) / (one - changed)))


def information_by_place(kinds: Sequence[Kind]) -> Mapping[tuple[int, int], Array]:
    """The information of the original's probabilities at each place: (samples, 1, positions) by samples and positions.

    It is the root of the divergence from the average answer, summed over channels.  It grows with the score of an object
    and is close to 0 on background.
    """
    weights: dict[tuple[int, int], Array] = {}
    for kind in kinds:
        if kind.form == NUMBERS:
            continue
        usual = softened(average(kind), kind.form)
        for part in kind.parts:
            information = divergence(softened(part.values, kind.form), usual, kind.form).sum(axis=1, keepdims=True)
            weights[part.places] = weights.get(part.places, 0) + np.sqrt(np.maximum(information, 0))
    return weights


def average(kind: Kind) -> Array:
    """The mean of each channel over samples and positions of all parts: (1, channels, 1)."""
    total = sum(part.values.sum(axis=(0, 2), dtype=np.float64) for part in kind.parts)
    count = sum(part.values.shape[0] * part.values.shape[2] for part in kind.parts)
    return np.asarray(total / max(count, 1)).astype(kind.parts[0].values.dtype)[None, :, None]
