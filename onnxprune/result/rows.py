"""The structure of a model: one row per group of channels, one row per layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupRow:
    """One group of channels, with its share of the MACs.  ``locked`` is the reason if it cannot be cut, else None."""

    id: int
    name: str
    before: int
    after: int
    macs_share: float
    locked: str | None = None


@dataclass(frozen=True)
class LayerRow:
    """One layer of the drawing, or a node where branches meet (``macs_before`` 0).

    ``inputs`` are the positions of the rows that feed it.  ``before`` and ``after`` are its output channels, 0 if it has
    none of its own.  ``macs_before`` and ``macs_after`` are shares of the original model's MACs.  ``locked`` is the
    reason why its output channels stay, or None if they are prunable.
    """

    name: str
    op: str
    inputs: tuple[int, ...]
    before: int
    after: int
    macs_before: float
    macs_after: float
    locked: str | None = None
