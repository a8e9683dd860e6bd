"""What the approximate rules would free of a model that the exact ones were applied to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.atoms import LOOSEN
from onnxprune.coupling.estimates import estimated
from onnxprune.coupling.groups import Coupling, analyse


@dataclass(frozen=True)
class Loosened:
    """``channels``: how many more can be cut; ``operators``: those that take a statistic over channels, the most
    frequent first."""

    channels: int
    operators: tuple[str, ...]

    def __str__(self) -> str:
        *first, last = self.operators
        names = f"{', '.join(first)} and {last} take" if first else f"{last} takes"
        return f"--approximate frees {self.channels:,} more channels here, over which {names} a statistic"


def loosened(coupling: Coupling) -> Loosened | None:
    """``None`` where the approximate rules free nothing.  Cost: another analysis, where a lock names them as remedy."""
    if not any(held.reason.remedy == LOOSEN for held in coupling.held):
        return None
    loose = analyse(coupling.graph, coupling.facts, "approximate")
    nodes = estimated(loose, np.zeros(loose.unit_count, dtype=np.bool_))
    channels = loose.unit_count - coupling.unit_count
    if channels <= 0 or not nodes:
        return None
    return Loosened(channels, tuple(op for op, _ in Counter(node.op for node in nodes).most_common()))
