"""Dequantized constants that several nodes read, written once per reader: a constant is cut for each use on its own.

Quantizers dequantize a constant once for all who read it.  What they share by accident (a vector of ones, a table of
positions) would tie the channels of unrelated layers, which a plain constant does not.
"""

from __future__ import annotations

import onnx

from onnxprune.coupling.rule import Call, Rule
from onnxprune.coupling.rules import lookup
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph, Node


def with_own_constants(graph: Graph, facts: Facts) -> onnx.ModelProto | None:
    """A copy of the model with one DequantizeLinear of a constant per use; ``None`` where there is none to part.

    Weights that several layers share stay shared.  The first use keeps node and value.  Cost: one copy of the model.
    """
    found = [(node, uses) for node in graph.nodes if (uses := _apart(graph, facts, node))]
    if not found:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    taken = {value for node in graph.nodes for value in (*node.inputs, *node.outputs) if value is not None}
    types = {value.name: value for value in model.graph.value_info}
    copies: list[tuple[int, onnx.NodeProto]] = []
    for node, uses in found:
        for count, (index, slot) in enumerate(uses, start=2):
            name = f"{node.proto.output[0]}_{count}"
            while name in taken:
                name += "_"
            taken.add(name)
            model.graph.node[graph.nodes[index].position].input[slot] = name
            if node.proto.output[0] in types:
                model.graph.value_info.add().CopyFrom(types[node.proto.output[0]])
                model.graph.value_info[-1].name = name
            copy = onnx.NodeProto()
            copy.CopyFrom(node.proto)
            copy.output[0] = name
            copy.name = f"{node.proto.name}_{count}" if node.proto.name else ""
            copies.append((node.position, copy))
    # From the last on, so that positions stay true.
    for position, copy in sorted(copies, key=lambda pair: -pair[0]):
        model.graph.node.insert(position + 1, copy)
    return model


def _apart(graph: Graph, facts: Facts, node: Node) -> list[tuple[int, int]]:
    """The uses of a dequantized constant that get one of their own."""
    out = node.outputs[0] if node.outputs else None
    if node.op != "DequantizeLinear" or node.scope or out is None or out in graph.outputs:
        return []
    if any(value is not None and value not in graph.constants for value in node.inputs):
        return []
    uses = graph.consumers.get(out, ())
    if len(uses) < 2 or any(graph.nodes[index].scope for index, _ in uses):
        return []
    together = [use for use in uses if _weighs(graph, facts, graph.nodes[use[0]])]
    alone = [use for use in uses if use not in together]
    return alone if together else alone[1:]


def _weighs(graph: Graph, facts: Facts, node: Node) -> bool:
    """Whether the node multiplies by it, as layers do by their weights."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    entry = lookup(node.domain, node.op)
    if callable(entry) and all(v in facts.shapes for v in values):
        entry = entry(Call(node, graph, facts))
    return isinstance(entry, Rule) and (entry.linear is not None or bool(entry.macs))
