"""Groups: the units that can be cut, sorted by the axes they run through.

A *unit* is a class of tied positions without a lock: the smallest thing that can leave.  A *group* is the set of units
with the same footprint: the same axes of the same tensors, equally often.  Its units are interchangeable: any of them
may leave in place of any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.bind import Walked, walk
from onnxprune.coupling.decide import Classes
from onnxprune.coupling.labels import Axis, Key, named
from onnxprune.coupling.ledger import Taken
from onnxprune.coupling.operands import edits
from onnxprune.coupling.products import products_of
from onnxprune.coupling.reasons import FOLD, LAST, SIMPLIFY, Reason
from onnxprune.coupling.site import CannotFollow, Edit, Masks
from onnxprune.coupling.solve import solve
from onnxprune.graph.dequantized import axis_behind, readers_behind, stored_behind
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph

#: Number of trial cuts, and how many of them take the same share of every group.
REHEARSALS, EVEN = 6, 3


@dataclass(frozen=True, eq=False)
class Group:
    """``units``: global unit ids, in order of position.  ``axes``: every axis that the group runs through."""

    id: int
    name: str
    units: np.ndarray
    axes: tuple[Axis, ...]

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True, eq=False)
class LockedChannels:
    """Channels of weights that stay: how many (``size``), why, and on which axes.  ``name`` is the label of a node."""

    name: str
    size: int
    reason: Reason
    axes: tuple[Axis, ...]


@dataclass(frozen=True, eq=False)
class Coupling:
    """The complete coupling of one graph at one set of input shapes.

    ``units[key][axis]`` (positions,) holds the unit id of each position, -1 if it must stay.  On an axis that is a
    product of channels it is (positions, factors); a position there stays if all of its units stay.
    """

    graph: Graph
    facts: Facts
    walked: Walked
    classes: Classes
    units: Mapping[Key, tuple[np.ndarray, ...]]
    groups: tuple[Group, ...]
    held: tuple[LockedChannels, ...]
    unit_count: int

    @property
    def choices(self) -> tuple[Taken, ...]:
        return self.classes.taken

    def masks(self, keep: np.ndarray) -> Masks:
        """Position masks of a cut.  ``keep`` (units,) bool says which units stay."""
        # A unit id of -1 indexes the appended True.
        extended = np.append(keep, True)

        def mask(key: Key, axis: int) -> np.ndarray:
            units = self.units.get(key)
            if units is None:
                value = key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]]
                return np.ones(self.facts.shapes[value or ""][axis], dtype=np.bool_)
            stays = extended[units[axis]]
            return np.asarray(stays if stays.ndim == 1 else stays.all(axis=1))

        return mask

    def edits(self, keep: np.ndarray) -> list[Edit]:
        """Operand and attribute edits of a cut."""
        return edits(self.graph, self.facts, self.walked, self.masks(keep))

    def value_of(self, key: Key) -> str:
        """The value id behind a key."""
        return key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]] or ""


def couple_graph(graph: Graph, facts: Facts, rules: str = "exact") -> Coupling:
    """Couple ``graph`` with the operator table called ``rules``.

    If an operand cannot follow the cut of an axis, that axis gets a lock with that reason.
    Cost: linear in positions; a graph of 2,000 nodes takes seconds.
    """
    walked = walk(graph, facts, rules)
    # Find products first: settling adds locks that may hold for this first walk only.
    products = products_of(walked.labelled, walked.bounds, walked.knots)
    coupling = _settled(graph, facts, walked)
    if not products.nodes:
        return coupling
    finer = _settled(graph, facts, walk(graph, facts, rules, products))
    return finer if finer.unit_count > coupling.unit_count else coupling


def _settled(graph: Graph, facts: Facts, walked: Walked) -> Coupling:
    """The coupling of ``walked``, with locks on axes whose cut some operand cannot follow."""
    remedy = FOLD if facts.are_fixed(graph.inputs) else SIMPLIFY
    while True:
        coupling = _collect(graph, facts, walked, solve(walked.ledger))
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


def _collect(graph: Graph, facts: Facts, walked: Walked, classes: Classes) -> Coupling:
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
    held = _held(graph, walked, classes, unit_of)
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
    stored = [(key, axis_behind(graph, key, axis)) for key, axis in axes if isinstance(key, tuple)]
    uses = [(use, axis) for key, axis in stored for use in readers_behind(graph, key)]
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


def _held(graph: Graph, walked: Walked, classes: Classes, unit_of: np.ndarray) -> tuple[LockedChannels, ...]:
    """Channels of multiplying weights that stay.  The report must explain these."""
    locked: dict[int, list[tuple[Axis, np.ndarray]]] = {}
    tied: dict[int, list[tuple[Axis, np.ndarray]]] = {}
    for index, bound in walked.bounds.items():
        if bound.rule.linear is None and not bound.rule.macs:
            continue
        for slot, term in enumerate(bound.inputs):
            key = stored_at(graph, walked, index, slot) or _cast_at(graph, walked, index, slot)
            if term is None or key is None:
                continue
            for axis, dim in enumerate(term):
                private = all(len(bound.inputs_with(f)) == 1 and not bound.in_output(f) for f in dim)
                # Directions of a recurrence and blocks of packed weights belong to the layer's layout: no channels.
                private = private or bound.rule.mix.issuperset(dim)
                roots = classes.of[walked.labels[key][axis]].ravel()
                stuck = roots[classes.lock[roots] >= 0]
                if not private and len(roots) > 1 and classes.lock[roots[0]] < 0 and (unit_of[roots] < 0).all():
                    tied.setdefault(int(roots[0]), []).append(((key, axis), roots))
                if private or len(stuck) < 2:
                    continue
                locked.setdefault(int(classes.lock[stuck[0]]), []).append(((key, axis), stuck))
    held: list[LockedChannels] = []
    for which, places in locked.items():
        reason = classes.reasons[which]
        size = max(len(np.unique(stuck)) for _, stuck in places)
        held.append(LockedChannels(_held_name(graph, places[0][0]), size, reason, tuple(axis for axis, _ in places)))
    for places in tied.values():
        size = max(len(roots) for _, roots in places)
        reason = Reason(f"its {size} positions are tied into one unit, and one must stay", remedy=LAST)
        held.append(LockedChannels(_held_name(graph, places[0][0]), size, reason, tuple(axis for axis, _ in places)))
    return (*held, *_refused(graph, walked))


def stored_at(graph: Graph, walked: Walked, index: int, slot: int) -> tuple[int, int] | None:
    """The use of a constant that a node reads at ``slot``, directly or through a DequantizeLinear without blocks."""
    if (index, slot) in walked.labels:
        return index, slot
    made = graph.producer.get(graph.nodes[index].inputs[slot] or "")
    if made is None or graph.nodes[made].op != "DequantizeLinear" or (made, 0) not in walked.labels:
        return None
    return (made, 0) if made in walked.bounds and walked.bounds[made].rule.scales else None


def _cast_at(graph: Graph, walked: Walked, index: int, slot: int) -> tuple[int, int] | None:
    """The use of an integer constant that a node reads at ``slot`` through a Cast and a scale."""
    use = stored_behind(graph, graph.nodes[index].inputs[slot] or "")
    return use if use in walked.labels else None


def _refused(graph: Graph, walked: Walked) -> Iterator[LockedChannels]:
    """Weights of two or more dims at nodes that no rule fits: they stay whole."""
    for index, reason in walked.locked.items():
        node = graph.nodes[index]
        for slot, value in enumerate(node.inputs):
            tensor = graph.initializers.get(value or "")
            if tensor is not None and len([n for n in tensor.dims if n > 1]) > 1:
                axes = tuple(((index, slot), axis) for axis in range(len(tensor.dims)))
                yield LockedChannels(node.label, max(tensor.dims), reason, axes)


def _held_name(graph: Graph, axis: Axis) -> str:
    key = axis[0]
    readers = readers_behind(graph, key) if isinstance(key, tuple) else []
    return graph.nodes[readers[0][0] if readers else 0].label
