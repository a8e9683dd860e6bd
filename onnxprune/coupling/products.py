"""Axes that are the product of two axes of channels: a Gram matrix or an outer product, flattened.

A position (i, j) of such an axis stays if both i and j stay.  It holds one atom for each, so the labels are a matrix
(positions, factors).  A cut keeps the product of the positions that the factors keep.

When a Reshape joins or splits axes, usually one of them is cut and the others stay
(:class:`onnxprune.coupling.ledger.Choice`).  That is right for heads and head size, which have no weights of their own.
If separate weights make each axis, all of them can be cut.  This module finds such axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.components import components
from onnxprune.coupling.labels import Axis, FactorGrid, Key, Labels
from onnxprune.coupling.ledger import Ledger
from onnxprune.coupling.rule import Bound
from onnxprune.coupling.trace import AxisLink


@dataclass(frozen=True, eq=False)
class Knot:
    """Links of one mover that split an axis or join several.  ``value`` is the output that they reach."""

    node: int
    value: str
    links: tuple[AxisLink, ...]

    def flat(self, labels: Labels) -> tuple[Axis, tuple[Axis, ...]] | None:
        """(the product axis, its factors in order); ``None`` if neither side is a single axis."""
        into, out = sorted({(k.slot, k.axis) for k in self.links}), sorted({k.out_axis for k in self.links})
        inputs = [(labels.key(labels.graph.nodes[self.node], slot) or "", axis) for slot, axis in into]
        outputs: list[Axis] = [(self.value, axis) for axis in out]
        if len(into) > 1 and len(out) == 1 and len({slot for slot, _ in into}) == 1:
            return outputs[0], tuple(inputs)
        return (inputs[0], tuple(outputs)) if len(into) == 1 and len(out) > 1 else None


@dataclass(frozen=True, eq=False)
class Products:
    """``knots`` split or join products of channels: (node, the product axis).  ``axes`` are all axes that are such products.

    A node may also have other knots: a Reshape can join one pair of axes and split another.
    """

    knots: frozenset[tuple[int, Axis]]
    axes: Mapping[Axis, FactorGrid]


NONE = Products(frozenset(), {})


def products_of(labels: Labels, bounds: Mapping[int, Bound], knots: Sequence[Knot]) -> Products:
    """Products of axes that separate weights make; see the module.  Cost: linear in positions, per product."""
    ties = _Ties(labels, bounds)
    products: set[tuple[int, Axis]] = set()
    axes: dict[Axis, FactorGrid] = {}
    for knot in knots:
        product = knot.flat(labels)
        if product is None:
            continue
        flat, factors = product
        live = [ties.is_made(factor) for factor in factors]
        if sum(live) < 2:
            continue
        columns = tuple(sum(live[:k]) if made else None for k, made in enumerate(live))
        grid = FactorGrid(tuple(ties.size(factor) for factor in factors), columns)
        joined = ties.same(flat)
        if joined is not None and all(axes.get(axis, grid) == grid for axis in joined):
            products.add((knot.node, flat))
            axes.update(dict.fromkeys(joined, grid))
    return Products(frozenset(products), axes)


class _Ties:
    """Ties and locks that hold whatever the choices decide."""

    def __init__(self, labels: Labels, bounds: Mapping[int, Bound]) -> None:
        self._labels = labels
        ledger: Ledger = labels.ledger
        left, right, _ = ledger.edges()
        self._of = components(ledger.count, left, right)
        self._locked = np.zeros(ledger.count, dtype=np.bool_)
        self._locked[self._of[ledger.locks()[0]]] = True
        self._weighed = np.zeros(ledger.count, dtype=np.bool_)
        for key, atoms in self._axes():
            if isinstance(key[0], tuple) and (bound := bounds.get(key[0][0])) is not None:
                if bound.rule.linear is not None or bound.rule.macs:
                    self._weighed[self._of[atoms]] = True

    def _axes(self) -> Iterator[tuple[Axis, np.ndarray]]:
        for key, lines in self._labels.of.items():
            for axis, atoms in enumerate(lines):
                yield (key, axis), atoms

    def _roots(self, axis: Axis) -> np.ndarray:
        key: Key = axis[0]
        return np.asarray(self._of[(self._labels.get(key) or ())[axis[1]]])

    def size(self, axis: Axis) -> int:
        return len(self._roots(axis))

    def is_made(self, axis: Axis) -> bool:
        """Whether weights make this axis, and at least two of its positions may leave."""
        roots = np.unique(self._roots(axis))
        return bool((self._weighed[roots] & ~self._locked[roots]).sum() > 1)

    def same(self, flat: Axis) -> list[Axis] | None:
        """Every axis tied to ``flat``; ``None`` if one is locked or not tied position by position."""
        roots = self._roots(flat)
        mine = np.zeros(len(self._of), dtype=np.bool_)
        mine[roots] = True
        if len(np.unique(roots)) < len(roots) or self._locked[roots].any():
            return None
        tied: list[Axis] = []
        for axis, atoms in self._axes():
            other = self._of[atoms]
            if not mine[other].any():
                continue
            if not np.array_equal(other, roots):
                return None
            tied.append(axis)
        return tied
