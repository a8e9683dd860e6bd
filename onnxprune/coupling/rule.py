"""What is known of an operator, and what that says of one node: rule → bound rule.

An entry of the operator tables is one of five values:

* :class:`Rule` - a rule string and its declarations;
* a *binder* - a function from a :class:`Call` to a :class:`Rule`, for operators whose rank is free;
* :class:`Mover` - the operator only moves data, so it is run on coordinates instead (``trace.py``);
* :class:`Locked` - channels stop here, on purpose, and why;
* :class:`Structural` - the walk over the graph handles it (constants, shape arithmetic, control flow).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from onnxprune.coupling.notation import NotationError, Pattern, Term, expand, parse
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node
from onnxprune.graph.walk import Shape

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_NO_PINS: Mapping[str, tuple[str, float]] = MappingProxyType({})
_NO_ZEROS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class Linear:
    """The operator computes ``y = x * w + b``; which slots hold x, w, b (b may be absent)."""

    data: int
    weight: int
    bias: int | None


@dataclass(frozen=True)
class Rule:
    """``text`` in the notation of :mod:`onnxprune.coupling.notation`, and what it cannot say:

    ``mix``: factors along which positions interact other than by a plain sum (softmax, a normalization's own
    axis): they lock.  ``attributes``: node attribute ← size of a factor, of a product of factors (``g r``), or a
    list of such (``h d, h d``), rewritten after a cut.  ``reads``: factor size ← attribute (or a constant in
    ``sizes``), where shapes alone do not tell it.  ``pins``: attribute → (factor, value): a default that the
    operator would compute from the factor's size, written down once that factor is cut.  ``macs``: products of
    factors whose sum is the number of multiply-accumulates.  ``masks``: (slot, axis) places whose cut positions
    are zeroed in the masked original although their factor also reaches an output (recurrent weights).
    ``zeros`` and ``scales``: slot of a quantized tensor → slot of its zero point, the number that stands for zero
    in it, and of its scale.  ``estimates``:
    factors over which the operator takes a statistic (a mean, a variance), which a cut of them changes a little: in
    the exact rules they are among ``mix``, in the approximate ones they may be cut.  ``sums``: factors of one input
    alone that the operator adds up without a weight, so that a position which left counts as a zero.
    """

    text: str
    mix: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: _NONE)
    reads: Mapping[str, str] = field(default_factory=lambda: _NONE)
    sizes: Mapping[str, int] = field(default_factory=lambda: _NO_SIZES)
    linear: Linear | None = None
    macs: tuple[tuple[str, ...], ...] = ()
    masks: tuple[tuple[int, int], ...] = ()
    pins: Mapping[str, tuple[str, float]] = field(default_factory=lambda: _NO_PINS)
    zeros: Mapping[int, int] = field(default_factory=lambda: _NO_ZEROS)
    scales: Mapping[int, int] = field(default_factory=lambda: _NO_ZEROS)
    estimates: frozenset[str] = frozenset()
    sums: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mover:
    """``data``: slots that are moved; the other inputs are operands (sizes, indices, axes).

    ``stand_in``: the ai.onnx operator that moves data likewise, for one that only a runtime can execute.
    """

    data: tuple[int, ...] = (0,)
    stand_in: str = ""


@dataclass(frozen=True)
class Locked:
    """No channel passes: ``reason`` finishes the sentence "locked: the node …"."""

    reason: str


@dataclass(frozen=True)
class Structural:
    """Handled by the walk over the graph itself, not by a rule; ``note`` says how."""

    note: str


@dataclass(frozen=True, eq=False)
class Call:
    """One node with the shapes and constants around it: all that a binder may look at."""

    node: Node
    graph: Graph
    facts: Facts

    def shape(self, slot: int) -> Shape | None:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        return None if value is None else self.facts.shapes.get(value)

    def out_shape(self, slot: int = 0) -> Shape | None:
        value = self.node.outputs[slot] if slot < len(self.node.outputs) else None
        return None if value is None else self.facts.shapes.get(value)

    def rank(self, slot: int = 0) -> int:
        return len(self.shape(slot) or ())

    def constant(self, slot: int) -> np.ndarray | None:
        """The value of an operand where it is a constant or shape arithmetic, else ``None``."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return self.facts.values.get(value, self.graph.constants.get(value))

    def ints(self, attribute: str, slot: int) -> tuple[int, ...] | None:
        """Integers given by an attribute in older opsets and by an input in newer ones."""
        found = self.node.integers(attribute)
        if found is not None:
            return found
        operand = self.constant(slot)
        return None if operand is None else tuple(int(i) for i in operand.ravel())


Binder = Callable[[Call], "Rule | Mover | Locked"]
Entry = Rule | Mover | Locked | Structural | Binder


class DoesNotFit(Exception):
    """The rule of this operator does not fit the shapes of this node."""


@dataclass(frozen=True, eq=False)
class Bound:
    """A rule at one node: terms expanded to the tensors' ranks, every factor's size known."""

    rule: Rule
    inputs: tuple[Term | None, ...]
    outputs: tuple[Term | None, ...]
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        return str(Pattern(self.inputs, self.outputs))

    def inputs_with(self, factor: str) -> list[int]:
        return [k for k, t in enumerate(self.inputs) if t is not None and any(factor in d for d in t)]

    def in_output(self, factor: str) -> bool:
        return any(t is not None and any(factor in d for d in t) for t in self.outputs)

    def factors(self) -> list[str]:
        seen: dict[str, None] = {}
        for term in (*self.inputs, *self.outputs):
            for dim in term or ():
                seen.update(dict.fromkeys(dim))
        return list(seen)

    def summed(self, factor: str) -> bool:
        """In two inputs or more and in no output, or declared so: the operator sums over it."""
        return factor in self.rule.sums or (len(self.inputs_with(factor)) > 1 and not self.in_output(factor))


def bind(rule: Rule, call: Call) -> Bound:
    """Fit ``rule`` to the node of ``call``.

    Raises:
        DoesNotFit: where ranks or sizes contradict the rule.
    """
    pattern = parse(rule.text)
    node = call.node
    if len(node.inputs) > len(pattern.inputs) or len(node.outputs) > len(pattern.outputs):
        raise DoesNotFit(f"{len(node.inputs)} inputs, {len(node.outputs)} outputs against rule '{rule.text}'")
    inputs = _fit(pattern.inputs, [call.shape(k) for k in range(len(node.inputs))], rule)
    outputs = _fit(pattern.outputs, [call.out_shape(k) for k in range(len(node.outputs))], rule)
    sizes = dict(rule.sizes)
    for factor, attribute in {**{f: a for a, f in rule.attributes.items()}, **rule.reads}.items():
        found = node.attribute(attribute)
        if found is not None and factor.isalnum():
            sizes[factor] = int(found.i)
    shapes = [call.shape(k) for k in range(len(inputs))] + [call.out_shape(k) for k in range(len(outputs))]
    _solve((*inputs, *outputs), shapes, sizes, rule)
    return Bound(rule, inputs, outputs, MappingProxyType(sizes))


def _fit(terms: tuple[Term | None, ...], shapes: list[Shape | None], rule: Rule) -> tuple[Term | None, ...]:
    try:
        return tuple(
            None if term is None or shape is None else expand(term, len(shape))
            for term, shape in zip(terms, shapes, strict=False)
        )
    except NotationError as error:
        raise DoesNotFit(f"{error} (rule '{rule.text}')") from error


def _solve(terms: tuple[Term | None, ...], shapes: list[Shape | None], sizes: dict[str, int], rule: Rule) -> None:
    """Fill ``sizes`` from the shapes; single factors first, then compounds with one unknown left."""
    dims = [
        (dim, size)
        for term, shape in zip(terms, shapes, strict=True)
        if term is not None and shape is not None
        for dim, size in zip(term, shape, strict=True)
    ]
    for dim, size in dims:
        if len(dim) == 1:
            sizes.setdefault(dim[0], size)
    progress = True
    while progress:
        progress = False
        for dim, size in dims:
            unknown = [f for f in dim if f not in sizes]
            if len(unknown) == 1 and dim.count(unknown[0]) == 1:
                rest = math.prod(sizes[f] for f in dim if f in sizes)
                if rest == 0 or size % rest:
                    raise DoesNotFit(f"({' '.join(dim)}) cannot be {size} (rule '{rule.text}')")
                sizes[unknown[0]] = size // rest
                progress = True
    for dim, size in dims:
        if any(f not in sizes for f in dim):
            raise DoesNotFit(f"the sizes in ({' '.join(dim)}) are ambiguous (rule '{rule.text}')")
        if math.prod(sizes[f] for f in dim) != size:
            raise DoesNotFit(f"'{' '.join(dim) or '1'}' is {size} long, not as rule '{rule.text}' has it")
