"""Rows for people: groups before and after, locks and their reasons, choices of factors."""

from __future__ import annotations

import numpy as np

from onnxprune.budget.cost import macs, node_macs, parameters, sizes
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Axis
from onnxprune.coupling.ledger import Taken
from onnxprune.coupling.locks import lock_text
from onnxprune.graph.dequantized import readers_of_constant
from onnxprune.graph.view import Graph
from onnxprune.result import GroupRow, Outlook

Array = np.ndarray
#: The reason shown for a group that the user left out.
LEFT_OUT = "left out by --exclude or --only, or run by no sample"
#: The outlook shows what remains when every group keeps these shares of its channels.
KEPT = (0.75, 0.5, 0.25)


def _readers(graph: Graph, axes: tuple[Axis, ...]) -> set[int]:
    """The nodes that read the constants among ``axes``."""
    return {index for key, _ in axes if isinstance(key, tuple) for index, _ in readers_of_constant(graph, key)}


def group_rows(coupling: Coupling, keep: Array, frozen: frozenset[int]) -> tuple[GroupRow, ...]:
    """One row per group, then one per locked set of channels, with the share of MACs in the layers that it touches.

    ``keep`` has one boolean per unit.  ``frozen`` holds the ids of groups that the user left out.
    """
    cost = macs(coupling)
    per_node = node_macs(coupling, cost)
    total = max(cost(sizes(coupling)), 1.0)

    def share(nodes: set[int]) -> float:
        return sum(per_node.get(node, 0.0) for node in nodes) / total

    rows = []
    for group, terms in zip(coupling.groups, cost.lengths.touched(), strict=True):
        # What multiplies by computed weights, or two streams, holds the group without any constant of its own.
        nodes = _readers(coupling.graph, group.axes) | {cost.nodes[int(t)] for t in terms}
        after, reason = int(keep[group.units].sum()), LEFT_OUT if group.id in frozen else None
        rows.append(GroupRow(group.id, group.name, len(group), after, share(nodes), reason))
    for number, held in enumerate(coupling.held, start=len(rows)):
        held_share = share(_readers(coupling.graph, held.axes))
        rows.append(GroupRow(number, held.name, held.size, held.size, held_share, lock_text(coupling, held)))
    return tuple(rows)


def prunable_share(coupling: Coupling) -> float:
    """Share (0 … 1) of MACs in nodes that have at least one prunable axis."""
    cost = macs(coupling)
    per_node = node_macs(coupling, cost)
    live = {node for node, varies in zip(cost.nodes, cost.lengths.vary(), strict=True) if varies}
    return sum(v for n, v in per_node.items() if n in live) / max(cost(sizes(coupling)), 1.0)


def operator_shares(coupling: Coupling) -> tuple[tuple[str, float], ...]:
    """(operator type, share of the MACs), the largest first."""
    per_op: dict[str, float] = {}
    for index, value in node_macs(coupling, macs(coupling)).items():
        op = coupling.graph.nodes[index].op
        per_op[op] = per_op.get(op, 0.0) + value
    total = max(sum(per_op.values()), 1.0)
    return tuple((op, value / total) for op, value in sorted(per_op.items(), key=lambda item: -item[1]) if value)


def outlook(coupling: Coupling) -> tuple[Outlook, ...]:
    """What remains if every group keeps the same share of its channels; empty if no group is prunable."""
    full = sizes(coupling)
    if not len(full):
        return ()
    costs = macs(coupling), parameters(coupling)
    outlooks = []
    for share in KEPT:
        kept = np.maximum(np.rint(full * share), 1)
        outlooks.append(Outlook(share, *(cost(kept) / max(cost(full), 1.0) for cost in costs)))
    return tuple(outlooks)


def choice_lines(coupling: Coupling) -> tuple[str, ...]:
    """One line per kind of node with a compound axis: the factor that is cut, and its alternatives."""
    kinds: dict[tuple[str, str, tuple[str, ...]], list[Taken]] = {}
    alive = _classes_of_groups(coupling)
    for choice, taken in zip(coupling.walked.ledger.choices, coupling.choices, strict=True):
        # A factor that was free at this node may be locked further on, or belong to no weight.
        cut = any(alive[coupling.classes.of[atoms]].any() for atoms, _ in choice.options[taken.option].ties)
        if cut and sum(n > 1 for _, n in taken.free) > 1:
            names = tuple(name for name, _ in taken.free)
            kinds.setdefault((coupling.graph.nodes[taken.node].op, taken.factor, names), []).append(taken)
    lines = [_choice_line(coupling, factor, names, alike) for (_, factor, names), alike in kinds.items()]
    if lines:
        lines[-1] += "; 'onnxprune why MODEL NODE' shows the rule with these letters"
    return tuple(lines)


def _classes_of_groups(coupling: Coupling) -> Array:
    """One boolean per class: whether it is a unit of a group."""
    alive = np.zeros(len(coupling.classes.of), dtype=np.bool_)
    for key, lines in coupling.units.items():
        for atoms, units in zip(coupling.walked.labels[key], lines, strict=True):
            alive[coupling.classes.of[atoms[units >= 0]]] = True
    return alive


def _choice_line(coupling: Coupling, factor: str, names: tuple[str, ...], alike: list[Taken]) -> str:
    first = coupling.graph.nodes[alike[0].node]
    more = f" and {len(alike) - 1} more like it" if len(alike) > 1 else ""
    others = ", ".join(_to_choose_from(name, alike) for name in names if name != factor)
    return f"{first.op} '{first.label}'{more}: cut along {_to_choose_from(factor, alike)}, not {others}"


def _to_choose_from(factor: str, alike: list[Taken]) -> str:
    counts = sorted({dict(taken.free)[factor] for taken in alike})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{factor} ({span} to choose from)"
