"""Labels: the atoms of every axis of every value, created on first access, and their locks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.ledger import Atoms, Ledger
from onnxprune.coupling.reasons import NOTHING, Reason
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node

#: What labels belong to: a value id, or (node index, input slot) for one use of a constant.  Each use of a shared
#: initializer has its own labels, because each is cut on its own.
Key = str | tuple[int, int]
Axis = tuple[Key, int]


@dataclass(frozen=True)
class FactorGrid:
    """The factors of an axis that is a product of axes.

    ``sizes`` lists the sizes of the factors, the last one fastest.  ``columns`` lists the column of each factor in the
    axis's labels, ``None`` for a factor that stays whole.
    """

    sizes: tuple[int, ...]
    columns: tuple[int | None, ...]

    @property
    def width(self) -> int:
        return sum(column is not None for column in self.columns)


class Labels:
    """Everything that one walk over ``graph`` records: atoms ``of[key][axis]``, and their ties and locks in the ledger."""

    def __init__(self, graph: Graph, facts: Facts, products: Mapping[Axis, FactorGrid]) -> None:
        self.graph = graph
        self.facts = facts
        self.products = products
        self.ledger = Ledger()
        self.of: dict[Key, tuple[Atoms, ...]] = {}

    def is_constant(self, value: str) -> bool:
        if value in self.graph.constants:
            return True
        return value in self.facts.values and not self.is_arithmetic(value)

    def is_arithmetic(self, value: str) -> bool:
        return self.graph.producer.get(value, -1) in self.facts.arithmetic

    def key(self, node: Node, slot: int) -> Key | None:
        value = node.inputs[slot]
        if value is None:
            return None
        return (node.index, slot) if self.is_constant(value) else value

    def get(self, key: Key) -> tuple[Atoms, ...] | None:
        """Labels of a value or of one use of a constant, created on first access; ``None`` if its shape is unknown."""
        if key not in self.of:
            value = key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]]
            shape = self.facts.shapes.get(value or "")
            if shape is None:
                return None
            self.of[key] = tuple(self.fresh(key, axis, n) for axis, n in enumerate(shape))
            if isinstance(key, str) and key in self.graph.initializers:
                self.lock_all(key, f"a node reads all of '{key}'", None, NOTHING)
        return self.of[key]

    def fresh(self, key: Key, axis: int, size: int) -> Atoms:
        """New atoms for one axis of ``size`` positions."""
        grid = self.products.get((key, axis))
        return self.ledger.fresh(size, 0 if grid is None else grid.width)

    def lock_all(self, key: Key, text: str, node: int | None, remedy: str) -> None:
        value = key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]]
        for axis, atoms in enumerate(self.get(key) or ()):
            if atoms.size > 1:
                self.ledger.lock(atoms, Reason(text, node, value, axis, remedy))

    def constant(self, value: str) -> np.ndarray:
        known = self.facts.values.get(value)
        return known if known is not None else self.graph.constants[value]


def named(node: Node) -> str:
    """What a message calls a node."""
    return f"{node.op} '{node.label}'"
