"""The parts of a graph's frame: fields, opset imports, inputs, outputs and value_info, original plus difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import copy_but
from onnxprune.surgery.same import as_bytes


def patch(result: Message, base: Message, edited: Message, names: Iterable[str]) -> None:
    """Take single fields from ``edited`` where it differs from ``base``."""
    for name in names:
        if getattr(base, name) != getattr(edited, name):
            setattr(result, name, getattr(edited, name))


def patch_lists(result: Message, base: Message, edited: Message, names: Iterable[str]) -> None:
    """Likewise for repeated fields, each as a whole."""
    for name in names:
        if list(getattr(base, name)) != list(getattr(edited, name)):
            getattr(result, name)[:] = getattr(edited, name)


def opsets(
    original: Sequence[onnx.OperatorSetIdProto],
    base: Sequence[onnx.OperatorSetIdProto],
    edited: Sequence[onnx.OperatorSetIdProto],
) -> Iterator[onnx.OperatorSetIdProto]:
    """The original's opset imports, with versions changed, entries dropped and added as the edit did."""
    before = {one.domain: one.version for one in base}
    after = {one.domain: one.version for one in edited}
    for one in original:
        if one.domain in after and after[one.domain] != before.get(one.domain, one.version):
            yield onnx.helper.make_opsetid(one.domain, after[one.domain])
        elif one.domain in after or one.domain not in before:
            yield one
    known = {one.domain for one in original} | before.keys()
    for one in edited:
        if one.domain not in known:
            yield one


def defined_names(graph: onnx.GraphProto) -> set[str]:
    """Every value that this graph itself defines, its bodies' left out."""
    names = {value.name for value in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    names.update(name for node in graph.node for name in node.output)
    return names


def exported_initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """By name, the sub-graphs' included: that is where a constant goes which only sub-graphs use."""
    found: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found.update(exported_initializers(attribute.g))
    found.update((tensor.name, tensor) for tensor in graph.initializer)
    return found


def _numbered(values: Iterable[onnx.ValueInfoProto]) -> dict[tuple[str, int], onnx.ValueInfoProto]:
    # A graph may list the same output twice.
    seen: defaultdict[str, int] = defaultdict(int)
    found = {}
    for value in values:
        found[value.name, seen[value.name]] = value
        seen[value.name] += 1
    return found


def signature(
    original: Iterable[onnx.ValueInfoProto],
    base: Iterable[onnx.ValueInfoProto],
    edited: Iterable[onnx.ValueInfoProto],
    changed: dict[str, onnx.TensorProto],
    gone: set[str],
) -> list[onnx.ValueInfoProto]:
    """Inputs or outputs in the edited order; what the round trip hid stays behind what it followed."""
    real, before, after = _numbered(original), _numbered(base), _numbered(edited)
    order = list(after)
    if order == list(before):
        order = [key for key in real if key in after or (key not in before and key[0] not in gone)]
    else:
        previous: tuple[str, int] | None = None
        for key in real:
            if key not in before and key not in after and key[0] not in gone:
                order.insert(order.index(previous) + 1 if previous in order else 0, key)
            previous = key
    return [_value(real.get(key), before.get(key), after.get(key), changed) for key in order]


def value_infos(
    original: onnx.GraphProto,
    base: onnx.GraphProto,
    edited: onnx.GraphProto,
    changed: dict[str, onnx.TensorProto],
    gone: set[str],
    outer: frozenset[str],
) -> Iterator[onnx.ValueInfoProto]:
    """The original's value_info, stale entries included, with what the edit changed, dropped or added."""
    before = {value.name: value for value in base.value_info}
    after = {value.name: value for value in edited.value_info}
    known = set()
    for value in original.value_info:
        known.add(value.name)
        dropped = value.name in before and value.name not in after
        if not dropped and value.name not in gone:
            yield _value(value, before.get(value.name), after.get(value.name), changed)
    for name, value in after.items():
        if name in known or name in outer:
            continue
        if name not in before or as_bytes(before[name]) != as_bytes(value):
            yield value


def _value(
    original: onnx.ValueInfoProto | None,
    base: onnx.ValueInfoProto | None,
    edited: onnx.ValueInfoProto | None,
    changed: dict[str, onnx.TensorProto],
) -> onnx.ValueInfoProto:
    if original is None:
        if edited is None:
            raise ModelError("a value is in no version of the model; report this with the model attached")
        return edited
    tensor = changed.get(original.name)
    if edited is None and tensor is not None:
        edited = onnx.helper.make_tensor_value_info(original.name, tensor.data_type, list(tensor.dims))
    if edited is None or (base is not None and as_bytes(base) == as_bytes(edited)):
        return original
    result = copy_but(original, set())
    if original.type.WhichOneof("value") != "tensor_type" or edited.type.WhichOneof("value") != "tensor_type":
        if edited.HasField("type"):
            result.type.CopyFrom(edited.type)
        return result
    old, new = result.type.tensor_type, edited.type.tensor_type
    if base is None or base.type.tensor_type.elem_type != new.elem_type:
        old.elem_type = new.elem_type
    if not new.HasField("shape"):
        old.ClearField("shape")
    elif not old.HasField("shape") or len(old.shape.dim) != len(new.shape.dim):
        old.shape.CopyFrom(new.shape)
    else:
        for mine, now in zip(old.shape.dim, new.shape.dim, strict=True):
            _set_dimension(mine, now)
    return result


def _set_dimension(mine: Any, now: Any) -> None:
    # The denotation (what the axis means) survives a new length.
    kind = now.WhichOneof("value")
    if kind is None:
        mine.ClearField("dim_value")
        mine.ClearField("dim_param")
    elif mine.WhichOneof("value") != kind or getattr(mine, kind) != getattr(now, kind):
        setattr(mine, kind, getattr(now, kind))
