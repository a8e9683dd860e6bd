"""What is known about an operator (a rule), and what it says about one node (a bound rule).

An entry of the operator tables is one of five things:

* :class:`Rule` - a rule string and its declarations;
* a *binder* - a function from a :class:`NodeInfo` to a :class:`Rule`, for operators whose rank is free;
* :class:`Mover` - the operator only moves data; ``trace.py`` runs it on coordinates instead of reading a rule;
* :class:`Locked` - channels stop here on purpose, with the reason;
* :class:`Structural` - the walk over the graph handles the operator (constants, shape arithmetic, control flow).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from onnxprune.coupling.notation import NotationError, Pattern, Term, expand, parse_pattern
from onnxprune.graph.facts import Facts
from onnxprune.graph.known import Shape
from onnxprune.graph.view import Graph, Node

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_NO_PINS: Mapping[str, tuple[str, float]] = MappingProxyType({})
_NO_ZEROS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class Linear:
    """The operator computes ``y = x * w + b``.  The fields are the slots of x, w and b; b may be absent."""

    data: int
    weight: int
    bias: int | None


@dataclass(frozen=True)
class Rule:
    """``text`` in the notation of :mod:`onnxprune.coupling.notation`, and what the notation cannot say.

    ``mix``: factors whose positions interact other than in a plain sum (softmax, a normalization's own axis).  They
    lock.
    ``attributes``: attribute → the factor whose size it states, or a product of factors (``g r``), or a list of these
    (``h d, h d``).  A cut rewrites it.
    ``reads``: factor → the attribute that states its size; ``sizes``: factor → its size.  For factors whose size the
    shapes leave open.
    ``linear``: the slots of data, weight and bias, if the operator is linear in its weight.
    ``macs``: products of factors; the number of multiply-accumulates is their sum.
    ``masks``: (slot, axis) places to zero at cut positions in the masked original, although their factor also reaches
    an output (recurrent weights).
    ``pins``: attribute → (factor, value).  The operator would compute this default from the size of the factor, so a
    cut of the factor writes it down.
    ``zeros`` and ``scales``: slot of a quantized tensor → slot of its zero point (the number that stands for zero), and
    of its scale.
    ``estimates``: factors over which the operator takes a statistic (mean, variance).  A cut changes it a little.  The
    exact rules have these factors in ``mix`` too; the approximate rules free them.
    ``sums``: factors of a single input that the operator adds up without a weight, so a position that left counts as
    zero.
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
    """``data``: the slots that move; all other inputs are operands (sizes, indices, axes).

    ``stand_in``: an ai.onnx operator with the same movement, for an operator that only a runtime can execute.
    """

    data: tuple[int, ...] = (0,)
    stand_in: str = ""


@dataclass(frozen=True)
class Locked:
    """No channel passes.  ``reason`` completes the sentence "locked: the node …"."""

    reason: str


@dataclass(frozen=True)
class Structural:
    """The walk over the graph handles the operator, without a rule.  ``note`` says how."""

    note: str


@dataclass(frozen=True, eq=False)
class NodeInfo:
    """One node with its shapes and constants: everything a binder may read."""

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
        """The value of an operand if it is a constant or shape arithmetic, else ``None``."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return self.facts.values.get(value, self.graph.constants.get(value))

    def ints(self, attribute: str, slot: int) -> tuple[int, ...] | None:
        """Integers that older opsets give in an attribute and newer ones in an input."""
        stated = self.node.integers(attribute)
        if stated is not None:
            return stated
        operand = self.constant(slot)
        return None if operand is None else tuple(int(i) for i in operand.ravel())


Binder = Callable[[NodeInfo], "Rule | Mover | Locked"]
RuleEntry = Rule | Mover | Locked | Structural | Binder


class Role(enum.Enum):
    """What an operator does with the positions of one factor.  This decides whether they may leave."""

    #: Positions depend on each other (softmax, the axis of a normalization).
    MIXED = enum.auto()
    #: The operator takes a statistic over the positions, and the approximate rules allow fewer of them.
    ESTIMATED = enum.auto()
    #: An input and an output have the factor: each position passes on its own.
    PASSED = enum.auto()
    #: Only an output has the factor.
    CREATED = enum.auto()
    #: Sums over the factor: a position of zeros adds nothing.
    SUMMED = enum.auto()
    #: One input alone has the factor: the operator slides or reduces over it.
    CONSUMED = enum.auto()


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
        names: dict[str, None] = {}
        for term in (*self.inputs, *self.outputs):
            for dim in term or ():
                names.update(dict.fromkeys(dim))
        return list(names)

    def role(self, factor: str) -> Role:
        """What the operator does with the positions of ``factor``.  Declarations of the rule override the terms."""
        if factor in self.rule.mix:
            return Role.MIXED
        if factor in self.rule.estimates:
            return Role.ESTIMATED
        readers = len(self.inputs_with(factor))
        if self.in_output(factor):
            return Role.PASSED if readers else Role.CREATED
        return Role.SUMMED if factor in self.rule.sums or readers > 1 else Role.CONSUMED


def bind(rule: Rule, info: NodeInfo) -> Bound:
    """Fit ``rule`` to the node of ``info``.

    Raises:
        DoesNotFit: if ranks or sizes contradict the rule.
    """
    pattern = parse_pattern(rule.text)
    node = info.node
    if len(node.inputs) > len(pattern.inputs) or len(node.outputs) > len(pattern.outputs):
        raise DoesNotFit(
            f"it has {len(node.inputs)} inputs and {len(node.outputs)} outputs, more than rule '{rule.text}'"
        )
    inputs = _fit(pattern.inputs, [info.shape(k) for k in range(len(node.inputs))], rule)
    outputs = _fit(pattern.outputs, [info.out_shape(k) for k in range(len(node.outputs))], rule)
    sizes = dict(rule.sizes)
    for factor, attribute in {**{f: a for a, f in rule.attributes.items()}, **rule.reads}.items():
        stated = node.attribute(attribute)
        if stated is not None and factor.isalnum():
            sizes[factor] = int(stated.i)
    shapes = [info.shape(k) for k in range(len(inputs))] + [info.out_shape(k) for k in range(len(outputs))]
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
    """Fill ``sizes`` from the shapes: single factors first, then compounds with one unknown factor."""
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
            raise DoesNotFit(f"'{' '.join(dim) or '1'}' has size {size}, which contradicts rule '{rule.text}'")
