"""Kinds of numbers: fields of the outputs that are read alike, and how each is held against the original's.

A kind has one of three forms.

* ``UNIT``: probabilities of single events, behind a sigmoid.  Its error is the binary Kullback-Leibler divergence.
* ``ROWS``: probabilities that sum to one over the channels, behind a softmax.  Its error is their divergence.
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
#: Probabilities below this, or above one less this, are as good as certain: no user sets a threshold there.
CERTAIN = 0.02
#: Mean of 4p(1 - p) above which numbers between 0 and 1 are no decisions but places or shades: 2/3 if spread evenly.
UNDECIDED = 0.5
#: By how much numbers may leave 0 … 1, and sums of a row differ from one, by rounding.
ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class Part:
    """A field, and its numbers in the original: (samples, channels, positions), floating-point."""

    field: Field
    values: Array

    @property
    def places(self) -> tuple[int, int]:
        """Samples and positions: fields that agree in these stand beside each other."""
        return self.values.shape[0], self.values.shape[2]


@dataclass(frozen=True, eq=False)
class Kind:
    """``parts``: one, or the levels of one head."""

    form: Form
    parts: tuple[Part, ...]


def kinds_of(fields: Sequence[Field], outputs: Sequence[Array]) -> tuple[Kind, ...]:
    """The kinds of the original's ``outputs`` (floating-point, samples on axis 0)."""
    heads: dict[tuple[object, ...], list[Part]] = {}
    for field in fields:
        part = Part(field, seen(field, outputs[field.output]))
        key: tuple[object, ...] = (outputs[field.output].ndim, field.axis, len(field.channels), field.squashed)
        if any(part.places == other.places for other in heads.get(key, ())):
            # Of the same size: another head, not another level.
            key = (*key, field.output, field.makers)
        heads.setdefault(key, []).append(part)
    return tuple(Kind(_form(parts), tuple(parts)) for parts in heads.values())


def seen(field: Field, output: Array) -> Array:
    """The numbers of ``field``: (samples, channels, positions), a view where that is possible."""
    if field.axis is None:
        found = output.reshape(len(output), 1, -1)
    else:
        first, last = int(field.channels[0]), int(field.channels[-1])
        whole = last - first + 1 == len(field.channels)
        moved = np.moveaxis(output, field.axis, 1)[:, slice(first, last + 1) if whole else field.channels]
        found = moved.reshape(*moved.shape[:2], -1)
    return found.astype(np.float32) if found.dtype.itemsize < 4 else found


def _form(parts: Sequence[Part]) -> Form:
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
    """Probabilities (…, channels, positions) that are told apart by their logarithms: none is nearer to 0 than
    :data:`CERTAIN`, or about that."""
    kept = np.clip(values, 0, 1)
    if form == ROWS:
        kept += values.dtype.type(CERTAIN)
        kept /= values.dtype.type(1 + CERTAIN * values.shape[-2])
        return np.asarray(kept)
    kept *= values.dtype.type(1 - 2 * CERTAIN)
    kept += values.dtype.type(CERTAIN)
    return np.asarray(kept)


def divergence(original: Array, found: Array, form: Form) -> Array:
    """Kullback-Leibler divergence per number, of softened probabilities; of ``ROWS`` only sums over channels count."""
    if form == ROWS:
        return np.asarray(original * np.log(original / found))
    one = original.dtype.type(1)
    return np.asarray(original * np.log(original / found) + (one - original) * np.log((one - original) / (one - found)))


def attention(kinds: Sequence[Kind]) -> Mapping[tuple[int, int], Array]:
    """How much the original's probabilities say at each place: (samples, 1, positions) by samples and positions.

    It is the root of the divergence from what is said on average, summed over channels.  That grows with the score of
    an object, and is about nothing on background.
    """
    found: dict[tuple[int, int], Array] = {}
    for kind in kinds:
        if kind.form == NUMBERS:
            continue
        usual = softened(average(kind), kind.form)
        for part in kind.parts:
            told = divergence(softened(part.values, kind.form), usual, kind.form).sum(axis=1, keepdims=True)
            found[part.places] = found.get(part.places, 0) + np.sqrt(np.maximum(told, 0))
    return found


def average(kind: Kind) -> Array:
    """The mean of each channel over samples and positions of all parts: (1, channels, 1)."""
    total = sum(part.values.sum(axis=(0, 2), dtype=np.float64) for part in kind.parts)
    count = sum(part.values.shape[0] * part.values.shape[2] for part in kind.parts)
    return np.asarray(total / max(count, 1)).astype(kind.parts[0].values.dtype)[None, :, None]
