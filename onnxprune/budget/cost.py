"""Exact costs of a plan (MACs, parameters, bytes) as products of axis lengths.

Every cost is a sum of products of axis lengths (see :mod:`onnxprune.budget.lengths`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import onnx
from scipy.sparse import csr_array

from onnxprune.budget.lengths import Lengths, lengths_of
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key
from onnxprune.graph.layout import layout_of
from onnxprune.graph.tensors import bodies_of
from onnxprune.graph.uses import data_uses
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


class Costing(Protocol):
    """A cost, as a function of the units kept per group: (groups,), or (..., groups) for ``many``."""

    def __call__(self, kept: Array) -> float: ...

    def many(self, kept: Array) -> Array: ...

    def linked(self) -> csr_array:
        """(groups, groups), non-zero if two groups share a term, so that narrowing one changes the savings of the other."""
        ...


@dataclass(frozen=True, eq=False)
class Cost:
    """``fixed`` + Σ_terms factor · Π_axes length; ``lengths`` has one row per term.

    ``factor`` is (terms,).  ``nodes`` holds the node of each term.
    """

    factor: Array
    lengths: Lengths
    nodes: tuple[int, ...]
    fixed: float = 0.0

    def terms(self, kept: Array) -> Array:
        """The cost of each term; ``kept`` is units per group, (groups,) or (..., groups)."""
        return np.asarray(self.factor * self.lengths(kept).prod(axis=-1))

    def __call__(self, kept: Array) -> float:
        return float(self.terms(kept).sum() + self.fixed)

    def many(self, kept: Array) -> Array:
        return np.asarray(self.terms(kept).sum(axis=-1) + self.fixed)

    def linked(self) -> csr_array:
        return self.lengths.linked()


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

    def linked(self) -> csr_array:
        return self.exact.linked()

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


def cost_of_products(coupling: Coupling, products: Sequence[Product], fixed: float) -> Cost:
    """The cost Σ factor · Π lengths of the axes, plus ``fixed``."""
    lengths = lengths_of(coupling, [axes for _, _, axes in products])
    factor = np.asarray([f for _, f, _ in products], dtype=np.float64)
    return Cost(factor, lengths, tuple(n for n, _, _ in products), fixed)


def macs(coupling: Coupling) -> Cost:
    """Multiply-accumulates of all nodes whose rule declares them, at the input shapes of the analysis."""
    return cost_of_products(coupling, *_mac_products(coupling))


def original_macs(coupling: Coupling) -> float:
    """Multiply-accumulates of the uncut model for one sample."""
    return macs(coupling)(sizes(coupling))


def node_macs(coupling: Coupling, cost: Cost) -> dict[int, float]:
    """MACs of each node of the whole model."""
    totals: dict[int, float] = {}
    for node, value in zip(cost.nodes, cost.terms(sizes(coupling)), strict=True):
        totals[node] = totals.get(node, 0.0) + float(value)
    return totals


def stepped_macs(coupling: Coupling, block: int, align: int) -> Stepped:
    """MACs as kernels execute them, in blocks of channels (see :class:`Stepped`)."""
    products, fixed = _mac_products(coupling)
    exact = cost_of_products(coupling, products, fixed)
    channels = np.zeros(exact.lengths.shape, dtype=np.bool_)
    for t, (index, _, axes) in enumerate(products):
        channels[t, : len(axes)] = [_holds_channels(coupling, index, key, axis) for key, axis in axes]
    return Stepped(exact, channels, block, align)


def _holds_channels(coupling: Coupling, index: int, key: Key, axis: int) -> bool:
    """Whether a kernel of this node works on blocks of this axis.

    It does on axes of constants.  If a layer computes its weights, it also does on the channel axes of its input, output
    and weights.
    """
    bound, node = coupling.walked.bounds[index], coupling.graph.nodes[index]
    linear = bound.rule.linear
    if isinstance(key, tuple) or linear is None:
        return isinstance(key, tuple)
    terms = (*zip(node.inputs, bound.inputs, strict=True), *zip(node.outputs, bound.outputs, strict=True))
    dim = next((term[axis] for value, term in terms if value == key and term is not None), ())
    weighed = {factor for other in bound.inputs[linear.weight] or () for factor in other}
    shared = [f for f in dim if f in weighed and (bound.in_output(f) or linear.data in bound.inputs_with(f))]
    return bool(shared)


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
    """Axes that together have exactly the factors ``wanted``.  Prefers axes of weights, then compound dims."""
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


def file_size(coupling: Coupling, file_bytes: int) -> Cost:
    """Bytes of the file: its constants after the cut, plus everything else unchanged."""
    cost = _stored(coupling, per_element=_itemsize)
    rest = file_bytes - sum(_constants(coupling, _itemsize).values())
    return replace(cost, fixed=cost.fixed + rest)


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
        value = coupling.value_of(key)
        layout = layout_of(coupling.graph, coupling.facts, value)
        # In the stored order of the axes: a Transpose of a stored array is cut with it.
        order = range(len(lines)) if layout is None else np.argsort(layout.axes).tolist()
        original = value if layout is None else layout.stored
        known = ways.setdefault(original, [])
        way = tuple(lines[a] for a in order)
        if not any(all(map(np.array_equal, way, other)) for other in known):
            known.append(way)
            stored = coupling.graph.constants.get(original, constant_of(coupling, key))
            products.append((key[0], per_element(stored), [(key, a) for a in range(len(lines))]))
    constants = _constants(coupling, per_element)
    return cost_of_products(
        coupling, products, sum(size for name, size in constants.items() if not _replaced(coupling, name, cut))
    )


def _constants(coupling: Coupling, per_element: Callable[[Array], float]) -> dict[str, float]:
    """The size of every initializer and Constant node, by name."""
    known = coupling.graph.constants
    stored: dict[str, float] = {}
    for name, tensor in coupling.graph.initializers.items():
        stored[name] = math.prod(tensor.dims) * (per_element(known[name]) if name in known else 1.0)
    for node in coupling.graph.nodes:
        out = node.outputs[0] if node.outputs else None
        if node.op == "Constant" and out is not None and out in known:
            stored[out] = known[out].size * per_element(known[out])
    return stored


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
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                tensors.append(attribute.t)
            for body in bodies_of(attribute):
                tensors += _tensors(body)
    return tensors
