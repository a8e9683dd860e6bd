"""Nodes whose result changes in a cut because they take a statistic over fewer channels."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.attributes import factor_size
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.rule import Role
from onnxprune.graph.view import Node


def estimated(coupling: Coupling, keep: np.ndarray) -> tuple[Node, ...]:
    """Nodes that take a statistic over fewer positions after the cut ``keep`` (units,) bool.

    Only the approximate rules allow such a cut.  The cut model then differs from the masked original.
    """
    masks = coupling.masks(keep)
    nodes: list[Node] = []
    for index, bound in coupling.walked.bounds.items():
        node = coupling.graph.nodes[index]
        estimated_factors = (f for f in bound.rule.estimates if bound.role(f) is Role.ESTIMATED)
        sizes = ((factor, factor_size(node, coupling.walked, masks, factor)) for factor in estimated_factors)
        if any(now is not None and now != bound.sizes[factor] for factor, now in sizes):
            nodes.append(node)
    return tuple(nodes)
