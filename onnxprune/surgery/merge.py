"""Laying over an original model what an edit changed: the difference between two exports, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxprune.graph.tensors import copy_but, map_tensors
from onnxprune.surgery.exchange import LISTS, is_empty_list, restore_empty_lists
from onnxprune.surgery.match import origins_of
from onnxprune.surgery.origin import StampMap, function_key, function_path, inner_path, token_of, visible_functions
from onnxprune.surgery.overlay import (
    defined_names,
    exported_initializers,
    opsets,
    patch,
    patch_lists,
    signature,
    value_infos,
)
from onnxprune.surgery.same import as_bytes, same_dense, same_tensor

_P = TypeVar("_P", bound=Message)


@dataclass(frozen=True)
class _Scope:
    """Where in both models a graph lies, and which names it sees from outside."""

    original: str
    edited: str
    names: frozenset[str]

    def inside(self, origin: int, at: int, attribute: str, names: Iterable[str]) -> _Scope:
        return _Scope(
            inner_path(self.original, origin, attribute),
            inner_path(self.edited, at, attribute),
            self.names.union(names),
        )


@dataclass(frozen=True)
class Merge:
    """``tensors``: the original's weights, by token; ``stamps``: which nodes the edited graph's nodes were."""

    tensors: list[onnx.TensorProto]
    stamps: StampMap

    def model(self, original: onnx.ModelProto, base: onnx.ModelProto, edited: onnx.ModelProto) -> onnx.ModelProto:
        """``original``, plus what changed from its unedited export ``base`` to ``edited``; a new model."""
        result = copy_but(original, {"graph", "functions", "opset_import"})
        patch(result, base, edited, ("ir_version",))
        for name in ("producer_name", "producer_version"):
            # A copied graph has lost them.
            if getattr(edited, name):
                patch(result, base, edited, (name,))
        result.opset_import.extend(opsets(original.opset_import, base.opset_import, edited.opset_import))
        result.functions.extend(self._functions(original, base, edited))
        result.graph.CopyFrom(self._graph(original.graph, base.graph, edited.graph, _Scope("", "", frozenset())))
        return result

    def _functions(
        self, original: onnx.ModelProto, base: onnx.ModelProto, edited: onnx.ModelProto
    ) -> Iterator[onnx.FunctionProto]:
        before = {function_key(one): one for one in base.functions}
        after = {function_key(one): one for one in edited.functions}
        visible = {function_key(one) for one in visible_functions(original)}
        for function in original.functions:
            key = function_key(function)
            if key not in visible or key not in before:
                yield function
            elif key in after:
                yield self._function(function, before[key], after[key])
        known = {function_key(one) for one in original.functions}
        for key, function in after.items():
            if key not in known:
                yield self._resolved(function)

    def _function(
        self, original: onnx.FunctionProto, base: onnx.FunctionProto, edited: onnx.FunctionProto
    ) -> onnx.FunctionProto:
        lists = ("input", "output", "attribute")
        result = copy_but(original, {"node", "attribute_proto", "opset_import"})
        patch(result, base, edited, ("doc_string",))
        patch_lists(result, base, edited, lists)
        result.opset_import.extend(opsets(original.opset_import, base.opset_import, edited.opset_import))
        path = function_path(original)
        scope = _Scope(path, path, frozenset())
        result.attribute_proto.extend(
            self._attributes(original.attribute_proto, base.attribute_proto, edited.attribute_proto, scope, 0, 0)
        )
        names = {*edited.input, *(name for node in edited.node for name in node.output)}
        result.node.extend(self._nodes(original.node, base.node, edited.node, scope, names))
        return result

    # -- graphs

    def _graph(
        self, original: onnx.GraphProto, base: onnx.GraphProto, edited: onnx.GraphProto, scope: _Scope
    ) -> onnx.GraphProto:
        parts = {"node", "initializer", "sparse_initializer", "input", "output", "value_info"}
        result = copy_but(original, parts | {"quantization_annotation"})
        patch(result, base, edited, ("name", "doc_string"))
        names = defined_names(edited) | defined_names(original)
        result.node.extend(self._nodes(original.node, base.node, edited.node, scope, names))
        changed = self._initializers(original, base, edited, result, scope)
        gone = defined_names(original) - defined_names(result) - {value.name for value in edited.input}
        result.input.extend(signature(original.input, base.input, edited.input, changed, gone))
        result.output.extend(signature(original.output, base.output, edited.output, changed, gone))
        result.value_info.extend(value_infos(original, base, edited, changed, gone, scope.names))
        result.quantization_annotation.extend(
            one for one in original.quantization_annotation if one.tensor_name not in gone
        )
        return result

    def _initializers(
        self,
        original: onnx.GraphProto,
        base: onnx.GraphProto,
        edited: onnx.GraphProto,
        result: onnx.GraphProto,
        scope: _Scope,
    ) -> dict[str, onnx.TensorProto]:
        """Fill in the initializers; returns those whose type or shape may have changed."""
        before, after = exported_initializers(base), exported_initializers(edited)
        changed: dict[str, onnx.TensorProto] = {}
        for tensor in original.initializer:
            now = after.get(tensor.name)
            if now is None:
                if tensor.name not in before:
                    result.initializer.append(tensor)
            elif self._unedited(tensor, before.get(tensor.name), now):
                result.initializer.append(tensor)
            else:
                changed[tensor.name] = self._tensor(now, tensor)
                result.initializer.append(changed[tensor.name])
        known = {tensor.name for tensor in original.initializer}
        sparse_before = {one.values.name for one in base.sparse_initializer}
        sparse_after = {one.values.name for one in edited.sparse_initializer}
        for sparse in original.sparse_initializer:
            name = sparse.values.name
            if name in after and not same_dense(sparse, self._tensor(after[name], None)):
                continue
            if name in sparse_before and name not in sparse_after and name not in after:
                continue
            result.sparse_initializer.append(sparse)
            known.add(name)
        for tensor in edited.initializer:
            # A round trip copies outer initializers into the sub-graphs that use them.
            if tensor.name not in known and tensor.name not in before and tensor.name not in scope.names:
                result.initializer.append(self._tensor(tensor, None))
        return changed

    # -- nodes

    def _nodes(
        self,
        original: Sequence[onnx.NodeProto],
        base: Sequence[onnx.NodeProto],
        edited: Sequence[onnx.NodeProto],
        scope: _Scope,
        names: set[str],
    ) -> Iterator[onnx.NodeProto]:
        origins = origins_of(original, edited, self.stamps.get(scope.edited, ()), scope.original)
        for at, (node, origin) in enumerate(zip(edited, origins, strict=True)):
            if origin is None:
                yield self._resolved(node)
                continue
            real, twin = original[origin], base[origin]
            result = copy_but(real, {"attribute"})
            patch(result, twin, node, ("name", "op_type", "domain"))
            patch_lists(result, twin, node, ("input", "output"))
            inner = _Scope(scope.original, scope.edited, scope.names.union(names))
            result.attribute.extend(self._attributes(real.attribute, twin.attribute, node.attribute, inner, origin, at))
            yield result

    def _attributes(
        self,
        original: Sequence[onnx.AttributeProto],
        base: Sequence[onnx.AttributeProto],
        edited: Sequence[onnx.AttributeProto],
        scope: _Scope,
        origin: int,
        at: int,
    ) -> Iterator[onnx.AttributeProto]:
        before = {one.name: one for one in base}
        after = {one.name: one for one in edited}
        for real in original:
            twin, now = before.get(real.name), after.get(real.name)
            if now is None:
                if twin is None:
                    yield real
            elif twin is None or now.type != twin.type:
                yield self._attribute(now, real)
            elif now.type == onnx.AttributeProto.GRAPH and not now.ref_attr_name and not twin.ref_attr_name:
                result = copy_but(real, {"g"})
                inside = scope.inside(origin, at, real.name, ())
                result.g.CopyFrom(self._graph(real.g, twin.g, now.g, inside))
                yield result
            elif now.type == onnx.AttributeProto.TENSOR and not now.ref_attr_name and not twin.ref_attr_name:
                same = now.t.name == twin.t.name and self._unedited(real.t, twin.t, now.t)
                yield real if same else self._attribute(now, real)
            else:
                yield real if as_bytes(now) == as_bytes(twin) else self._attribute(now, real)
        known = {one.name for one in original}
        for name, now in after.items():
            if name not in known:
                yield self._attribute(now, None)

    def _attribute(self, edited: onnx.AttributeProto, original: onnx.AttributeProto | None) -> onnx.AttributeProto:
        if original is not None and original.type == edited.type == onnx.AttributeProto.TENSOR:
            result = copy_but(edited, {"t"})
            result.t.CopyFrom(self._tensor(edited.t, original.t))
        else:
            result = self._resolved(edited)
        if original is not None:
            if is_empty_list(edited) and original.type in LISTS:
                result.type = original.type
            if original.HasField("doc_string"):
                result.doc_string = original.doc_string
        return result

    # -- tensors

    def _unedited(self, original: onnx.TensorProto, base: onnx.TensorProto | None, edited: onnx.TensorProto) -> bool:
        token = token_of(edited)
        if token is None:
            return same_tensor(original, edited)
        return self.tensors[token] is original or (base is not None and token_of(base) == token)

    def _tensor(self, edited: onnx.TensorProto, original: onnx.TensorProto | None) -> onnx.TensorProto:
        token = token_of(edited)
        result = onnx.TensorProto()
        result.CopyFrom(edited if token is None else self.tensors[token])
        if edited.HasField("name") and result.name != edited.name:
            result.name = edited.name
        if original is not None and token is None:
            if original.HasField("doc_string"):
                result.doc_string = original.doc_string
            del result.metadata_props[:]
            result.metadata_props.extend(original.metadata_props)
        return result

    def _resolved(self, part: _P) -> _P:
        """A copy of something new in the export, with the weights that it took from the original."""
        result: _P = map_tensors(part, lambda tensor: self._tensor(tensor, None))
        restore_empty_lists(result)
        return result
