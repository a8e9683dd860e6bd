"""Who uses a value: its readers, its copies, and the readers of its copies."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.graph.view import Graph, Node

#: One use of a value: the index of the node that reads it, and the input slot.
Use = tuple[int, int]


def data_uses(graph: Graph, value: str) -> list[tuple[int, int]]:
    """The uses of ``value``, except by nodes that only read its size."""
    return [
        (index, slot)
        for index, slot in graph.consumers.get(value, ())
        if graph.nodes[index].op not in ("Shape", "Size") or graph.nodes[index].domain != ""
    ]


def original_of(graph: Graph, value: str) -> str:
    """The value that ``value`` is a copy of, see :func:`copies_of`; ``value`` itself if it is not a copy."""
    while value in graph.producer:
        node = graph.nodes[graph.producer[value]]
        if not copies(graph, node):
            break
        value = node.inputs[0] or ""
    return value


def copies(graph: Graph, node: Node) -> bool:
    """Whether the node makes a copy: an Identity, which exporters use to merge equal tensors, or a Cast that widens a
    constant stored in half precision."""
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    if node.op != "Cast" or node.integer("to", 0) not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return node.op == "Identity"
    return kept_in_half(graph, original_of(graph, node.inputs[0]))


def kept_in_half(graph: Graph, value: str) -> bool:
    stored = graph.constants.get(value)
    return stored is not None and stored.dtype == np.float16


def copies_of(graph: Graph, value: str) -> list[str]:
    """``value`` and its copies, and the copies of its copies."""
    names = [value]
    # The list grows while it is read.
    for name in names:
        for index, _ in graph.consumers.get(name, ()):
            if copies(graph, graph.nodes[index]):
                names += [out for out in graph.nodes[index].outputs if out is not None]
    return names


def shared_uses(graph: Graph, value: str) -> list[tuple[int, int]]:
    """The :func:`data_uses` of ``value`` and of its copies, except by the nodes that copy it."""
    uses = [use for name in copies_of(graph, value) for use in data_uses(graph, name)]
    return [use for use in uses if not copies(graph, graph.nodes[use[0]])]
