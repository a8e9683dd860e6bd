"""The geometry of the tuning's plot: held-out error and loss over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report import wording
from onnxprune.report.plots import Dot, Tick, polyline, round_ticks
from onnxprune.result import Tuning, TuningPoint


@dataclass(frozen=True)
class Learning:
    """Two lines over one time: the loss of what was trained on, and the error on held-out samples, with its dots."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    loss: str
    held: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def learning_curve(tuning: Tuning, width: float) -> Learning:
    """Leaves out values that are no numbers.  Each line is in shares of its first value: a loss adds up many errors."""
    points = [p for p in tuning.curve if math.isfinite(p.held)]
    losses = [p for p in tuning.curve if math.isfinite(p.loss)]
    held = _shares([p.held for p in points])
    loss = _shares([p.loss for p in losses])
    y_values = round_ticks(max([*held, *loss], default=1.0))
    x_values = round_ticks(max((p.seconds for p in points), default=1.0))
    left, right, top, bottom, height = 52.0, width - 12, 10.0, 210.0, 250.0

    def place(seconds: float, share: float, label: str = "") -> Dot:
        return Dot(
            round(left + seconds / x_values[-1] * (right - left), 2),
            round(bottom - share / y_values[-1] * (bottom - top), 2),
            label,
        )

    dots = tuple(place(p.seconds, share, _seen(p)) for p, share in zip(points, held, strict=True))
    return Learning(
        width,
        height,
        left,
        right,
        top,
        bottom,
        loss=polyline([place(p.seconds, share) for p, share in zip(losses, loss, strict=True)]),
        held=polyline(dots),
        dots=dots,
        x_ticks=tuple(Tick(place(x, 0).x, wording.duration(x)) for x in x_values[::2]),
        y_ticks=tuple(Tick(place(0, y).y, f"{100 * y:g}%") for y in y_values),
    )


def _shares(values: Sequence[float]) -> list[float]:
    """``values`` as shares of the first one; as they are if it is 0."""
    return [value / (values[0] or 1.0) for value in values]


def _seen(point: TuningPoint) -> str:
    agreement = "" if point.same_top1 is None else f"same top-1 for {wording.percent(point.same_top1)}, "
    error = f"held-out error {wording.decimals(point.held)}"
    return f"{wording.duration(point.seconds)}: {point.samples:,} samples seen, {agreement}{error}"
