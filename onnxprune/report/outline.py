"""The model as people draw it: layers with weights, the places where branches meet, and what lies between left out."""

from __future__ import annotations

import numpy as np

from onnxprune.budget.cost import Cost, macs, sizes, units_kept
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key
from onnxprune.coupling.locks import lock_text
from onnxprune.graph.view import Node
from onnxprune.report.describe import LEFT_OUT
from onnxprune.result import LayerRow

Array = np.ndarray
#: An axis shorter than this is no axis of channels.
LEAST = 2


def layer_rows(coupling: Coupling, keep: Array, frozen: frozenset[int]) -> tuple[LayerRow, ...]:
    """Every node that multiplies, and every node where several of them meet, in the order of the graph.

    A row's ``inputs`` are the rows that reach it through nodes that are not drawn (activations, normalizations,
    reshapes).  Bodies of control flow are one row with their owner.  Cost: linear in nodes and edges.
    """
    cost, owners = macs(coupling), _owners(coupling)
    before, after = (_per_node(cost, counts, owners) for counts in (sizes(coupling), units_kept(coupling, keep)))
    total = max(sum(before.values()), 1.0)
    reasons, captured = _reasons(coupling, frozen, owners), _captured(coupling, owners)
    rows: list[LayerRow] = []
    reached: dict[str, tuple[int, ...]] = {}
    for node in coupling.graph.nodes:
        if node.scope or node.index in coupling.facts.folded or node.index in coupling.facts.arithmetic:
            continue
        values = (*node.inputs, *captured.get(node.index, ()))
        found = tuple(sorted({row for value in values for row in reached.get(value or "", ())}))
        spent = before.get(node.index, 0.0)
        if spent or len(found) > 1:
            had, has = _channels(coupling, node, keep)
            shares = spent / total, after.get(node.index, 0.0) / total
            rows.append(LayerRow(node.label, node.op, found, had, has, *shares, reasons.get(node.index)))
            found = (len(rows) - 1,)
        reached.update((value, found) for value in node.outputs if value is not None)
    return tuple(rows)


def _owners(coupling: Coupling) -> list[int]:
    """Per node the node of the main graph in whose bodies it stands, or itself."""
    owner_of = {body.scope: body.owner for body in coupling.graph.bodies}
    found: list[int] = []
    for node in coupling.graph.nodes:
        owner = owner_of[node.scope] if node.scope else None
        # Owners come before what their bodies hold.
        found.append(node.index if owner is None else found[owner])
    return found


def _per_node(cost: Cost, kept: Array, owners: list[int]) -> dict[int, float]:
    found: dict[int, float] = {}
    for node, value in zip(cost.nodes, cost.terms(kept), strict=True):
        found[owners[node]] = found.get(owners[node], 0.0) + float(value)
    return found


def _captured(coupling: Coupling, owners: list[int]) -> dict[int, tuple[str, ...]]:
    """What the bodies of a node read."""
    found: dict[int, tuple[str, ...]] = {}
    for node in coupling.graph.nodes:
        if node.scope:
            owner = owners[node.index]
            found[owner] = found.get(owner, ()) + tuple(value for value in node.inputs if value is not None)
    return found


def _channels(coupling: Coupling, node: Node, keep: Array) -> tuple[int, int]:
    """(before, after) of the axis that a weight gives its layer's output, or that a merge passes on; 0 if none."""
    best: tuple[bool, int, int] = (False, 0, 0)
    masks = coupling.masks(keep)
    for key, axis in _output_axes(coupling, node):
        units = coupling.units[key][axis]
        if len(units) >= LEAST:
            best = max(best, (bool((units >= 0).any()), len(units), int(masks(key, axis).sum())))
    return best[1:]


def _output_axes(coupling: Coupling, node: Node) -> list[tuple[Key, int]]:
    bound = coupling.walked.bounds.get(node.index)
    if bound is not None and bound.rule.macs:
        return [
            ((node.index, slot), axis)
            for slot, term in enumerate(bound.inputs)
            if term is not None and len(term) > 1 and (node.index, slot) in coupling.units
            for axis, dim in enumerate(term)
            if any(bound.in_output(factor) for factor in dim)
        ]
    return [
        (value, axis)
        for value in node.outputs
        if value is not None
        for axis, line in enumerate(coupling.units.get(value, ()))
        if (line >= 0).any()
    ]


def _reasons(coupling: Coupling, frozen: frozenset[int], owners: list[int]) -> dict[int, str]:
    """Node -> why the channels that its weight makes stay whole."""
    places = [(held.axes, lock_text(coupling, held)) for held in coupling.held]
    places += [(group.axes, LEFT_OUT) for group in coupling.groups if group.id in frozen]
    found: dict[int, str] = {}
    for axes, text in places:
        for key, axis in axes:
            if isinstance(key, tuple) and (key, axis) in _output_axes(coupling, coupling.graph.nodes[key[0]]):
                found.setdefault(owners[key[0]], text)
    return found
