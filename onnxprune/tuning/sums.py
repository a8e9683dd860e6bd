"""Which axes of a weight one output of its layer sums over."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxprune.graph.view import Graph, Node

#: (operator, slot of the weight) -> its axes: ``i`` is summed, ``o`` is not.  ``*``: all further axes, the taps of a kernel,
#: which are summed.  ``.``: any number of axes that are not summed.
LAYOUTS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("Conv", 1): "oi*",
        ("FusedConv", 1): "oi*",
        ("ConvTranspose", 1): "io*",
        ("MatMul", 0): ".oi",
        ("MatMul", 1): ".io",
        ("Gemm", 0): "oi",
        ("Gemm", 1): "io",
        ("RNN", 1): "ooi",
        ("RNN", 2): "ooi",
        ("GRU", 1): "ooi",
        ("GRU", 2): "ooi",
        ("LSTM", 1): "ooi",
        ("LSTM", 2): "ooi",
        ("Attention", 1): "io",
    }
)
#: Attributes that swap the last two axes, by (operator, slot).
TRANSPOSED: Mapping[tuple[str, int], str] = MappingProxyType({("Gemm", 0): "transA", ("Gemm", 1): "transB"})


def summed_axes(graph: Graph, name: str) -> tuple[int, ...]:
    """The axes of the constant ``name`` that one output of its first reader sums over; none if unknown."""
    rank, readers = graph.constants[name].ndim, graph.consumers.get(name, ())
    layout = _layout(graph.nodes[readers[0][0]], readers[0][1], rank) if readers else ""
    if len(layout) != rank:
        return ()
    return tuple(axis for axis, letter in enumerate(layout) if letter in "i*")


def _layout(node: Node, slot: int, rank: int) -> str:
    """One letter per axis: ``i``, ``o``, or ``*`` for taps; empty if unknown."""
    layout = LAYOUTS.get((node.op, slot), "")
    swap = TRANSPOSED.get((node.op, slot))
    if swap is not None and node.integer(swap, 0):
        layout = layout[::-1]
    if layout.endswith("*"):
        return layout[:-1] + "*" * (rank - 2)
    return layout.replace(".", "o" * (rank - 2))
