"""Sort the free classes into groups by their footprint, and name each group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.decide import Classes
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.held import held_channels
from onnxprune.coupling.labels import Axis, Key
from onnxprune.graph.dequantized import axis_of_value, readers_of_constant
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph


def grouped(graph: Graph, facts: Facts, walked: Walked, classes: Classes) -> Coupling:
    """Sort the free classes into groups, and number their units group by group."""
    roots = {key: tuple(classes.of[atoms] for atoms in labels) for key, labels in walked.labels.items() if labels}
    pools = _pools(graph, walked, classes, roots)
    starts = np.cumsum([0, *map(len, pools)]).tolist()
    unit_of = np.full(len(classes.of), -1, dtype=np.int64)
    for start, pool in zip(starts, pools, strict=False):
        unit_of[pool] = np.arange(start, start + len(pool))
    units = {key: tuple(unit_of[own] for own in lines) for key, lines in roots.items()}
    groups = [
        Group(g, _name(graph, walked, axes), np.arange(starts[g], starts[g + 1]), axes)
        for g, axes in enumerate(_axes_of_groups(units, pools))
    ]
    held = held_channels(graph, walked, classes, unit_of)
    return Coupling(graph, facts, walked, classes, units, _distinct(groups), held, starts[-1])


def _pools(
    graph: Graph, walked: Walked, classes: Classes, roots: Mapping[Key, tuple[np.ndarray, ...]]
) -> list[list[int]]:
    """Free classes with the same footprint, in order of position; one list per group.

    ``roots[key][axis]`` holds the class of each position.  Leaves out pools of one class, because one unit must stay,
    and pools without a weight.
    """
    axes = [own for lines in roots.values() for own in lines]
    footprint = _footprints(classes, axes)
    first = np.full(len(classes.of), np.iinfo(np.int64).max, dtype=np.int64)
    if axes:
        flat = np.concatenate([own.ravel() for own in axes])
        np.minimum.at(first, flat, np.arange(len(flat)))
    alive = np.flatnonzero((classes.lock < 0) & (footprint != 0))
    alive = alive[np.argsort(first[alive], kind="stable")]
    members: dict[int, list[int]] = {}
    for root in alive.tolist():
        members.setdefault(int(footprint[root]), []).append(root)
    weighs = np.zeros(len(classes.of), dtype=np.bool_)
    for key in _weighty(graph, walked):
        for own in roots.get(key, ()):
            weighs[own] = True
    return [pool for pool in members.values() if len(pool) > 1 and weighs[pool[0]]]


def _axes_of_groups(units: Mapping[Key, tuple[np.ndarray, ...]], pools: list[list[int]]) -> list[tuple[Axis, ...]]:
    """Every axis that each group runs through, in the order of ``units``."""
    group_of = np.concatenate([np.full(len(p), g) for g, p in enumerate(pools)]) if pools else np.empty(0, np.int64)
    axes: list[list[Axis]] = [[] for _ in pools]
    for key, lines in units.items():
        for axis, line in enumerate(lines):
            for g in np.unique(group_of[line[line >= 0]]).tolist():
                axes[int(g)].append((key, axis))
    return [tuple(own) for own in axes]


def _footprints(classes: Classes, roots: list[np.ndarray]) -> np.ndarray:
    """A hash per class of the multiset of axes that it occupies.  Classes of one hash form one group."""
    total = np.zeros(len(classes.of), dtype=np.uint64)
    generator = np.random.default_rng(0)
    for own in roots:
        np.add.at(total, own, generator.integers(1, 1 << 63, dtype=np.uint64))
    return total.view(np.int64)


def _weighty(graph: Graph, walked: Walked) -> frozenset[Key]:
    """Uses of constants.  A group that runs through none of them would not make the model smaller."""
    return frozenset(key for key in walked.labels if isinstance(key, tuple))


def _name(graph: Graph, walked: Walked, axes: tuple[Axis, ...]) -> str:
    """Name of a group: the earliest layer whose weight makes its channels, else the first tensor that has them."""
    stored = [(key, axis_of_value(graph, key, axis)) for key, axis in axes if isinstance(key, tuple)]
    uses = [(use, axis) for key, axis in stored for use in readers_of_constant(graph, key)]
    makers = [use[0] for use, axis in uses if _makes(graph, walked, use, axis)]
    if makers:
        return graph.nodes[min(makers)].label
    key = axes[0][0]
    return key if isinstance(key, str) else graph.nodes[key[0]].label


def _makes(graph: Graph, walked: Walked, use: tuple[int, int], axis: int) -> bool:
    """Whether this axis of a constant creates channels that no input has: a layer's outputs, a table's columns."""
    index, slot = use
    lookup = graph.nodes[index].op == "Gather" and slot == 0
    bound = walked.bounds.get(index)
    if bound is None:
        return lookup and index in walked.movers
    term = bound.inputs[slot]
    if term is None or not (lookup or bound.rule.linear is not None or bound.rule.macs):
        return False
    linear = bound.rule.linear
    read = range(len(bound.inputs)) if linear is None else (linear.data,)
    data = [bound.inputs[k] or () for k in read if (index, k) not in walked.labels and k != slot]
    return any(bound.in_output(f) and not any(f in dim for t in data for dim in t) for f in term[axis])


def _distinct(groups: list[Group]) -> tuple[Group, ...]:
    counts: dict[str, int] = {}
    renamed: list[Group] = []
    for group in groups:
        counts[group.name] = counts.get(group.name, 0) + 1
        name = group.name if counts[group.name] == 1 else f"{group.name}#{counts[group.name]}"
        renamed.append(Group(group.id, name, group.units, group.axes))
    return tuple(renamed)
