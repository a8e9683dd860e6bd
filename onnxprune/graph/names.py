"""Names for what a rewrite of a graph adds."""

from __future__ import annotations

from onnxprune.graph.view import Graph


def value_names(graph: Graph) -> set[str]:
    return {value for node in graph.nodes for value in (*node.inputs, *node.outputs) if value is not None}


def unused(name: str, taken: set[str]) -> str:
    """``name``, with as much behind it as makes it none of those ``taken``, among which it is from then on.

    >>> unused("x", {"x", "x_"}), unused("y", {"x"})
    ('x__', 'y')
    """
    while name in taken:
        name += "_"
    taken.add(name)
    return name
