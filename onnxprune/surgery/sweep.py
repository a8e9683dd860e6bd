"""Remove what a cut leaves unread or computed twice."""

from __future__ import annotations

from collections.abc import Container

import onnx

from onnxprune.graph.edit import forget, forget_notes
from onnxprune.graph.tensors import bodies_of, copied


def sweep(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the constants and nodes whose values nothing reads after a cut.

    Whatever was unread before stays.  Joins equal nodes that are not in the original: copies made for each reader that
    turned out to need no difference.
    """
    left = _unread(original)
    swept = copied(model)
    _join(swept.graph, {name for node in original.graph.node for name in node.output})
    while dead := _unread(swept) - left:
        _remove(swept.graph, dead)
        # What could not be removed stays: the loop must end.
        left |= dead
    return swept


def _join(graph: onnx.GraphProto, known: Container[str]) -> None:
    """Rewire the readers of a node that is not ``known`` to the first equal node, which leaves the later one unread."""
    exposed = {output.name for output in graph.output}
    first: dict[bytes, onnx.NodeProto] = {}
    instead: dict[str, str] = {}
    fresh = {node.op_type for node in graph.node if not any(name in known for name in node.output)}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in instead:
                node.input[slot] = instead[name]
        if node.op_type not in fresh or not node.input:
            continue
        new = not any(name in known for name in node.output) and exposed.isdisjoint(node.output)
        bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, attribute=node.attribute)
        same = first.setdefault(bytes(bare.SerializeToString(deterministic=True)), node)
        if new and same is not node and len(same.output) == len(node.output):
            instead.update(zip(node.output, same.output, strict=True))


def _unread(model: onnx.ModelProto) -> set[str]:
    made: set[str] = set()
    read: set[str] = set()

    def walk(graph: onnx.GraphProto) -> None:
        made.update(t.name for t in graph.initializer)
        read.update(o.name for o in graph.output)
        for node in graph.node:
            if not any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                made.update(node.output[:1] if len(node.output) == 1 else [])
            read.update(node.input)
            for attribute in node.attribute:
                for body in bodies_of(attribute):
                    walk(body)

    walk(model.graph)
    return {name for name in made - read if name}


def _remove(graph: onnx.GraphProto, dead: set[str]) -> None:
    """Remove the producers of ``dead`` values, in place, control-flow bodies included."""
    gone = [k for k, node in enumerate(graph.node) if len(node.output) == 1 and node.output[0] in dead]
    names = {graph.node[k].output[0] for k in gone}
    for place in reversed(gone):
        del graph.node[place]
    forget_notes(graph, names)
    forget(graph, {tensor.name for tensor in graph.initializer if tensor.name in dead})
    for node in graph.node:
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                _remove(body, dead)
