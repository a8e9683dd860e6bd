"""Constants that hold one stored array in several layouts: the array itself, its copies, and its Transposes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.graph.facts import Facts
from onnxprune.graph.uses import Use, copies, data_uses
from onnxprune.graph.view import Graph, Node

Array = np.ndarray


@dataclass(frozen=True)
class StoredLayout:
    """``value`` is the constant ``stored`` with reordered axes: its axis ``a`` is axis ``axes[a]`` of ``stored``."""

    stored: str
    value: str
    axes: tuple[int, ...]

    def back(self, array: Array) -> Array:
        """``array``, which has this layout, in the layout of the stored constant."""
        return array.transpose(np.argsort(self.axes))


def layout_of(graph: Graph, facts: Facts, value: str) -> StoredLayout | None:
    """The layout that ``value`` is of a stored or computed constant; ``None`` if ``value`` is not a constant."""
    stored, steps = value, list[Node]()
    while stored in graph.producer and _lays_out(graph, facts, graph.nodes[graph.producer[stored]]):
        steps.append(graph.nodes[graph.producer[stored]])
        stored = steps[-1].inputs[0] or ""
    if stored not in graph.constants and graph.producer.get(stored, -1) not in facts.folded:
        return None
    axes = tuple(range(len(facts.shapes[stored])))
    for node in reversed(steps):
        axes = _step(node, axes)
    return StoredLayout(stored, value, axes)


def layouts_of(graph: Graph, facts: Facts, stored: str) -> list[StoredLayout]:
    """Every layout of the constant in the graph, its own first."""
    layouts = [StoredLayout(stored, stored, tuple(range(len(facts.shapes[stored]))))]
    # The list grows while it is read, so that layouts of layouts follow.
    for layout in layouts:
        for index, _ in graph.consumers.get(layout.value, ()):
            node = graph.nodes[index]
            if _lays_out(graph, facts, node) and node.outputs[0] is not None:
                layouts.append(StoredLayout(stored, node.outputs[0], _step(node, layout.axes)))
    return layouts


def readers_of_stored(graph: Graph, facts: Facts, stored: str) -> Iterator[tuple[Use, StoredLayout]]:
    """Uses of the stored constant in any layout, except by nodes that only change the layout or read its size."""
    for layout in layouts_of(graph, facts, stored):
        for use in data_uses(graph, layout.value):
            if not _lays_out(graph, facts, graph.nodes[use[0]]):
                yield use, layout


def _lays_out(graph: Graph, facts: Facts, node: Node) -> bool:
    if node.op == "Transpose" and not node.domain:
        return node.index in facts.folded
    return copies(graph, node)


def _step(node: Node, axes: tuple[int, ...]) -> tuple[int, ...]:
    if node.op != "Transpose":
        return axes
    order = node.integers("perm") or tuple(range(len(axes)))[::-1]
    return tuple(axes[a] for a in order)
