"""Constants that are one stored array in several layouts: the array itself, its copies, and Transposes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node, copies, data_uses

Array = np.ndarray
Use = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """``value`` is the stored constant ``stored`` with its axes in another order: axis ``a`` is ``axes[a]`` of it."""

    stored: str
    value: str
    axes: tuple[int, ...]

    def back(self, array: Array) -> Array:
        """An array in this layout, as it would be stored."""
        return array.transpose(np.argsort(self.axes))


def layout_of(graph: Graph, facts: Facts, value: str) -> Layout | None:
    """The layout of a stored constant, or of one that other nodes compute from such, that ``value`` is; ``None`` where
    it is no constant."""
    stored, steps = value, list[Node]()
    while stored in graph.producer and _lays_out(graph, facts, graph.nodes[graph.producer[stored]]):
        steps.append(graph.nodes[graph.producer[stored]])
        stored = steps[-1].inputs[0] or ""
    if stored not in graph.constants and graph.producer.get(stored, -1) not in facts.folded:
        return None
    axes = tuple(range(len(facts.shapes[stored])))
    for node in reversed(steps):
        axes = _step(node, axes)
    return Layout(stored, value, axes)


def layouts_of(graph: Graph, facts: Facts, stored: str) -> list[Layout]:
    """Every layout in which the constant is read, its own first."""
    found = [Layout(stored, stored, tuple(range(len(facts.shapes[stored]))))]
    for layout in found:
        for index, _ in graph.consumers.get(layout.value, ()):
            node = graph.nodes[index]
            if _lays_out(graph, facts, node) and node.outputs[0] is not None:
                found.append(Layout(stored, node.outputs[0], _step(node, layout.axes)))
    return found


def readers_of_stored(graph: Graph, facts: Facts, stored: str) -> Iterator[tuple[Use, Layout]]:
    """Uses of the stored constant in any layout, other than by nodes that only lay it out or ask for its size."""
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
