"""Node names that several nodes share, which ONNX allows and onnxruntime refuses to load."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def repeated_names(model: onnx.ModelProto) -> int:
    """How many nodes carry a name that an earlier node of the same graph has; unnamed nodes do not count."""
    return sum(len(late) for late, _ in _repeats(model.graph))


def with_unique_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each of those nodes has a number after its name; the first keeps the name as it was.

    Cost: one copy of the model.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for late, taken in list(_repeats(found.graph)):
        for node in late:
            count = 2
            while f"{node.name}_{count}" in taken:
                count += 1
            node.name = f"{node.name}_{count}"
            taken.add(node.name)
    return found


def _repeats(graph: onnx.GraphProto) -> Iterator[tuple[list[onnx.NodeProto], set[str]]]:
    """Per graph, bodies of control flow included: its nodes whose name is taken, and all names in it."""
    seen: set[str] = set()
    late: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in seen:
            late.append(node)
        if node.name:
            seen.add(node.name)
        for attribute in node.attribute:
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _repeats(body)
    if late:
        yield late, seen
