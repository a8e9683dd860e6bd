"""Latency of a cut as the allocator sees it: the sum of its layers' times, interpolated in a table.

It is exact at the table's widths.  Between them it is bilinear, in steps of the table's block.  Other operators cost
time too, at the table's rates.  Elementwise operators, pooling and concatenation cost the bytes that they move, or
nothing if runtimes fuse them into the layer before.  Products of two activations and recurrent layers cost their
multiplications.  The model ignores caches, threads and the order of operators: the run measures the whole model at the
end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from scipy.sparse import csr_array

from onnxprune.budget.cost import Cost, Product, cost_of_products, macs
from onnxprune.budget.lengths import Lengths, lengths_of
from onnxprune.coupling.groups import Coupling
from onnxprune.errors import BudgetError
from onnxprune.graph.view import Node
from onnxprune.latency.signature import Timed
from onnxprune.latency.table import Grid, Table

Array = np.ndarray
#: Operators that never move data.
FREE = frozenset(
    (
        "Constant",
        "ConstantOfShape",
        "Dropout",
        "Flatten",
        "Identity",
        "Reshape",
        "Shape",
        "Size",
        "Squeeze",
        "Unsqueeze",
    )
)
#: Share of its traffic that an operator still costs directly after a layer: runtimes fuse the two.
FUSED: Mapping[str, float] = MappingProxyType(
    {
        "Add": 1 / 3,
        "BatchNormalization": 0.0,
        "Clip": 0.0,
        "HardSigmoid": 0.0,
        "LeakyRelu": 0.0,
        "PRelu": 0.0,
        "Relu": 0.0,
        "Sigmoid": 1 / 2,
        "Tanh": 1 / 2,
    }
)


@dataclass(frozen=True, eq=False)
class Latency:
    """Seconds, as a function of the units kept per group.

    Layer l has ``lengths`` (i, o).  Its time is the bilinear value of ``seconds[l]`` at the coordinates
    ``where[l, side, length]``, times ``factor[l, side, length]`` for both sides.
    """

    lengths: Lengths
    where: Array
    factor: Array
    seconds: Array
    moved: Cost
    multiplied: Cost

    def many(self, kept: Array) -> Array:
        lengths = np.rint(self.lengths(kept)).astype(np.int64)
        layer, side = np.arange(len(self.where))[:, None], np.arange(2)
        at, factor = self.where[layer, side, lengths], self.factor[layer, side, lengths].prod(axis=-1)
        low = at.astype(np.int64)
        part = at - low
        i, o, which = low[..., 0], low[..., 1], layer[:, 0]
        p, q = part[..., 0], part[..., 1]
        first = self.seconds[which, i, o] * (1 - q) + self.seconds[which, i, o + 1] * q
        second = self.seconds[which, i + 1, o] * (1 - q) + self.seconds[which, i + 1, o + 1] * q
        layers = (first * (1 - p) + second * p) * factor
        return np.asarray(layers.sum(axis=-1) + self.moved.many(kept) + self.multiplied.many(kept))

    def __call__(self, kept: Array) -> float:
        return float(self.many(kept))

    def linked(self) -> csr_array:
        return csr_array(self.lengths.linked() + self.moved.linked() + self.multiplied.linked())


def latency(coupling: Coupling, timed: Sequence[Timed], table: Table) -> Latency:
    """The latency of ``coupling`` according to ``table``.

    Raises:
        BudgetError: the table lacks a layer of the model.
    """
    missing = sorted({t.signature.key for t in timed} - set(table.layers))
    if missing:
        raise BudgetError(
            f"the latency table ({table.origin}) lacks {len(missing)} layers of this model, such as '{missing[0]}'; "
            "measure them: onnxprune inspect MODEL --layers FILE, then tools/measure_latency_table.py on the device"
        )
    lengths = lengths_of(coupling, [[t.inputs, t.outputs] for t in timed])
    grids = [table.layers[t.signature.key] for t in timed]
    most = int(max((max(t.signature.inputs, t.signature.outputs) for t in timed), default=1)) + 1
    rows = max((len(g.inputs) for g in grids), default=1) + 1
    columns = max((len(g.outputs) for g in grids), default=1) + 1
    seconds = np.zeros((len(timed), rows, columns))
    where, factor = np.zeros((len(timed), 2, most)), np.ones((len(timed), 2, most))
    for n, (one, grid) in enumerate(zip(timed, grids, strict=True)):
        _fill(seconds[n], grid)
        for side, (nodes, full) in enumerate(
            ((grid.inputs, one.signature.inputs), (grid.outputs, one.signature.outputs))
        ):
            where[n, side], factor[n, side] = _coordinates(nodes, full, most, table)
        aligned = np.arange(most) % table.blocks.align == 0
        # The fast layout needs aligned inputs.  If the full input is unaligned, the table holds its slow time already.
        ordinary = aligned | (one.signature.inputs % table.blocks.align != 0)
        factor[n, 0 if one.signature.live_inputs else 1][~ordinary] *= table.unaligned
    counted = {t.node for t in timed}
    rest = macs(coupling)
    other = np.asarray([table.per_mac * (node not in counted) for node in rest.nodes])
    multiplied = replace(rest, factor=rest.factor * other, fixed=0.0)
    return Latency(lengths, where, factor, seconds, traffic(coupling, counted, table.per_byte), multiplied)


def _fill(target: Array, grid: Grid) -> None:
    """Copy the grid and repeat its last row and column, so that every cell has a right and a lower neighbour."""
    rows, columns = target.shape
    target[...] = np.pad(grid.seconds, ((0, rows - len(grid.inputs)), (0, columns - len(grid.outputs))), mode="edge")


def _coordinates(nodes: Array, full: int, most: int, table: Table) -> tuple[Array, Array]:
    """(fractional index into ``nodes``, factor) for every length below ``most``."""
    lengths = np.arange(most, dtype=np.float64)
    padded = np.minimum(np.ceil(lengths / table.blocks.block) * table.blocks.block, full)
    below = np.minimum(padded / nodes[0], 1.0)
    # Below the narrowest measured width, we assume that half of the time is fixed.
    return np.interp(padded, nodes, np.arange(len(nodes))), (1 + below) / 2


def traffic(coupling: Coupling, layers: set[int], per_byte: float) -> Cost:
    """Seconds that all operators but ``layers`` spend on reading and writing, at ``per_byte``."""
    products: list[Product] = []
    fixed = 0.0
    fused = _fused_nodes(coupling, layers)
    for node in coupling.graph.nodes:
        if node.index in layers or node.op in FREE or node.scope or node.index in coupling.facts.folded:
            continue
        share = FUSED.get(node.op, 1.0) if node.index in fused else 1.0
        if share == 0.0:
            continue
        for value in (*node.inputs, *node.outputs):
            shape = coupling.facts.shapes.get(value) if value is not None else None
            if value is None or shape is None or value in coupling.graph.constants or value in coupling.facts.values:
                continue
            lines = coupling.units.get(value, ())
            live = [(value, axis) for axis, line in enumerate(lines) if (line >= 0).any()]
            rest = float(np.prod([size for axis, size in enumerate(shape) if (value, axis) not in live]))
            if live:
                products.append((node.index, per_byte * share * 4 * rest, list(live)))
            else:
                fixed += per_byte * share * 4 * rest
    return cost_of_products(coupling, products, fixed)


def _fused_nodes(coupling: Coupling, layers: set[int]) -> set[int]:
    """Nodes after a layer in an unbroken chain of fusable operators, each the only reader of the one before."""
    fused: set[int] = set()
    for index in layers:
        node: Node | None = coupling.graph.nodes[index]
        while node is not None:
            value = node.outputs[0]
            readers = coupling.graph.consumers.get(value, ()) if value is not None else ()
            node = coupling.graph.nodes[readers[0][0]] if len(readers) == 1 else None
            if node is None or node.op not in FUSED or node.scope:
                break
            fused.add(node.index)
    return fused
