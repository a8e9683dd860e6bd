"""Names for values and nodes that a rewrite adds."""

from __future__ import annotations

from onnxprune.graph.view import Graph


def value_names(graph: Graph) -> set[str]:
    return {value for node in graph.nodes for value in (*node.inputs, *node.outputs) if value is not None}


def unused(name: str, taken: set[str]) -> str:
    """``name`` with underscores appended until it is not in ``taken``.  Adds the result to ``taken``.

    >>> unused("x", {"x", "x_"}), unused("y", {"x"})
    ('x__', 'y')
    """
    while name in taken:
        name += "_"
    taken.add(name)
    return name
