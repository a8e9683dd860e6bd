"""Where a cut changes what is computed, and not only how much: statistics over fewer channels."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.attributes import factor_size
from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Node


def estimated(coupling: Coupling, keep: np.ndarray) -> tuple[Node, ...]:
    """Nodes whose statistics are taken over fewer positions once the units that ``keep`` drops are gone.

    Only the approximate rules let such a cut happen; masked equivalence does not hold then.
    """
    masks = coupling.masks(keep)
    found: list[Node] = []
    for index, bound in coupling.walked.bounds.items():
        node = coupling.graph.nodes[index]
        for factor in bound.rule.estimates - bound.rule.mix:
            now = factor_size(node, coupling.walked, masks, factor)
            if now is not None and now != bound.sizes[factor]:
                found.append(node)
                break
    return tuple(found)
