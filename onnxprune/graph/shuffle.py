"""Channel shuffles: replace Reshape, Transpose, Reshape that permute one axis by one Gather.

A shuffle ties every channel to one channel of each other block.  A network of shuffles ties most channels together.  A
Gather with constant indices computes the same result, bit for bit, and lets every channel leave alone: a cut renumbers
its indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.graph.edit import forget_notes
from onnxprune.graph.facts import Facts
from onnxprune.graph.names import unused, value_names
from onnxprune.graph.tensors import copied
from onnxprune.graph.view import Graph, Node


@dataclass(frozen=True, eq=False)
class Shuffle:
    """``nodes`` (Reshape, Transpose, Reshape) equal a Gather of ``index`` along ``axis`` of the first one's input."""

    nodes: tuple[Node, Node, Node]
    axis: int
    index: np.ndarray


def shuffles(graph: Graph, facts: Facts) -> Iterator[Shuffle]:
    """Every shuffle of the main graph that holds for all input sizes and whose inner values nothing else reads."""
    outputs = set(graph.outputs)
    for last in graph.nodes:
        middle = _maker(graph, last, "Reshape", "Transpose", outputs)
        first = None if middle is None else _maker(graph, middle, "Transpose", "Reshape", outputs)
        if middle is None or first is None or last.scope:
            continue
        permuted = _permuted(facts, first, middle, last)
        if permuted is not None:
            yield Shuffle((first, middle, last), *permuted)


def _maker(graph: Graph, node: Node, op: str, wanted: str, outputs: set[str]) -> Node | None:
    """The producer of the first input of ``node`` (an ``op``), if it is a ``wanted`` without other readers."""
    value = node.inputs[0] if node.op == op and node.domain == "" and node.inputs else None
    if value is None or value in outputs or len(graph.consumers[value]) > 1 or value not in graph.producer:
        return None
    made = graph.nodes[graph.producer[value]]
    return made if made.op == wanted and made.domain == "" and made.scope == node.scope else None


def _permuted(facts: Facts, first: Node, middle: Node, last: Node) -> tuple[int, np.ndarray] | None:
    """(axis, index) of the Gather that equals the three nodes; ``None`` if they are not a shuffle of one axis."""
    source, split, out = first.inputs[0] or "", first.outputs[0] or "", last.outputs[0] or ""
    if any(v not in facts.shapes for v in (source, split, out)):
        return None
    before, parts, after = facts.shapes[source], facts.shapes[split], facts.shapes[out]
    extra = len(parts) - len(before)
    if (
        extra < 1
        or len(after) != len(before)
        or not all(facts.always_equal(source, k, out, k) for k in range(len(after)))
    ):
        return None
    order = middle.integers("perm") or tuple(reversed(range(len(parts))))
    for axis, size in enumerate(before):
        inner = range(axis, axis + extra + 1)
        rest = [k for k in range(len(before)) if k != axis]
        if (
            math.prod(parts[k] for k in inner) != size
            or facts.is_dynamic(source, axis)
            or any(facts.is_dynamic(split, k) for k in inner)
            or not all(facts.always_equal(source, k, split, k if k < axis else k + extra) for k in rest)
            or any(order[k] != k for k in range(len(parts)) if k not in inner)
        ):
            continue
        index = np.arange(size).reshape(parts[axis : axis + extra + 1])
        index = index.transpose([order[k] - axis for k in inner]).ravel()
        return None if np.array_equal(index, np.arange(size)) else (axis, index)
    return None


def written_as_gathers(graph: Graph, facts: Facts) -> onnx.ModelProto | None:
    """A copy of the model with a Gather in place of every shuffle; ``None`` if there is no shuffle.

    The Gather has the name and the output of the shuffle's last Reshape.  Cost: one copy of the model.
    """
    every = list(shuffles(graph, facts))
    if not every:
        return None
    model = copied(graph.model)
    taken = value_names(graph)
    gone: set[int] = set()
    for shuffle in every:
        first, middle, last = shuffle.nodes
        name = unused(f"{last.outputs[0]}_order", taken)
        model.graph.initializer.append(numpy_helper.from_array(shuffle.index.astype(np.int64), name))
        node = oh.make_node("Gather", [first.proto.input[0], name], list(last.proto.output), axis=shuffle.axis)
        node.name = last.proto.name
        model.graph.node[last.position].CopyFrom(node)
        gone.update((first.position, middle.position))
    for position in sorted(gone, reverse=True):
        del model.graph.node[position]
    lost = {out for shuffle in every for node in shuffle.nodes[:2] for out in node.proto.output}
    forget_notes(model.graph, lost)
    return model
