"""Regression: numbers to read directly, such as ages, depths, prices, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.interval import bootstrap
from onnxprune.tasks.task import Agreement, Guess, TaskKind

Array = np.ndarray
MEASURE = "relative error per channel"
#: Maximum channels that users read one by one.
READ = 64


@dataclass(frozen=True)
class Regress:
    """``outputs``: positions of the outputs read."""

    outputs: tuple[int, ...]

    @property
    def kind(self) -> TaskKind:
        return "regress"

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def allowed(self) -> float:
        return 0.05

    @property
    def how(self) -> str:
        return "numbers, channel by channel"

    @property
    def reads(self) -> tuple[int, ...]:
        return self.outputs

    def channels(self, answers: Answers) -> list[Array]:
        """One float64 array (samples, channels, positions) per output."""
        arrays = []
        for index in self.outputs:
            values = answers.stacked(index)
            if values is None:
                raise DataError(f"output '{answers.names[index]}' has no sample axis, so it cannot be read")
            arrays.append(_channels_first(values))
        return arrays

    def against(self, original: Answers) -> RegressComparer:
        return RegressComparer(self, self.channels(original))

    def first(self, answers: Answers) -> str:
        one = self.channels(answers)[0][0]
        if one.size <= 4:
            return "values " + ", ".join(f"{value:.3g}" for value in one.ravel())
        return f"{one.size:,} values from {one.min():.3g} to {one.max():.3g}, mean {one.mean():.3g}"


@dataclass(frozen=True, eq=False)
class RegressComparer:
    """Mean over channels of ‖pruned − original‖ / ‖original‖, and mean R² over channels.

    R² = 1 − Σ(pruned − original)² / Σ(original − mean)², over the samples and positions of a channel.  Constant channels
    have no R².
    """

    reader: Regress
    channels: Sequence[Array]

    @property
    def basis(self) -> str:
        return ""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        sums = [_sums(a, b) for a, b in zip(self.channels, self.reader.channels(answers), strict=True)]
        error, size, spread = (np.concatenate(parts, axis=1) for parts in zip(*sums, strict=True))
        drop = _relative(error.sum(axis=0), size.sum(axis=0))
        low, high = None, None
        if resamples:
            low, high = bootstrap(
                lambda chosen: _relative(error[chosen].sum(axis=0), size[chosen].sum(axis=0)), len(error), resamples
            )
        figures = []
        varying = spread.sum(axis=0) > 1e-9 * np.maximum(size.sum(axis=0), 1e-300)
        if varying.any():
            figures.append(("R²", float(np.mean(1 - error.sum(axis=0)[varying] / spread.sum(axis=0)[varying]))))
        return Agreement(MEASURE, drop, answers.samples, low, high, tuple(figures))


def _channels_first(values: Array) -> Array:
    """``values`` as (samples, channels, positions).  The channel axis is the smaller of axis 1 and the last axis."""
    wide = values.astype(np.float64)
    if wide.ndim < 2:
        return wide.reshape(len(wide), 1, 1)
    axis = 1 if wide.ndim < 3 or wide.shape[1] <= wide.shape[-1] else wide.ndim - 1
    if wide.ndim == 3 and wide.shape[axis] > READ:
        # A field without channels, such as a grey image.
        return wide.reshape(len(wide), 1, -1)
    return np.moveaxis(wide, axis, 1).reshape(len(wide), wide.shape[axis], -1)


def _sums(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Three arrays (samples, channels): squared errors, squares, and squared distances from the channel's mean."""
    if a.shape != b.shape:
        raise DataError(f"the two models' outputs differ in shape ({a.shape[1:]} and {b.shape[1:]})")
    # Ignore positions at which the original is NaN or infinite.
    finite = np.isfinite(a)
    left = np.where(finite, a, 0.0)
    right = np.where(finite, np.where(np.isfinite(b), b, 0.0), 0.0)
    mean = left.sum(axis=(0, 2)) / np.maximum(finite.sum(axis=(0, 2)), 1)
    centred = np.where(finite, left - mean[:, None], 0.0)
    return ((left - right) ** 2).sum(axis=2), (left**2).sum(axis=2), (centred**2).sum(axis=2)


def _relative(error: Array, size: Array) -> float:
    return float(np.mean(np.sqrt(error / np.maximum(size, 1e-24))))


def regress(answers: Answers) -> Guess:
    """Guess: any floating-point outputs with a sample axis."""
    usable = []
    for index in range(len(answers.names)):
        row, first = answers.row(index), answers.batches[0][index]
        if row is not None and first.dtype.kind == "f" and first.size:
            usable.append(index)
    if len(usable) < len(answers.names):
        return Guess(Regress(tuple(usable)) if usable else None, False, "not every output is a number per sample")
    return Guess(Regress(tuple(usable)), True, "numbers per sample")
