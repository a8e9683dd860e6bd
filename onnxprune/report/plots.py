"""The geometry of the report's plots, in pixels.  The templates only draw it.

Every plot has two versions, for a phone and for a desktop: scaling an SVG would make its text unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report import wording
from onnxprune.report.names import essential
from onnxprune.result import CurvePoint, GroupCurve, GroupRow, SearchStep

NARROW = 322
WIDE = 860


@dataclass(frozen=True)
class Tick:
    """A grid line: its position and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One group: a pale bar before, a strong bar after."""

    x: float
    width: float
    before_y: float
    before_height: float
    after_y: float
    after_height: float
    locked: bool
    title: str


@dataclass(frozen=True)
class Bars:
    """Channels of each group, before and after.

    ``span`` is the total width of the bars, from ``left``.  ``ends`` are the labels below the first and the last bar.
    """

    width: float
    span: float
    height: float
    left: float
    bottom: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class LinePlot:
    """A line with dots.  ``chosen`` marks the result; ``limit`` marks the allowed drop."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    line: str
    dots: tuple[Dot, ...]
    chosen: Dot | None
    limit: Tick | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Panel:
    """One small plot with the title ``short``."""

    name: str
    short: str
    curve: LinePlot


def channel_bars(groups: Sequence[GroupRow], width: float) -> Bars:
    """The bars of ``groups``, in this order: prunable groups in the order of the model, then locked ones.

    Heights are square roots: on a linear scale, 64 channels would vanish beside 2048.  Many groups make the plot wider
    than ``width``.
    """
    left, top, bottom, height = 38.0, 10.0, 200.0, 218.0
    step = max(5.0, min(56.0, (width - left) / max(1, len(groups))))
    most = max((row.before for row in groups), default=1) or 1
    scale = (bottom - top) / math.sqrt(most)
    bars = []
    for index, row in enumerate(groups):
        kept = "locked" if row.locked else f"{row.before} → {row.after}"
        bars.append(
            Bar(
                x=round(left + index * step + step * 0.12, 2),
                width=round(step * 0.76, 2),
                before_y=round(bottom - math.sqrt(row.before) * scale, 2),
                before_height=round(math.sqrt(row.before) * scale, 2),
                after_y=round(bottom - math.sqrt(row.after) * scale, 2),
                after_height=round(math.sqrt(row.after) * scale, 2),
                locked=row.locked is not None,
                title=f"{row.name}: {kept} ({wording.percent(row.macs_share)} of the MACs)",
            )
        )
    values = sorted({0, most // 16, most // 4, most})
    ticks = tuple(Tick(round(bottom - math.sqrt(value) * scale, 2), f"{value}") for value in values)
    span = len(groups) * step
    ends = ("input", "locked" if bars and bars[-1].locked else "output")
    return Bars(max(width, left + span), max(span, 90.0), height, left, bottom, tuple(bars), ticks, ends)


def search_curve(
    steps: Sequence[SearchStep],
    chosen: SearchStep | None,
    limit: float | None,
    in_percent: bool,
    width: float,
) -> LinePlot:
    """Drop over the share of MACs kept, for every candidate.  Candidates with a non-finite drop are left out."""
    points = sorted({(s.macs_ratio, s.drop) for s in steps if math.isfinite(s.drop)})
    kept = [x for x, _ in points] + ([chosen.macs_ratio] if chosen else [])
    drops = [y for _, y in points] + ([chosen.drop] if chosen else [])
    # If all drops are 0, the axis still needs a range.
    highest = max([*drops, limit or 0.0, 0.01])
    y_values = round_ticks(highest)
    low = math.floor(min(kept, default=0.0) * 10 - 1e-9) / 10
    x_values = [low + (1 - low) * i / 4 for i in range(5)]
    left, right, top, bottom, height = 52.0, width - 12, 10.0, 210.0, 250.0

    def place(x: float, y: float) -> Dot:
        word = wording.percent(y) if in_percent else wording.decimals(y)
        spread = (x - low) / (1 - low) if low < 1 else 1.0
        at_y = bottom - y / y_values[-1] * (bottom - top)
        return Dot(
            round(left + spread * (right - left), 2),
            round(min(bottom, max(top, at_y)), 2),
            f"{wording.percent(x)} of the MACs kept: drop {word}",
        )

    dots = tuple(place(x, y) for x, y in points)
    return LinePlot(
        width,
        height,
        left,
        right,
        top,
        bottom,
        line=polyline(dots),
        dots=dots,
        chosen=place(chosen.macs_ratio, chosen.drop) if chosen else None,
        limit=Tick(place(1.0, limit).y, "allowed") if limit is not None else None,
        x_ticks=tuple(Tick(place(x, 0).x, f"{x:.0%}") for x in x_values),
        y_ticks=tuple(Tick(place(1, y).y, f"{y * 100:g}%" if in_percent else f"{y:g}") for y in y_values),
    )


def sensitivity_panels(curves: Sequence[GroupCurve], groups: Sequence[GroupRow]) -> tuple[Panel, ...]:
    """Estimated output loss over the share of channels kept, on one logarithmic scale for all groups.

    Groups with the most MACs come first.
    """
    # A locked set may be named after the same node.
    rows = {row.name: row for row in groups if row.locked is None}
    losses = [p.damage for c in curves for p in c.points if math.isfinite(p.damage) and p.damage > 0]
    top_power = math.ceil(math.log10(max(losses))) if losses else 0
    least = math.floor(math.log10(min(losses))) if losses else -1
    powers = range(max(least, top_power - 5), top_power + 1)
    if len(powers) < 2:
        powers = range(top_power - 1, top_power + 1)
    ordered = sorted(curves, key=lambda c: -(rows[c.name].macs_share if c.name in rows else 0.0))
    short = essential([curve.name for curve in ordered])
    return tuple(
        Panel(curve.name, name, _panel(curve, rows.get(curve.name), powers))
        for curve, name in zip(ordered, short, strict=True)
    )


def _panel(curve: GroupCurve, row: GroupRow | None, powers: range) -> LinePlot:
    width, height, left, right, top, bottom = 200.0, 118.0, 44.0, 194.0, 8.0, 96.0
    total = max([p.kept for p in curve.points] + ([row.before] if row else [1]))
    lowest = 10.0 ** powers[0]

    def place(kept: int, loss: float) -> Dot:
        power = math.log10(max(loss, lowest))
        height_share = (power - powers[0]) / (powers[-1] - powers[0])
        return Dot(
            round(left + kept / total * (right - left), 1),
            round(bottom - min(1.0, height_share) * (bottom - top), 1),
            f"{kept} of {total} kept: estimated output loss {wording.decimals(loss)}",
        )

    points = sorted((p for p in curve.points if math.isfinite(p.damage)), key=lambda p: p.kept)
    dots = tuple(place(p.kept, p.damage) for p in points)
    chosen = None
    if row is not None and points:
        chosen = place(row.after, _between(points, row.after, lowest))
    shown = (powers[0], powers[-1])
    return LinePlot(
        width,
        height,
        left,
        right,
        top,
        bottom,
        line=polyline(dots),
        dots=(),
        chosen=chosen,
        limit=None,
        x_ticks=tuple(Tick(left + share * (right - left), f"{share:.0%}") for share in (0.0, 0.5, 1.0)),
        y_ticks=tuple(
            Tick(round(bottom - (p - powers[0]) / (powers[-1] - powers[0]) * (bottom - top), 1), f"1e{p}")
            for p in shown
        ),
    )


def _between(points: Sequence[CurvePoint], kept: int, lowest: float) -> float:
    """Output loss at a width between two measured ones, linear on the logarithmic scale."""
    below = [p for p in points if p.kept <= kept] or list(points[:1])
    above = [p for p in points if p.kept >= kept] or list(points[-1:])
    first, last = below[-1], above[0]
    if first.kept >= last.kept:
        return first.damage
    share = (kept - first.kept) / (last.kept - first.kept)
    low, high = (math.log10(max(p.damage, lowest)) for p in (first, last))
    return float(10 ** (low + share * (high - low)))


def polyline(dots: Sequence[Dot]) -> str:
    """The points of an SVG line."""
    return " ".join(f"{dot.x:g},{dot.y:g}" for dot in dots)


def round_ticks(highest: float) -> list[float]:
    """0 and a few round numbers; the last is at least ``highest``."""
    raw = max(highest, 1e-12) / 4
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= raw * (1 - 1e-9))
    count = math.ceil(highest / step - 1e-9)
    return [round(i * step, 12) for i in range(max(1, count) + 1)]
