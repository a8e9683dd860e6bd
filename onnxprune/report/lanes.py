"""The picture of the graph: one line of text per layer, and lanes beside it that show the connections.

It looks like the graph in the log of a version control system.  It reads from top to bottom at any width.  Names stay
legible in deep models.  Its size is linear in the number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report import wording
from onnxprune.report.names import essential
from onnxprune.result import LayerRow

#: In pixels: the height of a line; the maximum and minimum width of a lane, and the maximum of all lanes together.
LINE = 24
LANE, MIN_LANE, MAX_WIDTH = 14.0, 4.0, 132.0


@dataclass(frozen=True)
class Spot:
    """One row: the place of its dot, the ``level`` of its cut (0 nothing … 4 most), and the text of its line.

    ``short`` is the name without the trailing operator that exporters add, and without parts that most names share.
    ``had`` and ``has`` are its MACs before and after, as bar lengths in percent of the longest bar.
    """

    x: float
    y: float
    level: int
    merge: bool
    name: str
    short: str
    op: str
    channels: str
    had: float
    has: float
    locked: str | None


@dataclass(frozen=True)
class Lanes:
    """All rows; ``edges`` is the SVG path data of all lines."""

    width: float
    height: float
    edges: str
    spots: tuple[Spot, ...]


def lanes(rows: Sequence[LayerRow]) -> Lanes:
    """Place ``rows``.  A row takes over the lane of an input that no later row reads, else the first free lane."""
    last = list(range(len(rows)))
    for index, row in enumerate(rows):
        for source in row.inputs:
            last[source] = index
    place = _places(rows, last)
    count = max(place, default=0) + 1
    step = max(MIN_LANE, min(LANE, MAX_WIDTH / count))
    xs = [round(step * (lane + 0.5) + 2, 1) for lane in place]
    ys = [LINE * index + LINE / 2 for index in range(len(rows))]
    edges = []
    for index, row in enumerate(rows):
        for source in row.inputs:
            edges.append(_edge(xs[source], ys[source], xs[index], ys[index]))
    largest = max((row.macs_before for row in rows), default=0.0) or 1.0
    short = essential([row.name.removesuffix(f"/{row.op}") if row.macs_before else row.name for row in rows])
    spots = tuple(
        _spot(row, name or row.name, x, y, largest) for row, name, x, y in zip(rows, short, xs, ys, strict=True)
    )
    return Lanes(round(step * count + 6, 1), LINE * len(rows), "".join(edges), spots)


def _places(rows: Sequence[LayerRow], last: Sequence[int]) -> list[int]:
    held: list[int] = []
    place: list[int] = []
    for index, row in enumerate(rows):
        ending = sorted(place[source] for source in row.inputs if last[source] <= index)
        for lane in ending:
            held[lane] = -1
        lane = ending[0] if ending else next((k for k, until in enumerate(held) if until < 0), len(held))
        if lane == len(held):
            held.append(-1)
        if last[index] > index:
            held[lane] = last[index]
        place.append(lane)
    return place


def _edge(x: float, y: float, to_x: float, to_y: float) -> str:
    """A path straight down the lane of the source, and across to the reader's lane within the last line."""
    if x == to_x:
        return f"M{x:g} {y:g}V{to_y:g}"
    bend = to_y - LINE
    return f"M{x:g} {y:g}V{bend:g}C{x:g} {bend + LINE / 2:g} {to_x:g} {bend + LINE / 2:g} {to_x:g} {to_y:g}"


def _spot(row: LayerRow, short: str, x: float, y: float, largest: float) -> Spot:
    cut = 1 - row.macs_after / row.macs_before if row.macs_before else 0.0
    channels = f"{row.before} → {row.after}" if row.after != row.before else f"{row.before or ''}"
    return Spot(
        x=x,
        y=y,
        level=0 if cut < 0.005 else min(4, 1 + int(cut * 4)),
        merge=not row.macs_before,
        name=row.name,
        short=short,
        op=f"{row.op}, {wording.percent(row.macs_before)} of the MACs, {wording.percent(max(cut, 0.0))} of them cut",
        channels=channels,
        had=round(100 * row.macs_before / largest, 1),
        has=round(100 * row.macs_after / largest, 1),
        locked=row.locked,
    )
