"""What is put right in a model once it is read: names that onnxruntime refuses, calls that channels cannot enter."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import inliner

from onnxprune.graph.domain import with_short_domain
from onnxprune.graph.sequences import without_sequences
from onnxprune.graph.tensors import bodies_of, copied

#: Beyond this size a model cannot pass through onnx's own inliner, which serializes it.
_INLINER_LIMIT = (1 << 31) - (1 << 20)


def repaired(model: onnx.ModelProto, size: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """(``model``, or a repaired copy of it; what was done, one sentence each).

    The default domain is written as the empty string, its only form that all of onnx knows.  Local functions are
    written out where they are called, so that channels can be followed into them; a function of
    another opset than the model's stays, and locks what it touches.  Sequences that are taken apart where they are
    made become slices.  Nodes that have an earlier node's name get a
    number behind it.  ``size``: bytes of the model.  Cost: nothing where nothing is amiss, else copies of the model.
    """
    done: list[str] = []
    model, renamed = with_short_domain(model)
    if renamed:
        done.append("the domain 'ai.onnx' written in its short form, as onnx.checker asks for")
    if model.functions and size < _INLINER_LIMIT:
        before = len(model.functions)
        model = inliner.inline_local_functions(model)
        gone = before - len(model.functions)
        if gone:
            done.append(f"{_counted(gone, 'local function')} written out at the calls, to prune inside")
    model, parts = without_sequences(model)
    if parts:
        done.append(f"{_counted(parts, 'member')} of sequences written as slices, to follow channels through them")
    repeated = sum(len(late) for late, _ in _repeats(model.graph))
    if repeated:
        model = _with_unique_names(model)
        done.append(f"{_counted(repeated, 'node')} numbered for having another one's name, which onnxruntime refuses")
    return model, tuple(done)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _with_unique_names(model: onnx.ModelProto) -> onnx.ModelProto:
    found = copied(model)
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
            for body in bodies_of(attribute):
                yield from _repeats(body)
    if late:
        yield late, seen
