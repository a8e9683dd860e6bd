"""The fields of a model's outputs: which axis holds channels, which layers make them, whether they are squashed.

An output may hold several quantities along one axis, such as boxes in pixels and class probabilities.  This module
separates them by the graph alone.  The coupling ties every position of an output axis to the positions it comes from.  One pass
against the direction of the graph carries the channels of each output back to the last linear layers that make them.
Channels that come from the same last layers are one :class:`Field`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key
from onnxprune.graph.view import Node

Array = np.ndarray
#: Operators whose outputs lie between 0 and 1.
SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
#: Operators that keep numbers between 0 and 1 if all their data inputs are.
KEEPING = frozenset({"Identity", "Cast", "Mul", "Max", "Min", "ReduceMax", "MaxPool", "Sqrt", "Resize", "Upsample"})
#: An axis is much shorter than the others if they are this many times as long.
SHORTER = 8


@dataclass(frozen=True, eq=False)
class Field:
    """Channels of one output that come from the same last linear layers.

    ``output``: its position among the requested outputs.  ``axis``: the channel axis; ``None`` if the whole output counts
    as one channel.  ``channels``: positions on that axis, int64, ascending.  ``makers``: node indices of the layers.
    ``squashed``: whether a sigmoid or a softmax made every number, and only moves follow it.
    """

    output: int
    axis: int | None
    channels: Array
    makers: frozenset[int]
    squashed: bool


def fields_of(coupling: Coupling, outputs: Sequence[str]) -> tuple[Field, ...]:
    """The fields of ``outputs`` (value ids), in their order.

    Cost: one pass over the nodes per output.
    """
    squashed = _squashed(coupling)
    return tuple(
        field for number, value in enumerate(outputs) for field in _taken_apart(coupling, number, value, squashed)
    )


def output_channel_axis(coupling: Coupling, value: str) -> int | None:
    """The axis of ``value`` (after axis 0) with the most positions that are output channels of linear layers.

    A Reshape may have mixed channels with places, so that no axis has any.  Then the shortest axis counts if it is much
    shorter than the others, else there is none.
    """
    made = _made_classes(coupling)
    classes = _classes(coupling, value)[1:]
    counts = [int(np.isin(own, made).sum()) for own in classes]
    if any(counts):
        return 1 + int(np.argmax(counts))
    sizes = [len(own) for own in classes]
    if sorted(sizes)[1:] and 1 < SHORTER * min(sizes) <= sorted(sizes)[1]:
        return 1 + int(np.argmin(sizes))
    return None


def _taken_apart(coupling: Coupling, number: int, value: str, squashed: frozenset[str]) -> list[Field]:
    axis = output_channel_axis(coupling, value)
    size = 1 if axis is None else coupling.facts.shapes[value][axis]
    makers, bounded = _origins(coupling, value, axis, size, squashed)
    members: dict[tuple[frozenset[int], bool], list[int]] = {}
    for channel in range(size):
        by = frozenset(index for index, mask in makers.items() if mask[channel])
        members.setdefault((by, bool(bounded[channel])), []).append(channel)
    return [Field(number, axis, np.asarray(c, dtype=np.int64), by, flag) for (by, flag), c in members.items()]


def _origins(
    coupling: Coupling, value: str, axis: int | None, size: int, squashed: frozenset[str]
) -> tuple[Mapping[int, Array], Array]:
    """(last linear layer -> its channels, boolean (size,); the squashed channels, boolean (size,))."""
    graph, movers = coupling.graph, coupling.walked.movers
    classes = np.full(1, -1) if axis is None else _classes(coupling, value)[axis]
    reached: dict[str, Array] = {value: np.ones(size, dtype=np.bool_)}
    # Channels that only moves follow.
    moved: dict[str, Array] = {value: np.ones(size, dtype=np.bool_)}
    makers: dict[int, Array] = {}
    bounded = np.ones(size, dtype=np.bool_)
    for node in reversed(graph.nodes):
        mask = _any(reached, node.outputs, size)
        if node.scope or not mask.any():
            continue
        plain = _any(moved, node.outputs, size)
        if any(out in squashed for out in node.outputs):
            plain = plain & False
        elif node.index not in movers and node.op != "Identity":
            bounded &= ~plain
            plain = plain & False
        if _is_linear(coupling, node):
            makers[node.index] = mask
            continue
        inputs = _data(coupling, node)
        holds = [np.isin(classes, np.concatenate(_classes(coupling, v) or [np.empty(0)])) for v in inputs]
        # If no input holds a channel, the node mixes it from all of them.
        lost = ~np.logical_or.reduce(holds) if holds else np.zeros(size, dtype=np.bool_)
        for source, held in zip(inputs, holds, strict=True):
            for masks, mine in ((reached, mask), (moved, plain)):
                masks[source] = masks.get(source, np.zeros(size, dtype=np.bool_)) | (mine & (held | lost))
    return makers, bounded & (value in graph.producer)


def _any(masks: Mapping[str, Array], values: Sequence[str | None], size: int) -> Array:
    union = np.zeros(size, dtype=np.bool_)
    for value in values:
        if value is not None and value in masks:
            union = union | masks[value]
    return union


def _data(coupling: Coupling, node: Node) -> list[str]:
    """Inputs of ``node`` that depend on data: neither constants nor sizes."""
    made = coupling.graph.producer
    fixed = coupling.facts.arithmetic | coupling.facts.folded
    return [value for value in node.inputs if value is not None and value in made and made[value] not in fixed]


def _squashed(coupling: Coupling) -> frozenset[str]:
    """Values that lie between 0 and 1 because of the operators that make them."""
    graph, bounded = coupling.graph, set[str]()
    for node in graph.nodes:
        data = _data(coupling, node)
        keeps = node.op in KEEPING or node.index in coupling.walked.movers
        if node.op in SQUASHING or (keeps and data and all(v in bounded for v in data)):
            bounded |= {v for v in node.outputs if v is not None}
    return frozenset(bounded)


def _is_linear(coupling: Coupling, node: Node) -> bool:
    bound = coupling.walked.bounds.get(node.index)
    return bound is not None and (bound.rule.linear is not None or bool(bound.rule.macs))


def _made_classes(coupling: Coupling) -> Array:
    """Classes of positions that are output channels of linear layers: they stem from a weight, not from an input."""
    made = []
    for index, bound in coupling.walked.bounds.items():
        linear = bound.rule.linear
        value = coupling.graph.nodes[index].outputs[0]
        if linear is None or value is None or bound.outputs[0] is None:
            continue
        weight, data = bound.inputs[linear.weight] or (), bound.inputs[linear.data] or ()
        born = {f for dim in weight for f in dim} - {f for dim in data for f in dim}
        for dim, classes in zip(bound.outputs[0], _classes(coupling, value), strict=True):
            if born.intersection(dim):
                made.append(classes)
    return np.unique(np.concatenate(made)) if made else np.empty(0, dtype=np.int64)


def _classes(coupling: Coupling, key: Key) -> list[Array]:
    """The class of each position, per axis of a value."""
    return [coupling.classes.of[atoms].ravel() for atoms in coupling.walked.labels.get(key, ())]
