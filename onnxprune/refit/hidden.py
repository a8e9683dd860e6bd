"""Hidden layers: only one later layer sees their output, and only through elementwise operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Node
from onnxprune.linear.form import Layer
from onnxprune.surgery.cut import constant_of


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """``reader.data`` = ``chain`` (``layer.output``), and nothing else reads the output of ``layer``."""

    layer: Layer
    chain: tuple[Node, ...]
    reader: Layer


#: How many hidden layers in a row are refined against one reader.
DEPTH = 2


def stretches(coupling: Coupling, layers: Sequence[Layer]) -> dict[int, tuple[HiddenLayer, ...]]:
    """Node index of each layer -> the hidden layers that lead to it, the nearest first.  In graph order."""
    made_by = {layer.output: layer for layer in layers}
    pairs = {layer.index: hidden_of(coupling, layer, made_by) for layer in layers}
    leading: dict[int, tuple[HiddenLayer, ...]] = {}
    for index, pair in pairs.items():
        stretch: list[HiddenLayer] = []
        while pair is not None and len(stretch) < DEPTH:
            stretch.append(pair)
            pair = pairs[pair.layer.index]
        leading[index] = tuple(stretch)
    return leading


def taking_part(leading: Mapping[int, Sequence[HiddenLayer]]) -> frozenset[int]:
    """The indices of all layers of some :func:`stretches`, their readers included."""
    return frozenset(layer.index for stretch in leading.values() for one in stretch for layer in (one.layer, one.reader))


def hidden_of(coupling: Coupling, reader: Layer, made_by: Mapping[str, Layer]) -> HiddenLayer | None:
    """The hidden layer that ``reader`` reads, if there is one.  ``made_by``: layers by their output.

    Cost: linear in the nodes between the two.
    """
    if reader.kind == "transpose":
        return None
    origin = _origin(coupling, reader, made_by)
    if origin is None:
        return None
    layer, between = origin
    members = {reader.index, *between}
    values = {layer.output, *(o for index in between for o in coupling.graph.nodes[index].outputs if o is not None)}
    graph = coupling.graph
    seen = any(v in graph.outputs or any(i not in members for i, _ in graph.consumers.get(v, ())) for v in values)
    alike = all(constant_of(coupling, (one.index, one.weight_slot)).dtype == np.float32 for one in (layer, reader))
    return HiddenLayer(layer, tuple(graph.nodes[index] for index in sorted(between)), reader) if alike and not seen else None


def _origin(coupling: Coupling, reader: Layer, made_by: Mapping[str, Layer]) -> tuple[Layer, set[int]] | None:
    """The only layer whose output reaches ``reader``, and the indices of the elementwise nodes in between.

    ``None`` if several layers do, or if another kind of node is on the way.
    """
    graph = coupling.graph
    origins: dict[int, Layer] = {}
    between: set[int] = set()
    ahead = [reader.data]
    while ahead:
        value = ahead.pop()
        if value in made_by:
            origins[made_by[value].index] = made_by[value]
            continue
        index = graph.producer.get(value)
        if index is None or graph.nodes[index].scope or not _elementwise(coupling, graph.nodes[index]):
            return None
        if index in between:
            continue
        between.add(index)
        ahead += [v for v in graph.nodes[index].inputs if v is not None and not _fixed(coupling, v)]
    return (next(iter(origins.values())), between) if len(origins) == 1 else None


def _fixed(coupling: Coupling, value: str) -> bool:
    return value in coupling.graph.constants or value in coupling.facts.values


def _elementwise(coupling: Coupling, node: Node) -> bool:
    """Whether each output position depends only on the same position of the data inputs, and on constants."""
    bound = coupling.walked.bounds.get(node.index)
    if bound is None or bound.rule.mix or bound.rule.linear is not None or len(bound.outputs) != 1:
        return False
    shapes = coupling.facts.shapes
    for value, term in zip(node.inputs, bound.inputs, strict=False):
        if value is not None and not _fixed(coupling, value):
            if term != bound.outputs[0] or shapes.get(value) != shapes.get(node.outputs[0] or ""):
                return False
    return True
