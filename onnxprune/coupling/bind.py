"""Walk the graph and enter every node's ties, locks and choices into a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.coarse import coarse, lock_inert
from onnxprune.coupling.control import Crossing, crossings, dead_scopes
from onnxprune.coupling.factors import FactorTies
from onnxprune.coupling.labels import Axis, FactorGrid, Key, Labels, named
from onnxprune.coupling.ledger import Atoms, Ledger
from onnxprune.coupling.movers import MoverTies
from onnxprune.coupling.products import NONE, Knot, Products
from onnxprune.coupling.provenance import size_sources
from onnxprune.coupling.reasons import BORDER, DATA, NOTHING, SHAPE, UNFIT, Reason
from onnxprune.coupling.rule import Bound, DoesNotFit, Locked, Mover, NodeInfo, Rule, Structural, bind
from onnxprune.coupling.rules import lookup
from onnxprune.coupling.trace import trace
from onnxprune.graph.facts import Facts
from onnxprune.graph.layout import layout_of, readers_of_stored
from onnxprune.graph.view import Graph, Node


@dataclass(frozen=True, eq=False)
class Walked:
    """Result of one walk: the labels with their ledger, and the rule, mover or lock of each node (by index).

    ``rules`` names the operator table.
    """

    labelled: Labels
    bounds: Mapping[int, Bound]
    movers: frozenset[int]
    locked: Mapping[int, Reason]
    rules: str
    knots: tuple[Knot, ...]

    @property
    def ledger(self) -> Ledger:
        return self.labelled.ledger

    @property
    def labels(self) -> Mapping[Key, tuple[Atoms, ...]]:
        return self.labelled.of

    @property
    def products(self) -> Mapping[Axis, FactorGrid]:
        """The axes that are products of channels.  Their labels are (positions, factors)."""
        return self.labelled.products


def bind_graph(graph: Graph, facts: Facts, rules: str, products: Products = NONE) -> Walked:
    """Bind every node of ``graph`` with the operator table called ``rules``.

    ``products`` lists the axes that are products of channels.
    Cost: linear in nodes, plus one execution per axis of each mover.
    """
    walker = _Walker(graph, facts, rules, products)
    for node in graph.nodes:
        walker.visit(node)
    walker.cross()
    walker.share()
    walker.borders()
    return Walked(walker.labels, walker.bounds, frozenset(walker.movers), walker.locked, rules, tuple(walker.knots))


class _Walker:
    def __init__(self, graph: Graph, facts: Facts, rules: str, products: Products) -> None:
        self.graph = graph
        self.rules = rules
        self.facts = facts
        self.labels = Labels(graph, facts, products.axes)
        self.products = products
        self.knots: list[Knot] = []
        self.bounds: dict[int, Bound] = {}
        self.movers: set[int] = set()
        self.locked: dict[int, Reason] = {}
        self.dead = dead_scopes(graph, facts)
        fixed = facts.are_fixed(graph.inputs)
        self.unsized, self.unfit = (DATA, UNFIT) if fixed else (SHAPE, SHAPE)

    # -- nodes ----------------------------------------------------------------------------------------------

    def visit(self, node: Node) -> None:
        if node.index in self.facts.folded or node.index in self.facts.arithmetic:
            return
        if node.op == "Constant" and node.domain == "":
            return
        if (node.domain, node.op) in self.graph.functions:
            self._refuse(
                node,
                "calls a local function, and onnxprune does not follow channels into functions",
                "inline the model's functions first",
            )
            return
        if node.op in ("If", "Loop", "Scan") and node.domain == "":
            if node.op == "Scan" and self.graph.opsets.get("", 1) < 9:
                self._refuse(node, "is a batched Scan of opset 8", "convert the model to opset 9 or newer")
            return
        if node.op in ("Shape", "Size") and node.domain == "":
            return
        info = NodeInfo(node, self.graph, self.facts)
        entry = lookup(node.domain, node.op, self.rules)
        if callable(entry):
            unknown = self._unknown(node)
            if unknown is not None:
                self._refuse(node, f"works on '{unknown}', whose shape is unknown before a run", self.unsized)
                return
            entry = entry(info)
        if isinstance(entry, Structural):
            return
        try:
            if isinstance(entry, Locked):
                self._refuse(node, entry.reason, "replace the operator, or accept that its channels stay")
            elif isinstance(entry, Mover):
                self._move(node, info, entry)
            else:
                self._rule(node, info, entry)
        except DoesNotFit as error:
            self._refuse(node, f"cannot be followed: {error}", self.unfit)

    def _unknown(self, node: Node) -> str | None:
        values = [v for v in (*node.inputs, *node.outputs) if v is not None]
        return next((v for v in values if v not in self.facts.shapes), None)

    def _refuse(self, node: Node, text: str, remedy: str) -> None:
        self.locked[node.index] = Reason(f"{named(node)} {text}", node.index, remedy=remedy)
        if any(node.scope.startswith(scope) for scope in self.dead):
            # This branch never runs, so a misfit in it is no new fault.
            return
        for slot in range(len(node.inputs)):
            key = self.labels.key(node, slot)
            if isinstance(key, str):
                self.labels.lock_all(key, f"{named(node)} {text}", node.index, remedy)
        for out in node.outputs:
            if out is not None:
                self.labels.lock_all(out, f"{named(node)} {text}", node.index, remedy)

    # -- rules ----------------------------------------------------------------------------------------------

    def _rule(self, node: Node, info: NodeInfo, rule: Rule) -> None:
        bound = bind(rule, info)
        self.bounds[node.index] = bound
        binding = FactorTies(self.labels, node, bound)
        slots = [(self.labels.key(node, k), t) for k, t in enumerate(bound.inputs)]
        for key, term in sorted(slots, key=lambda s: isinstance(s[0], tuple)):
            if key is not None and term is not None:
                binding.enter(key, term)
            elif isinstance(key, str) and node.op != "CastLike":
                self.labels.lock_all(key, f"{named(node)} reads '{key}' as an operand", node.index, NOTHING)
        for value, out_term in zip(node.outputs, bound.outputs, strict=True):
            if value is None:
                continue
            if out_term is None:
                self.labels.lock_all(
                    value, f"{named(node)} makes '{value}', which has no channels", node.index, NOTHING
                )
            else:
                binding.leave(value, out_term)
        binding.finish()

    # -- movers ---------------------------------------------------------------------------------------------

    def _move(self, node: Node, info: NodeInfo, mover: Mover) -> None:
        empty = next((v for v in (*node.inputs, *node.outputs) if 0 in self.facts.shapes.get(v or "", ())), None)
        if empty is not None and (empty in node.outputs or node.inputs.index(empty) in mover.data):
            # Tracing an empty tensor shows no movement.
            raise DoesNotFit(f"'{empty}' is empty")
        unknown = self._unknown(node)
        if unknown is not None:
            raise DoesNotFit(f"the shape of '{unknown}' is unknown before a run")
        if node.op == "ConstantOfShape":
            self.movers.add(node.index)
            for value in node.outputs:
                self.labels.get(value or "")
            self._as_large_as(node, 0)
            return
        thin = None if mover.stand_in else coarse(self.labels, node, mover.data[0])
        movement = thin or trace(info, mover.data, mover.stand_in)
        for value, shape in zip(node.outputs, movement.out_shapes, strict=False):
            if value is not None and self.facts.shapes.get(value) != shape:
                raise DoesNotFit(f"'{value}' has shape {shape}, not {self.facts.shapes.get(value)}")
        self.movers.add(node.index)
        ties = MoverTies(self.labels, node, self.products)
        ties.enter(movement, info)
        self.knots += ties.knots
        if thin is not None:
            lock_inert(self.labels, node, mover.data[0])
        if node.op == "Expand":
            self._as_large_as(node, 1)

    def _as_large_as(self, node: Node, slot: int) -> None:
        """Tie a filled axis to the axis from which it takes its size.

        Do so only where nothing else can state the size: a caller chooses the other sizes.  All filled
        elements are equal, so it does not matter which positions leave.
        """
        sizes, out = node.inputs[slot] or "", node.outputs[0] or ""
        made, given = self.labels.get(out) or (), () if slot == 0 else self.facts.shapes[node.inputs[0] or ""]
        chosen = [axis for axis in range(len(made)) if self.facts.is_dynamic(out, axis)]
        if not self.facts.varies(sizes) or (slot and self._come_with_data(node, chosen, len(made) - len(given))):
            return
        sources = size_sources(self.graph, self.facts, sizes)
        for back, size in enumerate(reversed(sources), start=1):
            filled = back > len(given) or given[-back] == 1
            if size is None or not filled or self.labels.is_constant(size.value):
                continue
            atoms = (self.labels.get(size.value) or ())[size.axis : size.axis + 1]
            if atoms and len(atoms[0]) == len(made[-back]) and not self.facts.is_dynamic(size.value, size.axis):
                self.labels.ledger.tie(atoms[0], made[-back], node.index)

    def _come_with_data(self, node: Node, axes: Sequence[int], lead: int) -> bool:
        """Whether the input of an Expand already has the sizes of these output ``axes``, so that it need not state them."""
        source, out = node.inputs[0] or "", node.outputs[0] or ""
        return all(axis >= lead and self.facts.always_equal(out, axis, source, axis - lead) for axis in axes)

    # -- control flow, shared weights -----------------------------------------------------------------------

    def cross(self) -> None:
        """Tie every value inside a body to its counterpart outside."""
        for node in self.graph.nodes:
            if node.op in ("If", "Loop", "Scan") and node.domain == "" and node.index not in self.locked:
                for crossing in crossings(self.graph, node, self.dead):
                    self._tie_across(node, crossing)

    def _tie_across(self, node: Node, crossing: Crossing) -> None:
        outer: Key | None = crossing.outer if crossing.slot is None else self.labels.key(node, crossing.slot)
        if outer is None:
            return
        outside = list(self.labels.get(outer) or ())
        inside = [] if self.labels.is_constant(crossing.inner) else list(self.labels.get(crossing.inner) or ())
        text = f"{named(node)} passes it into or out of its body"
        stacked = None if crossing.stacked is None or not outside else crossing.stacked % len(outside)
        if stacked is not None:
            self.labels.ledger.lock(
                outside.pop(stacked), Reason(f"{text}, one slice per iteration", node.index, remedy=NOTHING)
            )
        if [len(a) for a in outside] == [len(a) for a in inside]:
            for left, right in zip(outside, inside, strict=True):
                self.labels.ledger.tie(left, right, node.index)
            return
        for atoms in (*outside, *inside):
            if atoms.size > 1:
                reason = Reason(f"{text}, and its shape differs inside and outside", node.index, remedy=self.unsized)
                self.labels.ledger.lock(atoms, reason)

    def share(self) -> None:
        """Tie all uses of a weight that several nodes share, so that one copy still serves them all.

        Skip weights of one repeated number: exporters merge equal tensors, so that sharing is accidental.
        """
        for stored in dict.fromkeys(self._weights()):
            shape = self.facts.shapes[stored]
            uses = [
                (use, layout)
                for use, layout in readers_of_stored(self.graph, self.facts, stored)
                # A value computed from constants alone is a constant too: the cut happens where a node reads it.
                if use[0] not in self.facts.folded
            ]
            if len(uses) < 2 or len([n for n in shape if n > 1]) < 2 or _is_uniform(self.labels.constant(stored)):
                continue
            first: dict[int, Atoms] = {}
            for use, layout in uses:
                for axis, atoms in zip(layout.axes, self.labels.of.get(use, ()), strict=False):
                    self.labels.ledger.tie(first.setdefault(axis, atoms), atoms, use[0])
            for use, _ in uses:
                if use not in self.labels.of:
                    self._needs_whole(use, stored, first)

    def _weights(self) -> Iterator[str]:
        """Stored constants that layers multiply by, in any layout."""
        for index, bound in self.bounds.items():
            if bound.rule.linear is None and not bound.rule.macs:
                continue
            for value in self.graph.nodes[index].inputs:
                layout = None if value is None else layout_of(self.graph, self.facts, value)
                if layout is not None:
                    yield layout.stored

    def _needs_whole(self, use: tuple[int, int], stored: str, labels: Mapping[int, Atoms]) -> None:
        text = f"{named(self.graph.nodes[use[0]])} shares the weight '{stored}' and needs all of it"
        for axis, atoms in labels.items():
            if atoms.size > 1:
                reason = Reason(text, use[0], stored, axis, "give each node its own copy of the weight")
                self.labels.ledger.lock(atoms, reason)

    # -- borders --------------------------------------------------------------------------------------------

    def borders(self) -> None:
        for value in self.graph.inputs:
            self.labels.lock_all(value, f"'{value}' is an input of the model", None, BORDER)
        for value in self.graph.outputs:
            self.labels.lock_all(value, f"'{value}' is an output of the model", None, BORDER)
        for key, labels in list(self.labels.of.items()):
            if not isinstance(key, str):
                continue
            for axis, atoms in enumerate(labels):
                if self.facts.is_dynamic(key, axis):
                    text = f"the size of axis {axis} of '{key}' changes with the model's inputs"
                    self.labels.ledger.lock(atoms, Reason(text, None, key, axis, self.unsized))


def _is_uniform(array: np.ndarray) -> bool:
    return bool((array == array.reshape(-1)[:1]).all())
