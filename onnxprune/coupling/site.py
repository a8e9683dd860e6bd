"""One node during one cut: which positions of its axes stay, and the edits that make it follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.labels import Key
from onnxprune.graph.facts import Facts
from onnxprune.graph.known import Shape
from onnxprune.graph.view import Graph, Node

Array = np.ndarray

#: (key, axis) → which positions of that axis stay, (positions,) bool.
Masks = Callable[[Key, int], Array]


@dataclass(frozen=True, eq=False)
class InputEdit:
    """The node's input ``slot`` now reads the constant ``value``."""

    node: int
    slot: int
    value: Array


@dataclass(frozen=True, eq=False)
class AttributeEdit:
    """The node's attribute ``name`` now has this value; ``None`` removes it."""

    node: int
    name: str
    value: int | float | tuple[int, ...] | None


Edit = InputEdit | AttributeEdit


class CannotFollow(Exception):
    """No edit makes this node follow the cut.

    ``axes``: the (key, axis) at the node that must stay whole.  ``sources``: the axes whose sizes its operand is
    computed from; they must stay if the node's own axes already do.
    """

    def __init__(
        self, node: Node, text: str, axes: list[tuple[Key, int]], sources: list[tuple[Key, int]] | None = None
    ) -> None:
        super().__init__(f"{node.op} '{node.label}' {text}")
        self.node = node
        self.text = text
        self.axes = axes
        self.sources = sources or []


@dataclass(frozen=True, eq=False)
class Site:
    """One node during one cut, with the masks of all axes.

    ``shape_of`` gives the shape of a value after the cut.  ``needs`` collects the required value of each operand (site,
    slot, value), to check once all edits are known.
    """

    graph: Graph
    facts: Facts
    walked: Walked
    masks: Masks
    node: Node
    shape_of: Callable[[str], Shape]
    needs: list[tuple[Site, int, Array]]

    def key(self, slot: int) -> Key | None:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return (self.node.index, slot) if (self.node.index, slot) in self.walked.labels else value

    def mask_in(self, slot: int, axis: int) -> Array:
        key = self.key(slot)
        return self.masks(key if key is not None else "", axis)

    def mask_out(self, axis: int, output: int = 0) -> Array:
        return self.masks(self.node.outputs[output] or "", axis)

    def shape_in(self, slot: int = 0) -> Shape:
        return self.facts.shapes[self.node.inputs[slot] or ""]

    def shape_out(self, output: int = 0) -> Shape:
        return self.facts.shapes[self.node.outputs[output] or ""]

    def new_in(self, axis: int, slot: int = 0) -> int:
        return int(self.mask_in(slot, axis).sum())

    def new_out(self, axis: int, output: int = 0) -> int:
        return int(self.mask_out(axis, output).sum())

    def out_axes(self) -> list[tuple[Key, int]]:
        return [(o, a) for o in self.node.outputs if o is not None for a in range(len(self.facts.shapes[o]))]

    def original(self, slot: int) -> Array | None:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return self.facts.values.get(value, self.graph.constants.get(value))

    def ints(self, attribute: str, slot: int) -> list[int] | None:
        stated = self.node.integers(attribute)
        if stated is not None:
            return list(stated)
        operand = self.original(slot)
        return None if operand is None else [int(i) for i in operand.ravel()]
