"""The two names of ONNX's default domain.  onnx.checker and the reference implementation know only the short one."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnxprune.graph.tensors import bodies_of, copied

LONG, SHORT = "ai.onnx", ""


def with_short_domain(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """(``model``, or a copy with "" in place of "ai.onnx"; whether it is a copy).

    If a model imports both names, the copy imports the newer version of the two.
    """
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    imports = [model.opset_import, *(function.opset_import for function in model.functions)]
    if all(entry.domain != LONG for entries in imports for entry in entries) and not any(map(_has_long, graphs)):
        return model, False
    short = copied(model)
    for owner in (short, *short.functions):
        versions = {entry.domain: entry.version for entry in owner.opset_import}
        newest = max(versions.pop(LONG, 0), versions.pop(SHORT, 0))
        del owner.opset_import[:]
        if newest:
            versions = {SHORT: newest, **versions}
        owner.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    _shorten(short.graph.node)
    for function in short.functions:
        _shorten(function.node)
    return short, True


def _has_long(nodes: Iterable[onnx.NodeProto]) -> bool:
    return any(
        node.domain == LONG or any(_has_long(body.node) for a in node.attribute for body in bodies_of(a))
        for node in nodes
    )


def _shorten(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.domain == LONG:
            node.domain = SHORT
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                _shorten(body.node)
