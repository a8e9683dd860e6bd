"""Control flow: which value inside a body is which value outside, so that channels can cross the body's boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Body, Graph, Node


@dataclass(frozen=True)
class Crossing:
    """A body's input or output ``inner`` is the node's input ``slot``, or its output ``outer``.

    ``stacked`` is the axis of the outer value that ``inner`` lacks (one slice per iteration), or ``None``.
    """

    inner: str
    slot: int | None
    outer: str | None
    stacked: int | None


def dead_scopes(graph: Graph, facts: Facts) -> frozenset[str]:
    """Scopes of If branches that never run, whatever sizes a caller chooses."""
    dead: set[str] = set()
    for body in graph.bodies[1:]:
        owner = graph.nodes[body.owner or 0]
        condition = _condition(graph, facts, owner)
        if condition is not None and body.attribute != ("then_branch" if condition else "else_branch"):
            dead.add(body.scope)
    return frozenset(dead)


def _condition(graph: Graph, facts: Facts, node: Node) -> bool | None:
    name = node.inputs[0] if node.op == "If" and node.inputs else None
    if name is None or facts.varies(name):
        return None
    known = facts.values.get(name, graph.constants.get(name))
    return bool(known.reshape(())) if known is not None and known.size == 1 else None


def crossings(graph: Graph, node: Node, dead: frozenset[str]) -> Iterator[Crossing]:
    """Every value that crosses into or out of the bodies of ``node`` (an If, Loop or Scan)."""
    bodies = [graph.body_of(node, which) for which, _ in node.bodies()]
    if node.op == "If":
        for body in bodies:
            if body.scope not in dead:
                for inner, outer in zip(body.outputs, node.outputs, strict=False):
                    yield Crossing(inner, None, outer, None)
    elif node.op == "Loop":
        yield from _loop(node, bodies[0])
    elif node.op == "Scan":
        yield from _scan(node, bodies[0])


def _loop(node: Node, body: Body) -> Iterator[Crossing]:
    carried = len(node.inputs) - 2
    for place in range(carried):
        yield Crossing(body.inputs[2 + place], 2 + place, None, None)
        # The next iteration reads the value that this one returns.
        yield Crossing(body.outputs[1 + place], 2 + place, None, None)
    for place, outer in enumerate(node.outputs):
        yield Crossing(body.outputs[1 + place], None, outer, None if place < carried else 0)


def _scan(node: Node, body: Body) -> Iterator[Crossing]:
    count = node.integer("num_scan_inputs", 0)
    carried = len(node.inputs) - count
    into = node.integers("scan_input_axes") or (0,) * count
    for place, inner in enumerate(body.inputs):
        yield Crossing(inner, place, None, None if place < carried else into[place - carried])
    outof = node.integers("scan_output_axes") or (0,) * len(node.outputs)
    for place, outer in enumerate(node.outputs):
        if place < carried:
            yield Crossing(body.outputs[place], place, None, None)
        yield Crossing(body.outputs[place], None, outer, None if place < carried else outof[place - carried])
