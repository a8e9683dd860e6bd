"""What the approximate rules would free beyond the exact rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.coupled import couple_graph
from onnxprune.coupling.estimates import estimated
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.reasons import LOOSEN


@dataclass(frozen=True)
class Loosened:
    """``channels``: how many more channels can be cut.  ``operators``: the operators that take a statistic over these channels,
    the most frequent first."""

    channels: int
    operators: tuple[str, ...]

    def __str__(self) -> str:
        *first, last = self.operators
        names = f"{', '.join(first)} and {last} take" if first else f"{last} takes"
        return f"--approximate frees {self.channels:,} more channels; {names} a statistic over them"


def loosened(coupling: Coupling) -> Loosened | None:
    """``None`` if the approximate rules free nothing.  Cost: a second analysis, only if a lock names them as remedy."""
    if not any(held.reason.remedy == LOOSEN for held in coupling.held):
        return None
    loose = couple_graph(coupling.graph, coupling.facts, "approximate")
    nodes = estimated(loose, np.zeros(loose.unit_count, dtype=np.bool_))
    channels = loose.unit_count - coupling.unit_count
    if channels <= 0 or not nodes:
        return None
    return Loosened(channels, tuple(op for op, _ in Counter(node.op for node in nodes).most_common()))
