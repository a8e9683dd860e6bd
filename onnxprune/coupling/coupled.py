"""Couple a graph: walk it, solve the ties, group what is free, and lock what an operand cannot follow."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.bind import Walked, bind_graph
from onnxprune.coupling.grouped import grouped
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import named
from onnxprune.coupling.products import products_of
from onnxprune.coupling.reasons import FOLD, SIMPLIFY, Reason
from onnxprune.coupling.site import CannotFollow
from onnxprune.coupling.solve import solve
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph

#: Number of trial cuts, and how many of them take the same share of every group.
REHEARSALS, EVEN = 6, 3


def couple_graph(graph: Graph, facts: Facts, rules: str = "exact") -> Coupling:
    """Couple ``graph`` with the operator table called ``rules``.

    If an operand cannot follow the cut of an axis, that axis gets a lock with that reason.
    Cost: linear in positions; a graph of 2,000 nodes takes seconds.
    """
    walked = bind_graph(graph, facts, rules)
    # Find products first: settling adds locks that may hold for this first walk only.
    products = products_of(walked.labelled, walked.bounds, walked.knots)
    coupling = _settled(graph, facts, walked)
    if not products.knots:
        return coupling
    finer = _settled(graph, facts, bind_graph(graph, facts, rules, products))
    return finer if finer.unit_count > coupling.unit_count else coupling


def _settled(graph: Graph, facts: Facts, walked: Walked) -> Coupling:
    """The coupling of ``walked``, with locks on axes whose cut some operand cannot follow."""
    remedy = FOLD if facts.are_fixed(graph.inputs) else SIMPLIFY
    while True:
        coupling = grouped(graph, facts, walked, solve(walked.ledger))
        refused = _try_cuts(coupling)
        if refused is None:
            return coupling
        for key, axis in refused.axes:
            labels = walked.labels.get(key)
            if labels is not None:
                text = f"{named(refused.node)} {refused.text}"
                reason = Reason(text, refused.node.index, coupling.value_of(key), axis, remedy)
                walked.ledger.lock(labels[axis], reason)


def _try_cuts(coupling: Coupling) -> CannotFollow | None:
    """Try a few random cuts.  Returns the first refusal, or ``None`` if every operand follows every cut."""
    if not coupling.groups:
        return None
    for seed in range(REHEARSALS):
        generator = np.random.default_rng(seed)
        keep = np.ones(coupling.unit_count, dtype=np.bool_)
        for group in coupling.groups:
            # Even cuts alone prove too little: sizes that are fractions of each other follow them by chance.
            even = len(group) * (seed + 1) // 4
            count = even if seed < EVEN else int(generator.integers(0, len(group)))
            keep[generator.permutation(group.units)[:count]] = False
        try:
            coupling.edits(keep)
        except CannotFollow as refused:
            everything = [axis for group in coupling.groups for axis in group.axes]
            for axes in (refused.axes, refused.sources, everything):
                free = [(k, a) for k, a in axes if k in coupling.units and (coupling.units[k][a] >= 0).any()]
                if free:
                    refused.axes = free
                    return refused
    return None
