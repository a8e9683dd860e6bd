"""What ``inspect`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.result.display import page
from onnxprune.result.rows import GroupRow, LayerRow


@dataclass(frozen=True)
class Outlook:
    """Shares of the MACs and parameters that remain if every group keeps the share ``kept`` of its channels."""

    kept: float
    macs: float
    params: float


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` shows: groups, locks and MACs of a model.

    ``groups``: every group, its channels, its share of the MACs, and why it is locked, if so.
    ``prunable_macs_share``: share of the MACs (0 … 1) in prunable layers.  ``operators``: (type, share of the MACs), the
    largest first.  ``bytes``: the size of the file.
    """

    model: str
    macs: int
    params: int
    bytes: int
    nodes: int
    groups: tuple[GroupRow, ...]
    prunable_macs_share: float
    choices: tuple[str, ...]
    inputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    operators: tuple[tuple[str, float], ...] = ()
    outlook: tuple[Outlook, ...] = ()

    def _repr_html_(self) -> str | None:
        return page(self)
