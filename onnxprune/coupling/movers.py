"""Ties of one mover at one node, from its trace."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.coupling.labels import Axis, Labels, named
from onnxprune.coupling.ledger import Atoms, Choice, CutOption
from onnxprune.coupling.products import Knot, Products
from onnxprune.coupling.reasons import CHOSEN, NOTHING, Reason
from onnxprune.coupling.rule import DoesNotFit, NodeInfo
from onnxprune.coupling.trace import AxisLink, Trace
from onnxprune.graph.view import Node


class MoverTies:
    """Enters the trace of one node into the labels."""

    def __init__(self, labels: Labels, node: Node, products: Products) -> None:
        self.labels = labels
        self.node = node
        self.products = products
        self.knots: list[Knot] = []

    def enter(self, movement: Trace, info: NodeInfo) -> None:
        node = self.node
        for slot, axis, positions in movement.fixed:
            key = self.labels.key(node, slot)
            labels = None if key is None else self.labels.get(key)
            if labels is not None:
                text = f"{named(self.node)} takes single positions of this axis"
                self._lock(
                    labels[axis][positions], Reason(text, self.node.index, self.node.inputs[slot], axis, NOTHING)
                )
        for output, value in enumerate(self.node.outputs):
            if value is not None:
                self._connect(value, [k for k in movement.links if k.output == output], {} if output else movement.grains)
        self._uneven_pad(info)
        self._strided_slice(info)

    def _lock(self, atoms: Atoms, reason: Reason) -> None:
        self.labels.ledger.lock(atoms, reason)

    def _connect(self, value: str, links: list[AxisLink], grains: Mapping[int, Atoms]) -> None:
        shape = self.labels.facts.shapes[value]
        into: dict[int, set[tuple[int, int]]] = {}
        outof: dict[tuple[int, int], set[int]] = {}
        for link in links:
            into.setdefault(link.out_axis, set()).add((link.slot, link.axis))
            outof.setdefault((link.slot, link.axis), set()).add(link.out_axis)
        labels = [
            self.labels.fresh(value, axis, int(grains[axis].max()) + 1)[grains[axis]]
            if axis in grains
            else self.labels.fresh(value, axis, n)
            for axis, n in enumerate(shape)
        ]
        self.labels.of[value] = tuple(labels)
        tangled: list[AxisLink] = []
        for link in links:
            same_slot = [k for k in into[link.out_axis] if k[0] == link.slot]
            if len(outof[link.slot, link.axis]) > 1 or len(same_slot) > 1:
                tangled.append(link)
                continue
            source = self._labels_of(link.slot)[link.axis][link.source]
            target = labels[link.out_axis][link.target]
            if source.shape != target.shape:
                raise DoesNotFit("it moves single factors of an axis that is a product of channels")
            self.labels.ledger.tie(source, target, self.node.index)
        for links in _knots(tangled):
            knot = Knot(self.node.index, value, tuple(links))
            self.knots.append(knot)
            product = knot.flat(self.labels)
            if product is not None and (self.node.index, product[0]) in self.products.knots:
                self._multiply(labels, knot, *product)
            elif any(labels[k.out_axis].ndim + self._labels_of(k.slot)[k.axis].ndim > 2 for k in links):
                raise DoesNotFit("it splits or joins an axis that is a product of channels in another way")
            else:
                self._choose_link(labels, links)

    def _multiply(self, labels: list[Atoms], knot: Knot, flat: Axis, factors: tuple[Axis, ...]) -> None:
        """Tie each of the ``factors`` of the product ``flat``, joined or split, on its own.  One without a column stays."""
        joins = flat[0] == knot.value
        grid = self.products.axes[flat]
        for link in knot.links:
            source, target = self._labels_of(link.slot)[link.axis], labels[link.out_axis]
            into = (self.labels.key(self.node, link.slot) or "", link.axis)
            column = grid.columns[factors.index(into if joins else (knot.value, link.out_axis))]
            factor = source if joins else target
            if column is None:
                text = f"{named(self.node)} joins or splits this axis with other axes, which are cut instead"
                self._lock(factor, Reason(text, self.node.index, remedy=CHOSEN))
            elif joins:
                self.labels.ledger.tie(source[link.source], target[link.target, column], self.node.index)
            else:
                self.labels.ledger.tie(source[link.source, column], target[link.target], self.node.index)

    def _labels_of(self, slot: int) -> tuple[Atoms, ...]:
        key = self.labels.key(self.node, slot)
        labels = None if key is None else self.labels.get(key)
        if labels is None:
            raise DoesNotFit("an input has no known shape")
        return labels

    def _choose_link(self, labels: list[Atoms], knot: list[AxisLink]) -> None:
        """Offer one option per pair of axes in a split or merge: that pair stays live, the other axes lock."""
        options: list[CutOption] = []
        for live in sorted(knot, key=lambda k: (k.slot, k.axis, k.out_axis)):
            source = self._labels_of(live.slot)[live.axis]
            ties = ((source[live.source], labels[live.out_axis][live.target]),)
            axes_in = {(k.slot, k.axis) for k in knot} - {(live.slot, live.axis)}
            axes_out = {k.out_axis for k in knot} - {live.out_axis}
            locks = [self._labels_of(slot)[axis] for slot, axis in sorted(axes_in)]
            locks += [labels[axis] for axis in sorted(axes_out)]
            options.append(CutOption(self._name(labels, knot, live), ties, tuple(locks)))
        self.labels.ledger.choose(Choice(self.node.index, named(self.node), tuple(options)))

    def _name(self, labels: list[Atoms], knot: list[AxisLink], live: AxisLink) -> str:
        """Name of the axis to cut: "the 12 of 12x64" if one axis is the product of several."""
        into = {(k.slot, k.axis): self._labels_of(k.slot)[k.axis].size for k in knot}
        outof = {k.out_axis: labels[k.out_axis].size for k in knot}
        if len(into) == 1:
            sizes, size = [outof[k] for k in sorted(outof)], outof[live.out_axis]
        elif len(outof) == 1:
            sizes, size = [into[k] for k in sorted(into)], into[live.slot, live.axis]
        else:
            return f"axis {live.axis} as axis {live.out_axis}"
        which = f" (axis {live.out_axis if len(into) == 1 else live.axis})" if sizes.count(size) > 1 else ""
        return f"the {size} of {'x'.join(map(str, sizes))}{which}"

    def _strided_slice(self, info: NodeInfo) -> None:
        """A Slice with a step counts positions, so all positions of that axis must stay."""
        if self.node.op != "Slice":
            return
        steps, shape = info.ints("steps", 4), info.shape(0) or ()
        key = self.labels.key(self.node, 0)
        if steps is None or key is None:
            return
        axes = info.ints("axes", 3) or tuple(range(len(steps)))
        for axis, step in zip(axes, steps, strict=True):
            labels = self.labels.get(key)
            if abs(step) > 1 and labels is not None and shape[axis] > 1:
                text = f"Slice takes one of every {abs(step)} positions of this axis"
                self.labels.ledger.lock(labels[axis], Reason(text, self.node.index, self.node.inputs[0], axis))

    def _uneven_pad(self, info: NodeInfo) -> None:
        """After a cut nothing corresponds to a reflected or repeated border, so such axes stay."""
        if self.node.op != "Pad" or self.node.string("mode", "constant") == "constant":
            return
        value = self.node.outputs[0] or ""
        before, after = info.shape(0) or (), info.out_shape() or ()
        for axis, (a, b) in enumerate(zip(before, after, strict=True)):
            if a != b:
                text = f"{named(self.node)} mirrors or repeats the border of this axis"
                self.labels.ledger.lock(
                    self.labels.of[value][axis], Reason(text, self.node.index, value, axis, NOTHING)
                )


def _knots(links: list[AxisLink]) -> list[list[AxisLink]]:
    """Connected components of links that share an axis."""
    knots: list[list[AxisLink]] = []
    for link in links:
        touching = [
            k
            for k in knots
            if any((m.slot, m.axis) == (link.slot, link.axis) or m.out_axis == link.out_axis for m in k)
        ]
        knots = [k for k in knots if k not in touching]
        knots.append([m for k in touching for m in k] + [link])
    return knots
