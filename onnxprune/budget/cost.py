"""Exact costs of a plan (MACs, parameters, bytes) as products of axis lengths.

All units of a group occur equally often on an axis.  So every axis length is linear in the numbers of kept units, and
every cost is a sum of products of such lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key
from onnxprune.graph.tensors import bodies_of
from onnxprune.graph.view import data_uses, original_of
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


class Costing(Protocol):
    """A cost, as a function of the units kept per group: (groups,), or (..., groups) for ``many``."""

    def __call__(self, kept: Array) -> float: ...

    def many(self, kept: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class Cost:
    """``fixed`` + Σ_terms factor · Π_axes (base + slope · kept); ``kept`` is the vector of units kept per group.

    ``base`` is (terms, axes), ``slope`` (terms, axes, groups), ``factor`` (terms,).  Unused axes have base 1.
    ``nodes`` holds the node of each term.
    """

    factor: Array
    base: Array
    slope: Array
    nodes: tuple[int, ...]
    fixed: float = 0.0

    def lengths(self, kept: Array) -> Array:
        """Axis lengths, (..., terms, axes)."""
        flat = np.asarray(kept, dtype=np.float64) @ self.slope.reshape(self.base.size, self.slope.shape[2]).T
        return np.asarray(self.base + flat.reshape(*flat.shape[:-1], *self.base.shape))

    def terms(self, kept: Array) -> Array:
        """The cost of each term; ``kept`` is (groups,) or (..., groups)."""
        lengths = self.lengths(kept)
        return np.asarray(self.factor * lengths.prod(axis=-1))

    def __call__(self, kept: Array) -> float:
        return float(self.terms(kept).sum() + self.fixed)

    def many(self, kept: Array) -> Array:
        return np.asarray(self.terms(kept).sum(axis=-1) + self.fixed)


#: How much slower a dense layer is in the layout for unaligned channels (measured, see budget/rounding.py).
UNALIGNED = 1.4


@dataclass(frozen=True, eq=False)
class Stepped:
    """``exact`` with the ``channels`` axes (terms, axes) rounded up to ``block``.  Unaligned axes cost more."""

    exact: Cost
    channels: Array
    block: int
    align: int

    def many(self, kept: Array) -> Array:
        lengths = self.exact.lengths(kept)
        padded = np.ceil(lengths / self.block) * self.block
        padded *= np.where(np.rint(lengths) % self.align, UNALIGNED, 1.0)
        lengths = np.where(self.channels, padded, lengths)
        return np.asarray((self.exact.factor * lengths.prod(axis=-1)).sum(axis=-1) + self.exact.fixed)

    def __call__(self, kept: Array) -> float:
        return float(self.many(kept))


def sizes(coupling: Coupling) -> Array:
    """Units per group, int64 (groups,)."""
    return np.asarray([len(g) for g in coupling.groups], dtype=np.int64)


def units_kept(coupling: Coupling, keep: Array) -> Array:
    """Units per group that ``keep`` (one boolean per unit) keeps, int64 (groups,)."""
    return np.asarray([np.count_nonzero(keep[g.units]) for g in coupling.groups], dtype=np.int64)


#: Node index, constant factor, and the axes that a cut can shorten.
Product = tuple[int, float, list[tuple[Key, int]]]


def axis_lengths(coupling: Coupling, places: Sequence[Sequence[tuple[Key, int]]]) -> tuple[Array, Array]:
    """(base (n, m), slope (n, m, groups)) of n rows of at most m axes.  length = base + slope · kept; 1 if unused."""
    group_of = np.zeros(coupling.unit_count + 1, dtype=np.int64)
    for group in coupling.groups:
        group_of[group.units] = group.id
    per_group = sizes(coupling)
    count = len(coupling.groups)
    width = max((len(axes) for axes in places), default=1)
    base = np.ones((len(places), width))
    slope = np.zeros((len(places), width, count))
    for t, axes in enumerate(places):
        for a, (key, axis) in enumerate(axes):
            units = coupling.units[key][axis]
            free = units[units >= 0]
            base[t, a] = len(units) - len(free)
            if count:
                slope[t, a] = np.bincount(group_of[free], minlength=count) / np.maximum(per_group, 1)
    return base, slope


def build(coupling: Coupling, products: Sequence[Product], fixed: float) -> Cost:
    """The cost Σ factor · Π lengths of the axes, plus ``fixed``."""
    base, slope = axis_lengths(coupling, [axes for _, _, axes in products])
    factor = np.asarray([f for _, f, _ in products], dtype=np.float64)
    return Cost(factor, base, slope, tuple(n for n, _, _ in products), fixed)


def macs(coupling: Coupling) -> Cost:
    """Multiply-accumulates of all nodes whose rule declares them, at the input shapes of the analysis."""
    return build(coupling, *_mac_products(coupling))


def stepped_macs(coupling: Coupling, block: int, align: int) -> Stepped:
    """MACs as kernels execute them, in blocks of channels (see :class:`Stepped`)."""
    products, fixed = _mac_products(coupling)
    exact = build(coupling, products, fixed)
    channels = np.zeros(exact.base.shape, dtype=np.bool_)
    for t, (_, _, axes) in enumerate(products):
        channels[t, : len(axes)] = [isinstance(key, tuple) for key, _ in axes]
    return Stepped(exact, channels, block, align)


def _mac_products(coupling: Coupling) -> tuple[list[Product], float]:
    products: list[Product] = []
    fixed = 0.0
    for index, bound in coupling.walked.bounds.items():
        for wanted in bound.rule.macs:
            axes = _cover(coupling, index, list(wanted))
            if axes is None:
                fixed += math.prod(bound.sizes[f] for f in wanted)
                continue
            live = [(k, a) for k, a in axes if k in coupling.units and (coupling.units[k][a] >= 0).any()]
            rest = math.prod(_length(coupling, k, a) for k, a in axes if (k, a) not in live)
            products.append((index, float(rest), live))
    return products, fixed


def _length(coupling: Coupling, key: Key, axis: int) -> int:
    return int(coupling.facts.shapes[coupling.value_of(key)][axis])


def _cover(coupling: Coupling, index: int, wanted: list[str]) -> list[tuple[Key, int]] | None:
    """Axes whose dims together are exactly the factors ``wanted``; prefers axes of weights, then compound dims."""
    bound, node = coupling.walked.bounds[index], coupling.graph.nodes[index]
    places: list[tuple[Key, int, tuple[str, ...]]] = []
    for slot, term in enumerate(bound.inputs):
        value = node.inputs[slot]
        if term is None or value is None:
            continue
        key: Key = (index, slot) if (index, slot) in coupling.walked.labels else value
        places += [(key, a, dim) for a, dim in enumerate(term)]
    for value, term in zip(node.outputs, bound.outputs, strict=True):
        if term is not None and value is not None:
            places += [(value, a, dim) for a, dim in enumerate(term)]
    places.sort(key=lambda p: (not isinstance(p[0], tuple), -len(p[2])))
    needs = [(key, axis, [f for f in dim if bound.sizes[f] != 1]) for key, axis, dim in places]
    return _exactly([f for f in wanted if bound.sizes.get(f, 1) != 1], [n for n in needs if n[2]])


def _exactly(left: list[str], places: Sequence[tuple[Key, int, list[str]]]) -> list[tuple[Key, int]] | None:
    """The first subset of ``places`` (key, axis, factors) that covers the factors ``left``, each once."""
    if not left:
        return []
    for number, (key, axis, need) in enumerate(places):
        if left[0] not in need or any(need.count(f) > left.count(f) for f in need):
            continue
        rest = list(left)
        for f in need:
            rest.remove(f)
        others = _exactly(rest, [p for k, p in enumerate(places) if k != number])
        if others is not None:
            return [(key, axis), *others]
    return None


def parameters(coupling: Coupling) -> Cost:
    """Number of elements in all initializers and Constant nodes (see :func:`_stored`)."""
    return _stored(coupling, per_element=lambda array: 1.0)


def stored_bytes(coupling: Coupling, file_bytes: int) -> Cost:
    """Bytes of the file: its constants after the cut, plus everything else unchanged."""
    cost = _stored(coupling, per_element=_itemsize)
    rest = file_bytes - sum(_constants(coupling, _itemsize).values())
    return Cost(cost.factor, cost.base, cost.slope, cost.nodes, cost.fixed + rest)


def _itemsize(array: Array) -> float:
    return float(array.dtype.itemsize)


def _stored(coupling: Coupling, per_element: Callable[[Array], float]) -> Cost:
    """The size of all stored arrays.  An array counts once per distinct way to cut its uses; uncut arrays are fixed.

    This is exact once every use is cut.  Before that, an array that a cut would split counts once per part.  If a node
    computes one constant from another, its shapes and axes do not count.
    """
    products: list[Product] = []
    ways: dict[str, list[tuple[Array, ...]]] = {}
    cut: set[Key] = set()
    for key, lines in coupling.units.items():
        if not isinstance(key, tuple) or not any((line >= 0).any() for line in lines):
            continue
        cut.add(key)
        original = original_of(coupling.graph, coupling.value_of(key))
        known = ways.setdefault(original, [])
        if not any(all(map(np.array_equal, lines, other)) for other in known):
            known.append(lines)
            stored = coupling.graph.constants.get(original, constant_of(coupling, key))
            products.append((key[0], per_element(stored), [(key, a) for a in range(len(lines))]))
    constants = _constants(coupling, per_element)
    return build(
        coupling, products, sum(size for name, size in constants.items() if not _replaced(coupling, name, cut))
    )


def _constants(coupling: Coupling, per_element: Callable[[Array], float]) -> dict[str, float]:
    """The size of every initializer and Constant node, by name."""
    known = coupling.graph.constants
    found: dict[str, float] = {}
    for name, tensor in coupling.graph.initializers.items():
        found[name] = math.prod(tensor.dims) * (per_element(known[name]) if name in known else 1.0)
    for node in coupling.graph.nodes:
        out = node.outputs[0] if node.outputs else None
        if node.op == "Constant" and out is not None and out in known:
            found[out] = known[out].size * per_element(known[out])
    return found


def _replaced(coupling: Coupling, value: str, cut: set[Key]) -> bool:
    """Whether the cut gives every use of a constant its own array; looks through nodes that fold into constants."""
    uses = data_uses(coupling.graph, value)
    if not uses or value in coupling.graph.outputs:
        return False
    for use in uses:
        outputs = [o for o in coupling.graph.nodes[use[0]].outputs if o is not None]
        folded = use[0] in coupling.facts.folded and outputs
        if use not in cut and not (folded and all(_replaced(coupling, o, cut) for o in outputs)):
            return False
    return True


def count_parameters(model: onnx.ModelProto) -> int:
    """Number of elements in all initializers and Constant nodes, subgraphs included."""
    return sum(math.prod(t.dims) for t in _tensors(model.graph))


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                found.append(attribute.t)
            for body in bodies_of(attribute):
                found += _tensors(body)
    return found
