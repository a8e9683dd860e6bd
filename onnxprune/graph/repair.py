"""Repairs of a model after loading: names that onnxruntime refuses, and calls that channels cannot enter."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import inliner

from onnxprune.graph.domain import with_short_domain
from onnxprune.graph.sequences import without_sequences
from onnxprune.graph.tensors import bodies_of, copied

#: Maximum bytes of a model for onnx's own inliner, which serializes it.
_INLINER_LIMIT = (1 << 31) - (1 << 20)


def repaired(model: onnx.ModelProto, size: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """(``model``, or a repaired copy; what was done, one sentence each).

    Writes the default domain as the empty string, the only form that all of onnx knows.  Inlines local functions, so
    that coupling can follow channels into them; a function of another opset than the model's stays and locks the
    channels it touches.  Turns members of sequences into slices.  Appends a number to a node name that an earlier node
    has.  ``size``: bytes of the model.  Cost: nothing for a sound model, otherwise copies of the model.
    """
    done: list[str] = []
    model, renamed = with_short_domain(model)
    if renamed:
        done.append("wrote the domain 'ai.onnx' in the short form that onnx.checker requires")
    if model.functions and size < _INLINER_LIMIT:
        before = len(model.functions)
        model = inliner.inline_local_functions(model)
        gone = before - len(model.functions)
        if gone:
            done.append(f"inlined {_counted(gone, 'local function')}, to prune inside")
    model, parts = without_sequences(model)
    if parts:
        done.append(f"wrote {_counted(parts, 'member')} of sequences as slices, to follow channels through them")
    repeated = sum(len(late) for late, _ in _repeats(model.graph))
    if repeated:
        model = _with_unique_names(model)
        done.append(f"renamed {_counted(repeated, 'node')} with a duplicate name, which onnxruntime refuses")
    return model, tuple(done)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _with_unique_names(model: onnx.ModelProto) -> onnx.ModelProto:
    renamed = copied(model)
    for late, taken in list(_repeats(renamed.graph)):
        for node in late:
            count = 2
            while f"{node.name}_{count}" in taken:
                count += 1
            node.name = f"{node.name}_{count}"
            taken.add(node.name)
    return renamed


def _repeats(graph: onnx.GraphProto) -> Iterator[tuple[list[onnx.NodeProto], set[str]]]:
    """Per graph, control-flow bodies included: (nodes with the name of an earlier node, all names in the graph)."""
    names: set[str] = set()
    late: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in names:
            late.append(node)
        if node.name:
            names.add(node.name)
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                yield from _repeats(body)
    if late:
        yield late, names
