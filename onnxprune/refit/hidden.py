"""Hidden layers: those whose output nothing but one later layer sees, through elementwise operators only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Node
from onnxprune.linear.form import Layer
from onnxprune.surgery.cut import constant_of


@dataclass(frozen=True, eq=False)
class Hidden:
    """``reader.data`` = ``chain`` (``layer.output``): what the layer computes matters only through its reader."""

    layer: Layer
    chain: tuple[Node, ...]
    reader: Layer


#: Hidden layers in a row that are refined against one reader.
DEPTH = 2


def stretches(coupling: Coupling, layers: Sequence[Layer]) -> dict[int, tuple[Hidden, ...]]:
    """Per layer index, in graph order, the hidden layers that lead to it, the nearest first."""
    pairs = {layer.index: hidden_of(coupling, layer, layers) for layer in layers}
    found: dict[int, tuple[Hidden, ...]] = {}
    for index, pair in pairs.items():
        stretch: list[Hidden] = []
        while pair is not None and len(stretch) < DEPTH:
            stretch.append(pair)
            pair = pairs[pair.layer.index]
        found[index] = tuple(stretch)
    return found


def hidden_of(coupling: Coupling, reader: Layer, layers: Sequence[Layer]) -> Hidden | None:
    """The hidden layer that ``reader`` reads, if there is one."""
    if reader.kind == "transpose":
        return None
    for layer in reversed([known for known in layers if known.index < reader.index]):
        chain = _chain(coupling, layer, reader)
        if chain is not None:
            alike = all(
                constant_of(coupling, (one.index, one.weight_slot)).dtype == np.float32 for one in (layer, reader)
            )
            return Hidden(layer, chain, reader) if alike else None
    return None


def _chain(coupling: Coupling, layer: Layer, reader: Layer) -> tuple[Node, ...] | None:
    """The nodes between the two, in graph order; ``None`` where others see what is between, or there is no way."""
    graph = coupling.graph
    reached = {layer.output}
    after: list[Node] = []
    for node in graph.nodes[layer.index + 1 : reader.index]:
        data = [v for v in node.inputs if v is not None and not _fixed(coupling, v)]
        if not node.scope and data and reached.issuperset(data) and _elementwise(coupling, node):
            after.append(node)
            reached.update(v for v in node.outputs if v is not None)
    if reader.data not in reached:
        return None
    needed = {reader.data}
    chain: list[Node] = []
    for node in reversed(after):
        if needed.intersection(v for v in node.outputs if v is not None):
            chain.insert(0, node)
            needed.update(v for v in node.inputs if v is not None and not _fixed(coupling, v))
    members = {reader.index, *(node.index for node in chain)}
    seen = any(v in graph.outputs or any(i not in members for i, _ in graph.consumers.get(v, ())) for v in needed)
    return None if seen or layer.output not in needed else tuple(chain)


def _fixed(coupling: Coupling, value: str) -> bool:
    return value in coupling.graph.constants or value in coupling.facts.values


def _elementwise(coupling: Coupling, node: Node) -> bool:
    """Each position of the output depends on the same position of the data inputs, and on constants."""
    bound = coupling.walked.bounds.get(node.index)
    if bound is None or bound.rule.mix or bound.rule.linear is not None or len(bound.outputs) != 1:
        return False
    shapes = coupling.facts.shapes
    for value, term in zip(node.inputs, bound.inputs, strict=False):
        if value is not None and not _fixed(coupling, value):
            if term != bound.outputs[0] or shapes.get(value) != shapes.get(node.outputs[0] or ""):
                return False
    return True
