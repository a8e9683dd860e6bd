"""The geometry of the tuning's plot: held-out error and loss over time."""

from __future__ import annotations

import math
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
    """Values that are no numbers are left out; both lines share the scale, which ends at the start's error."""
    points = [p for p in tuning.curve if math.isfinite(p.held)]
    losses = [p for p in tuning.curve if math.isfinite(p.loss)]
    y_values = round_ticks(max([p.held for p in points] + [p.loss for p in losses], default=1.0))
    x_values = round_ticks(max((p.seconds for p in points), default=1.0))
    left, right, top, bottom, height = 52.0, width - 12, 10.0, 210.0, 250.0

    def place(seconds: float, value: float, label: str) -> Dot:
        return Dot(
            round(left + seconds / x_values[-1] * (right - left), 2),
            round(bottom - min(value / y_values[-1], 1.0) * (bottom - top), 2),
            f"{wording.duration(seconds)}: {label} {wording.decimals(value)}",
        )

    dots = tuple(place(p.seconds, p.held, _seen(p)) for p in points)
    return Learning(
        width,
        height,
        left,
        right,
        top,
        bottom,
        loss=polyline([place(p.seconds, p.loss, "loss") for p in losses]),
        held=polyline(dots),
        dots=dots,
        x_ticks=tuple(Tick(place(x, 0, "").x, wording.duration(x)) for x in x_values[::2]),
        y_ticks=tuple(Tick(place(0, y, "").y, f"{y:g}") for y in y_values),
    )


def _seen(point: TuningPoint) -> str:
    agreement = "" if point.same_top1 is None else f"same top-1 for {wording.percent(point.same_top1)}, "
    return f"{point.samples:,} samples seen, {agreement}held-out error"
