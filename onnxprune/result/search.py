"""The way to the result: curves of the groups, candidates of the search, refitted layers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CurvePoint:
    """One width of one group, as the allocator sees it: the units kept and the estimated output loss."""

    kept: int
    damage: float


@dataclass(frozen=True)
class GroupCurve:
    """The curve of the group ``name``; ``points`` go from the whole group to the narrowest width."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class SearchStep:
    """One candidate of the search: its share of the MACs and its drop on the holdout."""

    macs_ratio: float
    drop: float


@dataclass(frozen=True)
class Refitted:
    """A refitted layer: the relative error of its output on held-out rows, before and after."""

    node: str
    before: float
    after: float
    accepted: bool
