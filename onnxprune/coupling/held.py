"""Channels of weights that stay, and why: the part of a coupling that a report must explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.decide import Classes
from onnxprune.coupling.groups import LockedChannels
from onnxprune.coupling.labels import Axis
from onnxprune.coupling.reasons import LAST, Reason
from onnxprune.graph.dequantized import readers_of_constant, stored_source
from onnxprune.graph.view import Graph


def held_channels(graph: Graph, walked: Walked, classes: Classes, unit_of: np.ndarray) -> tuple[LockedChannels, ...]:
    """Channels of multiplying weights that stay.  The report must explain these."""
    locked: dict[int, list[tuple[Axis, np.ndarray]]] = {}
    tied: dict[int, list[tuple[Axis, np.ndarray]]] = {}
    for axis, roots in _channel_axes(graph, walked, classes):
        stuck = roots[classes.lock[roots] >= 0]
        if len(stuck) > 1:
            locked.setdefault(int(classes.lock[stuck[0]]), []).append((axis, stuck))
        if len(roots) > 1 and classes.lock[roots[0]] < 0 and (unit_of[roots] < 0).all():
            tied.setdefault(int(roots[0]), []).append((axis, roots))
    held = []
    for which, places in locked.items():
        size = max(len(np.unique(stuck)) for _, stuck in places)
        held.append(_held(graph, places, size, classes.reasons[which]))
    for places in tied.values():
        size = max(len(roots) for _, roots in places)
        reason = Reason(f"its {size} positions are tied into one unit, and one must stay", remedy=LAST)
        held.append(_held(graph, places, size, reason))
    return (*held, *_refused(graph, walked))


def _channel_axes(graph: Graph, walked: Walked, classes: Classes) -> Iterator[tuple[Axis, np.ndarray]]:
    """Each axis of a multiplying weight that holds channels, and the class of each of its positions.

    Leaves out axes that belong to the layer alone: taps, the directions of a recurrence, blocks of packed weights.
    """
    for index, bound in walked.bounds.items():
        if bound.rule.linear is None and not bound.rule.macs:
            continue
        for slot, term in enumerate(bound.inputs):
            key = stored_at(graph, walked, index, slot) or _cast_at(graph, walked, index, slot)
            if term is None or key is None:
                continue
            for axis, dim in enumerate(term):
                private = all(len(bound.inputs_with(f)) == 1 and not bound.in_output(f) for f in dim)
                if not private and not bound.rule.mix.issuperset(dim):
                    yield (key, axis), classes.of[walked.labels[key][axis]].ravel()


def _held(graph: Graph, places: Sequence[tuple[Axis, np.ndarray]], size: int, reason: Reason) -> LockedChannels:
    key = places[0][0][0]
    readers = readers_of_constant(graph, key) if isinstance(key, tuple) else []
    name = graph.nodes[readers[0][0] if readers else 0].label
    return LockedChannels(name, size, reason, tuple(axis for axis, _ in places))


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
    use = stored_source(graph, graph.nodes[index].inputs[slot] or "")
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
