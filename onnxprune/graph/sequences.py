"""Replace sequences by slices.  Exporters write ``chunk`` and ``unbind`` with sequences.

A member at a constant index is a slice of the split tensor, or one of the tensors put into the sequence.  Coupling can
follow channels through a slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.graph.edit import forget_notes
from onnxprune.graph.tensors import bodies_of, copied

Array = np.ndarray


def without_sequences(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """(``model``, or a copy with tensor operators in place of sequences; how many nodes were replaced).

    Sequences with a member index that only a run determines stay.  Cost: a copy of the model if a node is replaced.
    """
    if not any(_replacements(graph, constants) for graph, constants in _graphs(model.graph, {})):
        return model, 0
    rewritten = copied(model)
    count = 0
    for graph, constants in list(_graphs(rewritten.graph, {})):
        replaced = _replacements(graph, constants)
        for position, (node, tensors) in replaced.items():
            graph.node[position].CopyFrom(node)
            graph.initializer.extend(tensors)
        if replaced:
            _drop_unread(graph)
        count += len(replaced)
    return rewritten, count


def _graphs(
    graph: onnx.GraphProto, outer: Mapping[str, Array]
) -> Iterator[tuple[onnx.GraphProto, Mapping[str, Array]]]:
    """Every graph, bodies included, with the small integer constants visible in it."""
    known = dict(outer)
    for tensor in graph.initializer:
        _learn(known, tensor.name, tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                _learn(known, node.output[0], attribute.t)
            for body in bodies_of(attribute):
                yield from _graphs(body, known)
    yield graph, known


def _learn(known: dict[str, Array], name: str, tensor: onnx.TensorProto) -> None:
    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    if tensor.data_type in integers and len(tensor.dims) <= 1 and sum(tensor.dims) <= 1024:
        known[name] = numpy_helper.to_array(tensor)


def _replacements(
    graph: onnx.GraphProto, constants: Mapping[str, Array]
) -> dict[int, tuple[onnx.NodeProto, list[onnx.TensorProto]]]:
    """Position of a node that reads a sequence → (its replacement, constants of the replacement)."""
    makers = {out: node for node in graph.node for out in node.output}
    replacements: dict[int, tuple[onnx.NodeProto, list[onnx.TensorProto]]] = {}
    for position, node in enumerate(graph.node):
        maker = makers.get(node.input[0]) if node.input else None
        if maker is None or node.domain or maker.domain:
            continue
        replacement = None
        if node.op_type == "SequenceAt" and node.input[1] in constants:
            place = int(constants[node.input[1]].reshape(()))
            if maker.op_type == "SplitToSequence":
                replacement = _part(node, maker, place, constants)
            elif maker.op_type == "SequenceConstruct" and -len(maker.input) <= place < len(maker.input):
                replacement = _instead(node, "Identity", [maker.input[place]]), []
        elif node.op_type == "ConcatFromSequence" and maker.op_type == "SequenceConstruct":
            if not _integer(node, "new_axis", 0):
                replacement = _instead(node, "Concat", list(maker.input), _integer(node, "axis", 0)), []
        if replacement is not None:
            replacements[position] = replacement
    return replacements


def _part(
    node: onnx.NodeProto, split: onnx.NodeProto, place: int, constants: Mapping[str, Array]
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]] | None:
    """Member ``place`` of a split, as a Slice, or as a Gather if the split drops the axis."""
    # The output's name is unique.  Followed by a mark that exporters never write, it stays unique.
    axis, stem = _integer(split, "axis", 0), node.output[0]
    if len(split.input) < 2 or not split.input[1]:
        if not _integer(split, "keepdims", 1):
            index = numpy_helper.from_array(np.asarray(place, np.int64), f"{stem}::place")
            return _instead(node, "Gather", [split.input[0], index.name], axis), [index]
        sizes: Array = np.asarray(1)
    elif split.input[1] not in constants:
        return None
    else:
        sizes = constants[split.input[1]]
    if sizes.ndim == 0:
        if place < 0:
            return None
        start, end = place * int(sizes), (place + 1) * int(sizes)
    else:
        if not -len(sizes) <= place < len(sizes):
            return None
        place %= len(sizes)
        start, end = int(sizes[:place].sum()), int(sizes[: place + 1].sum())
    bounds = {"start": start, "end": end, "axis": axis}
    tensors = [numpy_helper.from_array(np.asarray([v], np.int64), f"{stem}::{name}") for name, v in bounds.items()]
    return _instead(node, "Slice", [split.input[0], *(t.name for t in tensors)]), tensors


def _instead(node: onnx.NodeProto, op: str, inputs: list[str], axis: int | None = None) -> onnx.NodeProto:
    made = oh.make_node(op, inputs, list(node.output), name=node.name)
    if axis is not None:
        made.attribute.append(oh.make_attribute("axis", axis))
    return made


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes that make a sequence which nothing reads any more."""
    makers = ("SplitToSequence", "SequenceConstruct")
    read = set(_read(graph)) | {output.name for output in graph.output}
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if node.op_type in makers and not node.domain and read.isdisjoint(node.output):
            lost = set(node.output)
            del graph.node[position]
            forget_notes(graph, lost)


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                yield from _read(body)
                yield from (output.name for output in body.output)
