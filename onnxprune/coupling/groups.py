"""Groups: the units that can be cut, sorted by the axes they run through.

A *unit* is a class of tied positions without a lock: the smallest thing that can leave.  A *group* is the set of units
with the same footprint: the same axes of the same tensors, equally often.  Its units are interchangeable: any of them
may leave in place of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.decide import Classes
from onnxprune.coupling.labels import Axis, Key
from onnxprune.coupling.ledger import Taken
from onnxprune.coupling.operands import edits
from onnxprune.coupling.reasons import Reason
from onnxprune.coupling.site import Edit, Masks
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph


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
        """The value id that a key refers to."""
        return key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]] or ""
