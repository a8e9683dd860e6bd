"""Where the elements of an operand come from: a literal that can be rewritten, or the size of an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.graph.execute import CannotExecute, run_node
from onnxprune.graph.facts import Facts
from onnxprune.graph.folding import sizes_of
from onnxprune.graph.view import Graph

#: Operators that copy integers without computing.  Every other operator makes new ones.
COPYING = frozenset(
    [
        "Concat",
        "Slice",
        "Gather",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Cast",
        "Identity",
        "Split",
        "Expand",
        "Flatten",
        "Tile",
        "Where",
    ]
)


@dataclass(frozen=True)
class Literal:
    """Element ``position`` (flat) of input ``slot`` of node ``node``.

    The element is a constant, or a size that never changes with the sizes a caller chooses.  Either may become a
    constant at this input.
    """

    node: int
    slot: int
    position: int


@dataclass(frozen=True)
class Size:
    """The size of ``axis`` of the tensor ``value``."""

    value: str
    axis: int


def literal_sources(graph: Graph, facts: Facts, value: str) -> list[Literal | None] | None:
    """The literal of each element of ``value``, ``None`` for an element that changes with a caller's sizes.

    Returns ``None`` if the arithmetic cannot be traced.
    """
    sources = _sources(graph, facts, value)
    return None if sources is None else [leaf if isinstance(leaf, Literal) else None for leaf in sources]


def size_sources(graph: Graph, facts: Facts, value: str) -> list[Size | None]:
    """The axis whose size each element of ``value`` is; ``None`` for an element that is no size or can be rewritten."""
    sources = _sources(graph, facts, value) or []
    return [leaf if isinstance(leaf, Size) else None for leaf in sources]


def _sources(graph: Graph, facts: Facts, value: str) -> list[Literal | Size | None] | None:
    leaves: list[Literal | Size] = []
    ids = _identify(graph, facts, value, leaves)
    if ids is None:
        return None
    return [leaves[i - 1] if i > 0 else None for i in ids.ravel().tolist()]


def _identify(graph: Graph, facts: Facts, value: str, leaves: list[Literal | Size]) -> np.ndarray | None:
    """An int64 array shaped like ``value``: per element 1 + the index of its source in ``leaves``, or 0."""
    known = facts.values.get(value)
    index = graph.producer.get(value)
    if known is None or index is None or index not in facts.arithmetic:
        return None
    node = graph.nodes[index]
    blank = np.zeros(known.shape, dtype=np.int64)
    source = node.inputs[0] or "" if node.op == "Shape" else ""
    if source in facts.shapes:
        first = len(leaves) + 1
        axes = sizes_of(node, tuple(range(len(facts.shapes[source]))))
        leaves.extend(Size(source, axis) for axis in axes.tolist())
        return np.arange(first, first + axes.size, dtype=np.int64)
    if node.op not in COPYING:
        return blank
    moved = {"Concat": set(range(len(node.inputs))), "Where": {1, 2}}.get(node.op, {0})
    feeds: list[np.ndarray | None] = []
    for slot, name in enumerate(node.inputs):
        if name is None:
            feeds.append(None)
            continue
        constant = facts.values.get(name, graph.constants.get(name))
        if slot not in moved:
            feeds.append(constant)
        elif graph.producer.get(name, -1) in facts.arithmetic:
            ids = _identify(graph, facts, name, leaves)
            feeds.append(ids if ids is None or facts.varies(name) else _complete(ids, node.index, slot, leaves))
        elif constant is not None:
            first = len(leaves) + 1
            leaves.extend(Literal(node.index, slot, k) for k in range(constant.size))
            feeds.append(np.arange(first, first + constant.size, dtype=np.int64).reshape(constant.shape))
        else:
            feeds.append(None)
    if any(f is None and n is not None for f, n in zip(feeds, node.inputs, strict=True)):
        return blank
    if node.op == "Cast":
        return feeds[0]
    try:
        results = run_node(node.proto, graph.opsets, feeds)
    except CannotExecute:
        return blank
    return results[node.outputs.index(value)]


def _complete(ids: np.ndarray, node: int, slot: int, leaves: list[Literal | Size]) -> np.ndarray:
    """Make literals of elements that are computed upstream but never vary: they can be rewritten at this node's input."""
    complete = ids.copy()
    computed = [i == 0 or isinstance(leaves[i - 1], Size) for i in ids.ravel().tolist()]
    for position in np.flatnonzero(computed).tolist():
        leaves.append(Literal(node, slot, position))
        complete.reshape(-1)[position] = len(leaves)
    return complete
