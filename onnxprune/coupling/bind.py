"""Walk the graph and enter every node's ties, locks and choices into a ledger."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.atoms import BORDER, NOTHING, SHAPE, Atoms, Choice, Ledger, Option, Reason
from onnxprune.coupling.control import Crossing, crossings, dead_scopes
from onnxprune.coupling.notation import Dim
from onnxprune.coupling.rule import Bound, Call, DoesNotFit, Locked, Mover, Rule, Structural, bind
from onnxprune.coupling.rules import lookup
from onnxprune.coupling.trace import Link, trace
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node, data_uses

#: Where labels live: a value id, or (node index, input slot) for one use of a constant - every use of a shared
#: initializer is cut on its own.
Key = str | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Walked:
    """The filled ledger, the label of each position, and the rule or mover found at each node."""

    ledger: Ledger
    labels: Mapping[Key, tuple[Atoms, ...]]
    bounds: Mapping[int, Bound]
    movers: frozenset[int]
    locked: Mapping[int, Reason]


def walk(graph: Graph, facts: Facts) -> Walked:
    """Bind every node of ``graph``.  Cost: linear in nodes, plus one execution per axis of each mover."""
    walker = _Walker(graph, facts)
    for node in graph.nodes:
        walker.visit(node)
    walker.cross()
    walker.share()
    walker.borders()
    return Walked(walker.ledger, walker.labels, walker.bounds, frozenset(walker.movers), walker.locked)


class _Walker:
    def __init__(self, graph: Graph, facts: Facts) -> None:
        self.graph = graph
        self.facts = facts
        self.ledger = Ledger()
        self.labels: dict[Key, tuple[Atoms, ...]] = {}
        self.bounds: dict[int, Bound] = {}
        self.movers: set[int] = set()
        self.locked: dict[int, Reason] = {}
        self.dead = dead_scopes(graph, facts)

    # -- labels ---------------------------------------------------------------------------------------------

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

    def label(self, key: Key) -> tuple[Atoms, ...] | None:
        """Labels of a value or of a constant's use, made on first sight; ``None`` where its shape is unknown."""
        if key not in self.labels:
            value = key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]]
            shape = self.facts.shapes.get(value or "")
            if shape is None:
                return None
            self.labels[key] = tuple(self.ledger.fresh(n) for n in shape)
            if isinstance(key, str) and key in self.graph.initializers:
                self._lock_all(key, f"'{key}' is read as a whole", None, NOTHING)
        return self.labels[key]

    def _lock_all(self, key: Key, text: str, node: int | None, remedy: str) -> None:
        value = key if isinstance(key, str) else self.graph.nodes[key[0]].inputs[key[1]]
        for axis, atoms in enumerate(self.label(key) or ()):
            if atoms.size > 1:
                self.ledger.lock(atoms, Reason(text, node, value, axis, remedy))

    # -- nodes ----------------------------------------------------------------------------------------------

    def visit(self, node: Node) -> None:
        if node.index in self.facts.folded or node.index in self.facts.arithmetic:
            return
        if node.op == "Constant" and node.domain == "":
            return
        if (node.domain, node.op) in self.graph.functions:
            self._refuse(
                node,
                "calls a local function, into which channels are not followed",
                "inline the model's functions first",
            )
            return
        if node.op in ("If", "Loop", "Scan") and node.domain == "":
            if node.op == "Scan" and self.graph.opsets.get("", 1) < 9:
                self._refuse(node, "is a batched Scan of opset 8", "convert the model to opset 9 or newer")
            return
        if node.op in ("Shape", "Size") and node.domain == "":
            return
        call = Call(node, self.graph, self.facts)
        entry = lookup(node.domain, node.op)
        if callable(entry):
            unknown = self._unknown(node)
            if unknown is not None:
                self._refuse(node, f"works on '{unknown}', whose shape cannot be told before a run", SHAPE)
                return
            entry = entry(call)
        if isinstance(entry, Structural):
            return
        try:
            if isinstance(entry, Locked):
                self._refuse(node, entry.reason, "replace the operator, or leave what runs through it whole")
            elif isinstance(entry, Mover):
                self._move(node, call, entry)
            else:
                self._rule(node, call, entry)
        except DoesNotFit as error:
            self._refuse(node, f"cannot be followed: {error}", SHAPE)

    def _unknown(self, node: Node) -> str | None:
        values = [v for v in (*node.inputs, *node.outputs) if v is not None]
        return next((v for v in values if v not in self.facts.shapes), None)

    def _refuse(self, node: Node, text: str, remedy: str) -> None:
        self.locked[node.index] = Reason(f"{named(node)} {text}", node.index, remedy=remedy)
        if any(node.scope.startswith(scope) for scope in self.dead):
            # What does not fit in a branch that is never taken did not fit before the cut, either.
            return
        for slot in range(len(node.inputs)):
            key = self.key(node, slot)
            if isinstance(key, str):
                self._lock_all(key, f"{named(node)} {text}", node.index, remedy)
        for out in node.outputs:
            if out is not None:
                self._lock_all(out, f"{named(node)} {text}", node.index, remedy)

    # -- rules ----------------------------------------------------------------------------------------------

    def _rule(self, node: Node, call: Call, rule: Rule) -> None:
        bound = bind(rule, call)
        self.bounds[node.index] = bound
        binding = _RuleBinding(self, node, bound)
        slots = [(self.key(node, k), t) for k, t in enumerate(bound.inputs)]
        for key, term in sorted(slots, key=lambda s: isinstance(s[0], tuple)):
            if key is not None and term is not None:
                binding.enter(key, term)
            elif isinstance(key, str) and node.op != "CastLike":
                self._lock_all(key, f"{named(node)} reads '{key}' as an operand", node.index, NOTHING)
        for value, out_term in zip(node.outputs, bound.outputs, strict=True):
            if value is None:
                continue
            if out_term is None:
                self._lock_all(value, f"{named(node)} makes '{value}', which has no channels", node.index, NOTHING)
            else:
                binding.leave(value, out_term)
        binding.finish()

    # -- movers ---------------------------------------------------------------------------------------------

    def _move(self, node: Node, call: Call, mover: Mover) -> None:
        empty = next((v for v in (*node.inputs, *node.outputs) if 0 in self.facts.shapes.get(v or "", ())), None)
        if empty is not None and (empty in node.outputs or node.inputs.index(empty) in mover.data):
            # Nothing was seen to move, so nothing is known of what would.
            raise DoesNotFit(f"'{empty}' is empty")
        unknown = self._unknown(node)
        if unknown is not None:
            raise DoesNotFit(f"the shape of '{unknown}' cannot be told before a run")
        if node.op == "ConstantOfShape":
            self.movers.add(node.index)
            for value in node.outputs:
                self.label(value or "")
            return
        found = trace(call, mover.data, mover.stand_in)
        for value, shape in zip(node.outputs, found.out_shapes, strict=False):
            if value is not None and self.facts.shapes.get(value) != shape:
                raise DoesNotFit(f"'{value}' came out as {shape}, not {self.facts.shapes.get(value)}")
        self.movers.add(node.index)
        for slot, axis, positions in found.fixed:
            key = self.key(node, slot)
            labels = None if key is None else self.label(key)
            if labels is not None:
                text = f"{named(node)} takes single positions of this axis"
                self.ledger.lock(labels[axis][positions], Reason(text, node.index, node.inputs[slot], axis, NOTHING))
        for output, value in enumerate(node.outputs):
            if value is not None:
                self._connect(node, value, [k for k in found.links if k.output == output])
        self._uneven_pad(node, call)
        self._strided_slice(node, call)

    def _connect(self, node: Node, value: str, links: list[Link]) -> None:
        shape = self.facts.shapes[value]
        into: dict[int, set[tuple[int, int]]] = {}
        outof: dict[tuple[int, int], set[int]] = {}
        for link in links:
            into.setdefault(link.out_axis, set()).add((link.slot, link.axis))
            outof.setdefault((link.slot, link.axis), set()).add(link.out_axis)
        labels = [self.ledger.fresh(n) for n in shape]
        self.labels[value] = tuple(labels)
        tangled: list[Link] = []
        for link in links:
            same_slot = [k for k in into[link.out_axis] if k[0] == link.slot]
            if len(outof[link.slot, link.axis]) > 1 or len(same_slot) > 1:
                tangled.append(link)
                continue
            source = self._labels_of(node, link.slot)[link.axis][link.source]
            target = labels[link.out_axis][link.target]
            self.ledger.tie(source, target, node.index)
        for knot in _knots(tangled):
            self._choose_link(node, labels, knot)

    def _labels_of(self, node: Node, slot: int) -> tuple[Atoms, ...]:
        key = self.key(node, slot)
        labels = None if key is None else self.label(key)
        if labels is None:
            raise DoesNotFit("an input has no known shape")
        return labels

    def _choose_link(self, node: Node, labels: list[Atoms], knot: list[Link]) -> None:
        """Axes that are split or merged: exactly one pair of axes stays live, the others lock."""
        options: list[Option] = []
        for live in sorted(knot, key=lambda k: (k.slot, k.axis, k.out_axis)):
            source = self._labels_of(node, live.slot)[live.axis]
            ties = ((source[live.source], labels[live.out_axis][live.target]),)
            axes_in = {(k.slot, k.axis) for k in knot} - {(live.slot, live.axis)}
            axes_out = {k.out_axis for k in knot} - {live.out_axis}
            locks = [self._labels_of(node, slot)[axis] for slot, axis in sorted(axes_in)]
            locks += [labels[axis] for axis in sorted(axes_out)]
            count, size = len(np.unique(live.source)), labels[live.out_axis].size
            name = f"{count} of axis {live.axis} as {size} of axis {live.out_axis}"
            options.append(Option(name, ties, tuple(locks)))
        self.ledger.choose(Choice(node.index, named(node), tuple(options)))

    def _strided_slice(self, node: Node, call: Call) -> None:
        """Every second position is found by counting, so an axis that is sliced so keeps all of its positions."""
        if node.op != "Slice":
            return
        steps, shape = call.ints("steps", 4), call.shape(0) or ()
        key = self.key(node, 0)
        if steps is None or key is None:
            return
        axes = call.ints("axes", 3) or tuple(range(len(steps)))
        for axis, step in zip(axes, steps, strict=True):
            labels = self.label(key)
            if abs(step) > 1 and labels is not None and shape[axis] > 1:
                text = f"Slice takes every {abs(step)}th position of it"
                self.ledger.lock(labels[axis], Reason(text, node.index, node.inputs[0], axis))

    def _uneven_pad(self, node: Node, call: Call) -> None:
        """Reflected and repeated borders have no counterpart after a cut, so such axes stay."""
        if node.op != "Pad" or node.string("mode", "constant") == "constant":
            return
        value = node.outputs[0] or ""
        before, after = call.shape(0) or (), call.out_shape() or ()
        for axis, (a, b) in enumerate(zip(before, after, strict=True)):
            if a != b:
                text = f"{named(node)} mirrors or repeats the border of this axis"
                self.ledger.lock(self.labels[value][axis], Reason(text, node.index, value, axis, NOTHING))

    # -- control flow, shared weights -----------------------------------------------------------------------

    def cross(self) -> None:
        """Tie what is inside a body to what it is outside."""
        for node in self.graph.nodes:
            if node.op in ("If", "Loop", "Scan") and node.domain == "" and node.index not in self.locked:
                for crossing in crossings(self.graph, node, self.dead):
                    self._tie_across(node, crossing)

    def _tie_across(self, node: Node, crossing: Crossing) -> None:
        outer: Key | None = crossing.outer if crossing.slot is None else self.key(node, crossing.slot)
        if outer is None:
            return
        outside = list(self.label(outer) or ())
        inside = [] if self.is_constant(crossing.inner) else list(self.label(crossing.inner) or ())
        text = f"{named(node)} carries it across its border"
        stacked = None if crossing.stacked is None or not outside else crossing.stacked % len(outside)
        if stacked is not None:
            self.ledger.lock(
                outside.pop(stacked), Reason(f"{text}, one slice per iteration", node.index, remedy=NOTHING)
            )
        if [len(a) for a in outside] == [len(a) for a in inside]:
            for left, right in zip(outside, inside, strict=True):
                self.ledger.tie(left, right, node.index)
            return
        for atoms in (*outside, *inside):
            if atoms.size > 1:
                reason = Reason(f"{text} with a shape that is not always the same", node.index, remedy=SHAPE)
                self.ledger.lock(atoms, reason)

    def share(self) -> None:
        """Tie all uses of a weight that several nodes share, so that one copy still serves them all.

        Weights of one repeated number are shared by exporters that merge equal tensors, not by design.
        """
        readers: dict[str, list[tuple[int, int]]] = {}
        for index, bound in self.bounds.items():
            for slot, value in enumerate(self.graph.nodes[index].inputs):
                weighs = bound.rule.linear is not None or bool(bound.rule.macs)
                if value is not None and weighs and self.is_constant(value) and len(data_uses(self.graph, value)) > 1:
                    readers.setdefault(value, []).append((index, slot))
        for value, uses in readers.items():
            shape = self.facts.shapes[value]
            if len([n for n in shape if n > 1]) < 2 or _is_uniform(self._constant(value)):
                continue
            first = self.label(uses[0]) or ()
            for use in data_uses(self.graph, value):
                if use in self.labels:
                    for left, right in zip(first, self.labels[use], strict=True):
                        self.ledger.tie(left, right, use[0])
                    continue
                text = f"{named(self.graph.nodes[use[0]])} shares the weight '{value}' and needs it whole"
                for axis, atoms in enumerate(first):
                    if atoms.size > 1:
                        self.ledger.lock(
                            atoms, Reason(text, use[0], value, axis, "give the nodes weights of their own")
                        )

    def _constant(self, value: str) -> np.ndarray:
        known = self.facts.values.get(value)
        return known if known is not None else self.graph.constants[value]

    # -- borders --------------------------------------------------------------------------------------------

    def borders(self) -> None:
        for value in self.graph.inputs:
            self._lock_all(value, f"'{value}' is an input of the model", None, BORDER)
        for value in self.graph.outputs:
            self._lock_all(value, f"'{value}' is an output of the model", None, BORDER)
        for key, labels in list(self.labels.items()):
            if not isinstance(key, str):
                continue
            for axis, atoms in enumerate(labels):
                if self.facts.is_dynamic(key, axis):
                    text = f"the size of axis {axis} of '{key}' changes with the model's inputs"
                    self.ledger.lock(atoms, Reason(text, None, key, axis, SHAPE))


def named(node: Node) -> str:
    """What a message calls a node."""
    return f"{node.op} '{node.label}'"


def _is_uniform(array: np.ndarray) -> bool:
    return bool((array == array.reshape(-1)[:1]).all())


def _knots(links: list[Link]) -> list[list[Link]]:
    """Connected components of links over the axes that they share."""
    knots: list[list[Link]] = []
    for link in links:
        touching = [
            k
            for k in knots
            if any((m.slot, m.axis) == (link.slot, link.axis) or m.out_axis == link.out_axis for m in k)
        ]
        knots = [k for k in knots if k not in touching]
        knots.append([m for k in touching for m in k] + [link])
    return knots


class _RuleBinding:
    """Ties of one rule at one node: equal factors are one vector of atoms, compounds become a choice."""

    def __init__(self, walker: _Walker, node: Node, bound: Bound) -> None:
        self.walker = walker
        self.node = node
        self.bound = bound
        self.vectors: dict[str, Atoms] = {}
        self.compounds: list[tuple[Dim, Atoms]] = []

    def _live(self, dim: Dim) -> Dim:
        return tuple(f for f in dim if self.bound.sizes[f] > 1)

    def enter(self, key: Key, term: tuple[Dim, ...]) -> None:
        shape = [int(np.prod([self.bound.sizes[f] for f in dim], dtype=np.int64)) for dim in term]
        if isinstance(key, tuple) and key not in self.walker.labels:
            ready = tuple(self._vector_for(dim, size) for dim, size in zip(term, shape, strict=True))
            self.walker.labels[key] = ready
        labels = self.walker.label(key)
        if labels is None:
            raise DoesNotFit("an input has no known shape")
        for dim, atoms in zip(term, labels, strict=True):
            live = self._live(dim)
            if len(live) == 1:
                known = self.vectors.setdefault(live[0], atoms)
                self.walker.ledger.tie(known, atoms, self.node.index)
            elif len(live) > 1:
                self.compounds.append((dim, atoms))

    def _vector_for(self, dim: Dim, size: int) -> Atoms:
        live = self._live(dim)
        if len(live) == 1 and live[0] in self.vectors:
            return self.vectors[live[0]]
        return self.walker.ledger.fresh(size)

    def leave(self, value: str, term: tuple[Dim, ...]) -> None:
        labels: list[Atoms] = []
        for dim in term:
            size = int(np.prod([self.bound.sizes[f] for f in dim], dtype=np.int64))
            atoms = self._vector_for(dim, size)
            live = self._live(dim)
            if len(live) == 1:
                self.vectors.setdefault(live[0], atoms)
            elif len(live) > 1:
                self.compounds.append((dim, atoms))
            labels.append(atoms)
        self.walker.labels[value] = tuple(labels)

    def finish(self) -> None:
        for factor, atoms in self.vectors.items():
            text = self._lock_text(factor)
            if text is not None:
                self.walker.ledger.lock(atoms, Reason(f"{named(self.node)} {text}", self.node.index, remedy=NOTHING))
        if self.compounds:
            self._choose()

    def _lock_text(self, factor: str) -> str | None:
        if factor in self.bound.rule.mix:
            return "mixes all positions of this axis"
        readers = len(self.bound.inputs_with(factor))
        if self.bound.in_output(factor):
            return None if readers else "makes this axis anew: it holds places, not channels"
        return None if readers > 1 else "slides or sums over this axis: it holds places, not channels"

    def _choose(self) -> None:
        compounds = [(dim, self._live(dim), atoms) for dim, atoms in self.compounds]
        candidates = [[f for f in live if f not in self.bound.rule.mix] or [""] for _, live, _ in compounds]
        options: dict[frozenset[str], Option] = {}
        for picks in itertools.product(*(dict.fromkeys(c) for c in candidates)):
            live = frozenset(
                f
                for f in picks
                if f and all(f not in names or f == pick for (_, names, _), pick in zip(compounds, picks, strict=True))
            )
            options.setdefault(live, self._option(live, compounds))
        best = [option for live, option in options.items() if not any(live < other for other in options)]
        self.walker.ledger.choose(Choice(self.node.index, named(self.node), tuple(best)))

    def _option(self, live: frozenset[str], compounds: list[tuple[Dim, Dim, Atoms]]) -> Option:
        ties: list[tuple[Atoms, Atoms]] = []
        locks: list[Atoms] = []
        representatives = {f: a for f, a in self.vectors.items() if f in live}
        split = {f for _, names, _ in compounds for f in names}
        for dim, names, atoms in compounds:
            chosen = [f for f in names if f in live]
            if not chosen:
                locks.append(atoms)
                continue
            factor = chosen[0]
            sizes = [self.bound.sizes[f] for f in dim]
            grid = np.moveaxis(atoms.reshape(sizes), dim.index(factor), 0).reshape(self.bound.sizes[factor], -1)
            known = representatives.setdefault(factor, grid[:, 0])
            ties.append((np.repeat(known, grid.shape[1]), grid.ravel()))
        locks += [a for f, a in self.vectors.items() if f in split and f not in live]
        return Option(" ".join(sorted(live)) or "none", tuple(ties), tuple(locks))
