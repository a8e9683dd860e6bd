"""Editing a model with onnx-graphsurgeon without losing what its import and export drop or change.

Three versions of every part of a model are compared: the original, the original after an unedited round trip
through onnx-graphsurgeon, and the edited export. Where the last two agree nothing was edited, and the
original's own bytes are taken; where they differ, only the difference is laid over the original.

Measured on onnx-graphsurgeon 0.6.1, a round trip loses: doc_string, metadata_props, overload and device
configurations of nodes; model domain, version, doc_string, metadata, training_info and configuration; graph
metadata and quantization_annotation; inputs that are also initializers, unused initializers, stale
value_info, value_info of initializers; denotations; overload, value_info and metadata of functions;
attributes of tensor list, graph list, type and sparse kinds. It raises on empty list attributes, bytes
that are no UTF-8, optional, map and opaque types. It copies outer initializers into sub-graphs, and once
a weight has been read it writes int4 unpacked and strings as pointers. All of this is hidden from it, or
put right, here.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxprune.errors import ModelError
from onnxprune.graph.load import map_tensors

_TOKEN = "onnxprune.origin"
_STAMP = "_onnxprune_origin"
# Stands for an empty list while onnx-graphsurgeon exports, since it cannot tell an empty list's type.
_EMPTY_LIST = "\0onnxprune.empty"
_Attr = onnx.AttributeProto
_LISTS = {_Attr.FLOATS: "floats", _Attr.INTS: "ints", _Attr.STRINGS: "strings"}
_PLAIN = {_Attr.FLOAT, _Attr.INT, _Attr.STRING, _Attr.TENSOR, _Attr.GRAPH, *_LISTS}
_P = TypeVar("_P", bound=Message)


def to_surgeon(model: onnx.ModelProto) -> gs.Graph:
    """Import a model for editing with onnx-graphsurgeon; get the result with `from_surgeon(graph, model)`.

    The model is neither changed nor copied: constants read their values from it when asked, in their own
    dtype (ml_dtypes for bfloat16, float8, 4 and 2 bits; object arrays for strings). Hidden from the
    graph, and back after `from_surgeon`: attributes that onnx-graphsurgeon has no kind for, sparse
    initializers (seen as variables without producer), functions that differ in `overload` only. Do not
    export the graph otherwise: its constants are placeholders. Raises ModelError if onnx-graphsurgeon
    still cannot import the model.
    """
    shadow, tensors = _shadow(model)
    graph = _import(shadow)
    _bind(graph, shadow.graph, model.graph, tensors, "")
    for function, twin, source in zip(graph.functions, shadow.functions, _visible_functions(model), strict=True):
        _bind(function, twin, source, tensors, _function_path(source))
    return graph


def from_surgeon(graph: gs.Graph, original: onnx.ModelProto) -> onnx.ModelProto:
    """The model that an edited `to_surgeon(original)` stands for: a new one, `original` plus edits.

    Whatever was not edited keeps the original's bytes. Nodes are recognised by a stamp, whatever was
    renamed or moved; copies of a graph by their outputs. The graph stays as it is and can be edited on.
    Cost: one copy of the weights. Raises ModelError if onnx-graphsurgeon cannot export the graph.
    """
    base = _export(to_surgeon(original))
    return _Merge(_tensors(original), _stamps(graph)).model(original, base, _export(graph))


def carry_over(original: onnx.ModelProto, exported: onnx.ModelProto) -> onnx.ModelProto:
    """`original` plus the edits that `exported`, an edited gs.export_onnx(gs.import_onnx(original)), shows.

    A new ModelProto; where nothing was edited it has the original's bytes. Nodes are recognised by their
    outputs, then by name. Raises ModelError if onnx-graphsurgeon cannot import the original: use the
    pair `to_surgeon` / `from_surgeon`, which can.
    """
    numbers = count()
    stubbed = map_tensors(original, lambda tensor: _stub(tensor, next(numbers)))
    return _Merge(_tensors(original), {}).model(original, _export(_import(stubbed)), exported)


# ---- hiding from onnx-graphsurgeon what it cannot take -------------------------------------------


def _shadow(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """The model without weights and without what onnx-graphsurgeon fails on; and its weights, by token."""
    tensors: list[onnx.TensorProto] = []

    def stub(tensor: onnx.TensorProto) -> onnx.TensorProto:
        tensors.append(tensor)
        return _stub(tensor, len(tensors) - 1)

    shadow = map_tensors(model, stub)
    _hide_in_graph(shadow.graph)
    del shadow.training_info[:]
    kept = _visible_functions(shadow)
    for function in kept:
        _hide_in_nodes(function.node)
        _keep(function.attribute_proto, lambda one: _attribute_fits(one) and one.type != _Attr.GRAPH)
    rest = [onnx.FunctionProto.FromString(one.SerializeToString()) for one in kept]
    del shadow.functions[:]
    shadow.functions.extend(rest)
    return shadow, tensors


def _visible_functions(model: onnx.ModelProto) -> list[onnx.FunctionProto]:
    # onnx-graphsurgeon tells functions apart by domain and name only.
    seen: defaultdict[Hashable, int] = defaultdict(int)
    for function in model.functions:
        seen[_function_key(function)] += 1
    return [function for function in model.functions if seen[_function_key(function)] == 1]


def _function_key(function: onnx.FunctionProto) -> tuple[str, str]:
    return function.domain, function.name


def _function_path(function: onnx.FunctionProto) -> str:
    return f"{function.domain}::{function.name}/"


def _inner_path(path: str, at: int, attribute: str) -> str:
    return f"{path}{at}.{attribute}/"


def _hide_in_graph(graph: onnx.GraphProto) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.WhichOneof("value") != "tensor_type" or not _known_dtype(value.type.tensor_type.elem_type):
            value.ClearField("type")
    known = {value.name for value in [*graph.input, *graph.output, *graph.value_info]}
    for sparse in graph.sparse_initializer:
        if sparse.values.name not in known:
            graph.value_info.append(
                onnx.helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, list(sparse.dims))
            )
    del graph.sparse_initializer[:]
    _hide_in_nodes(graph.node)


def _hide_in_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _keep(node.attribute, _attribute_fits)
        for attribute in node.attribute:
            if attribute.type == _Attr.GRAPH and not attribute.ref_attr_name:
                _hide_in_graph(attribute.g)
            elif not _decodes(attribute):
                # The real bytes come back in _bind; onnx-graphsurgeon decodes while it imports.
                attribute.s = b""
                attribute.strings[:] = [b""]


def _keep(items: Any, fits: Callable[[Any], bool]) -> None:
    for at in reversed(range(len(items))):
        if not fits(items[at]):
            del items[at]


def _attribute_fits(attribute: onnx.AttributeProto) -> bool:
    return attribute.type in _PLAIN


def _decodes(attribute: onnx.AttributeProto) -> bool:
    return _decodes_all([attribute.s, *attribute.strings])


def _decodes_all(texts: Iterable[bytes]) -> bool:
    try:
        for text in texts:
            text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _known_dtype(data_type: int) -> bool:
    return data_type != onnx.TensorProto.UNDEFINED and data_type in onnx.helper.get_all_tensor_dtypes()


def _stub(tensor: onnx.TensorProto, token: int) -> onnx.TensorProto:
    # onnx-graphsurgeon asks for the size of each element, which an unknown type has not.
    data_type = tensor.data_type if _known_dtype(tensor.data_type) else onnx.TensorProto.UINT8
    # Marked external with an empty location, so that a stub that escapes fails to load instead of being
    # zeros.
    stub = onnx.TensorProto(dims=tensor.dims, data_type=data_type, data_location=onnx.TensorProto.EXTERNAL)
    if tensor.HasField("name"):
        stub.name = tensor.name
    stub.external_data.add(key=_TOKEN, value=str(token))
    return stub


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The model's tensors, each at the index that its stub's token says."""
    found: list[onnx.TensorProto] = []

    def collect(tensor: onnx.TensorProto) -> onnx.TensorProto:
        found.append(tensor)
        return _stub(tensor, 0)

    map_tensors(model, collect)
    return found


def _token(tensor: onnx.TensorProto) -> int | None:
    return next((int(entry.value) for entry in tensor.external_data if entry.key == _TOKEN), None)


class _Origin(LazyValues):  # type: ignore[misc]
    """Values that lie in the original model, and leave as a stub when nobody has read them."""

    def __init__(self, source: onnx.TensorProto, token: int) -> None:
        self.source = source
        self.token = token
        self.shape = list(source.dims)
        self.dtype = (
            onnx.helper.tensor_dtype_to_np_dtype(source.data_type)
            if _known_dtype(source.data_type)
            else source.data_type
        )
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * getattr(self.dtype, "itemsize", 1)

    @property
    def tensor(self) -> onnx.TensorProto:
        # A new one each time: the exporter writes the constant's name into it, and copies may share
        # these values.
        return _stub(self.source, self.token)

    def load(self) -> np.ndarray[Any, Any]:
        if self.source.data_type == onnx.TensorProto.STRING and not _decodes_all(self.source.string_data):
            return np.array([*self.source.string_data, None], dtype=object)[:-1].reshape(self.shape)
        return np.array(onnx.numpy_helper.to_array(self.source))


class _Sealed(LazyValues):  # type: ignore[misc]
    """Values in memory, converted by onnx, which unlike the exporter packs small types and writes strings."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype
        self.nbytes = values.nbytes

    @property
    def tensor(self) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(self.values)

    def load(self) -> np.ndarray[Any, Any]:
        return self.values


def _bind(
    graph: gs.Graph,
    shadow: onnx.GraphProto | onnx.FunctionProto,
    source: onnx.GraphProto | onnx.FunctionProto,
    tensors: list[onnx.TensorProto],
    path: str,
) -> None:
    """Stamp the nodes of a fresh import, tie constants to the original, give back what import cannot read."""
    for at, (node, twin, real) in enumerate(zip(graph.nodes, shadow.node, source.node, strict=True)):
        setattr(node, _STAMP, (path, at))
        for attribute in real.attribute:
            value = node.attrs.get(attribute.name)
            if attribute.ref_attr_name or value is None:
                continue
            if not _decodes(attribute):
                node.attrs[attribute.name] = attribute.s if attribute.type == _Attr.STRING else list(attribute.strings)
            elif isinstance(value, gs.Graph):
                inner = next(one for one in twin.attribute if one.name == attribute.name)
                _bind(value, inner.g, attribute.g, tensors, _inner_path(path, at, attribute.name))
            else:
                _tie(value, tensors)
        for tensor in [*node.inputs, *node.outputs]:
            _tie(tensor, tensors)
    for tensor in [*graph.inputs, *graph.outputs]:
        _tie(tensor, tensors)
    if isinstance(source, onnx.GraphProto):
        kinds = {
            value.name: value.type.WhichOneof("value") for value in [*source.input, *source.output, *source.value_info]
        }
        for name, tensor in graph.tensors().items():
            kind = kinds.get(name)
            if isinstance(tensor, gs.Variable) and kind not in (None, "tensor_type"):
                tensor.type = kind


def _tie(value: object, tensors: list[onnx.TensorProto]) -> None:
    if isinstance(value, gs.Constant) and type(value._values) is LazyValues:
        token = _token(value._values.tensor)
        if token is not None:
            value._values = _Origin(tensors[token], token)
            value.data_location = None


# ---- in and out of onnx-graphsurgeon -------------------------------------------------------------


@contextmanager
def _quietly(doing: str) -> Iterator[None]:
    # Its logger prints to standard output, which belongs to results.
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"onnx-graphsurgeon {gs.__version__} cannot {doing} the model ({reason}); "
            "simplify the model, or report it with the model attached"
        ) from error
    finally:
        G_LOGGER.severity = before


def _import(model: onnx.ModelProto) -> gs.Graph:
    with _quietly("import"):
        return gs.import_onnx(model)


def _export(graph: gs.Graph) -> onnx.ModelProto:
    undo: list[Callable[[], None]] = []
    try:
        for part in [graph, *graph.functions]:
            _seal(part, undo)
        # The exporter adds the domains of new nodes to the list that the graph was imported with.
        domains = graph.import_domains
        if domains is not None:
            graph.import_domains = list(domains)
            undo.append(partial(setattr, graph, "import_domains", domains))
        with _quietly("export"):
            return gs.export_onnx(graph, do_type_check=False)
    finally:
        for step in reversed(undo):
            step()


def _seal(graph: gs.Graph, undo: list[Callable[[], None]]) -> None:
    constants: dict[int, gs.Constant] = {}

    def note(value: Any) -> None:
        # Another type declared for export asks the exporter for a conversion, which is its own business.
        fits = isinstance(value, gs.Constant) and isinstance(value._values, np.ndarray)
        if fits and value._export_dtype in (None, value._values.dtype):
            constants[id(value)] = value

    def note_attributes(attributes: dict[str, Any]) -> None:
        for name, value in list(attributes.items()):
            note(value)
            if isinstance(value, gs.Graph):
                _seal(value, undo)
            elif isinstance(value, (list, tuple)) and not value:
                attributes[name] = _EMPTY_LIST
                undo.append(partial(attributes.__setitem__, name, value))

    for tensor in [*graph.inputs, *graph.outputs]:
        note(tensor)
    for node in graph.nodes:
        for tensor in [*node.inputs, *node.outputs]:
            note(tensor)
        note_attributes(node.attrs)
    if isinstance(graph, gs.Function):
        note_attributes(graph.attrs)
    for constant in constants.values():
        undo.append(partial(setattr, constant, "_values", constant._values))
        constant._values = _Sealed(constant._values)


# ---- merging -------------------------------------------------------------------------------------

# Per graph of the export: of each node, the path of its graph in the original and its index there.
_StampMap = dict[str, tuple[object, ...]]


def _stamps(graph: gs.Graph) -> _StampMap:
    found: _StampMap = {}

    def walk(part: gs.Graph, path: str) -> None:
        found[path] = tuple(getattr(node, _STAMP, None) for node in part.nodes)
        for at, node in enumerate(part.nodes):
            for name, value in node.attrs.items():
                if isinstance(value, gs.Graph):
                    walk(value, _inner_path(path, at, name))

    walk(graph, "")
    for function in graph.functions:
        walk(function, f"{function.domain or ''}::{function.name}/")
    return found


@dataclass(frozen=True)
class _Scope:
    """Where in both models a graph lies, and which names it sees from outside."""

    original: str
    edited: str
    names: frozenset[str]

    def inside(self, origin: int, at: int, attribute: str, names: Iterable[str]) -> _Scope:
        return _Scope(
            _inner_path(self.original, origin, attribute),
            _inner_path(self.edited, at, attribute),
            self.names.union(names),
        )


@dataclass(frozen=True)
class _Merge:
    tensors: list[onnx.TensorProto]
    stamps: _StampMap

    def model(self, original: onnx.ModelProto, base: onnx.ModelProto, edited: onnx.ModelProto) -> onnx.ModelProto:
        result = _copy_but(original, {"graph", "functions", "opset_import"})
        _patch(result, base, edited, ("ir_version",))
        for name in ("producer_name", "producer_version"):
            # A copied graph has lost them.
            if getattr(edited, name):
                _patch(result, base, edited, (name,))
        result.opset_import.extend(_opsets(original.opset_import, base.opset_import, edited.opset_import))
        result.functions.extend(self._functions(original, base, edited))
        result.graph.CopyFrom(self._graph(original.graph, base.graph, edited.graph, _Scope("", "", frozenset())))
        return result

    def _functions(
        self, original: onnx.ModelProto, base: onnx.ModelProto, edited: onnx.ModelProto
    ) -> Iterator[onnx.FunctionProto]:
        before = {_function_key(one): one for one in base.functions}
        after = {_function_key(one): one for one in edited.functions}
        visible = {_function_key(one) for one in _visible_functions(original)}
        for function in original.functions:
            key = _function_key(function)
            if key not in visible or key not in before:
                yield function
            elif key in after:
                yield self._function(function, before[key], after[key])
        known = {_function_key(one) for one in original.functions}
        for key, function in after.items():
            if key not in known:
                yield self._resolved(function)

    def _function(
        self, original: onnx.FunctionProto, base: onnx.FunctionProto, edited: onnx.FunctionProto
    ) -> onnx.FunctionProto:
        lists = ("input", "output", "attribute")
        result = _copy_but(original, {"node", "attribute_proto", "opset_import"})
        _patch(result, base, edited, ("doc_string",))
        _patch_lists(result, base, edited, lists)
        result.opset_import.extend(_opsets(original.opset_import, base.opset_import, edited.opset_import))
        path = _function_path(original)
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
        result = _copy_but(original, parts | {"quantization_annotation"})
        _patch(result, base, edited, ("name", "doc_string"))
        names = _defined(edited) | _defined(original)
        result.node.extend(self._nodes(original.node, base.node, edited.node, scope, names))
        changed = self._initializers(original, base, edited, result, scope)
        gone = _defined(original) - _defined(result) - {value.name for value in edited.input}
        result.input.extend(_signature(original.input, base.input, edited.input, changed, gone))
        result.output.extend(_signature(original.output, base.output, edited.output, changed, gone))
        result.value_info.extend(_value_infos(original, base, edited, changed, gone, scope.names))
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
        before, after = _exported_initializers(base), _exported_initializers(edited)
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
            if name in after and not _same_dense(sparse, self._tensor(after[name], None)):
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
        origins = _origins(original, edited, self.stamps.get(scope.edited, ()), scope.original)
        for at, (node, origin) in enumerate(zip(edited, origins, strict=True)):
            if origin is None:
                yield self._resolved(node)
                continue
            real, twin = original[origin], base[origin]
            result = _copy_but(real, {"attribute"})
            _patch(result, twin, node, ("name", "op_type", "domain"))
            _patch_lists(result, twin, node, ("input", "output"))
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
            elif now.type == _Attr.GRAPH and not now.ref_attr_name and not twin.ref_attr_name:
                result = _copy_but(real, {"g"})
                inside = scope.inside(origin, at, real.name, ())
                result.g.CopyFrom(self._graph(real.g, twin.g, now.g, inside))
                yield result
            elif now.type == _Attr.TENSOR and not now.ref_attr_name and not twin.ref_attr_name:
                same = now.t.name == twin.t.name and self._unedited(real.t, twin.t, now.t)
                yield real if same else self._attribute(now, real)
            else:
                yield real if _bytes(now) == _bytes(twin) else self._attribute(now, real)
        known = {one.name for one in original}
        for name, now in after.items():
            if name not in known:
                yield self._attribute(now, None)

    def _attribute(self, edited: onnx.AttributeProto, original: onnx.AttributeProto | None) -> onnx.AttributeProto:
        if original is not None and original.type == edited.type == _Attr.TENSOR:
            result = _copy_but(edited, {"t"})
            result.t.CopyFrom(self._tensor(edited.t, original.t))
        else:
            result = self._resolved(edited)
        if original is not None:
            if _is_empty_list(edited) and original.type in _LISTS:
                result.type = original.type
            if original.HasField("doc_string"):
                result.doc_string = original.doc_string
        return result

    # -- tensors

    def _unedited(self, original: onnx.TensorProto, base: onnx.TensorProto | None, edited: onnx.TensorProto) -> bool:
        token = _token(edited)
        if token is None:
            return _same_tensor(original, edited)
        return self.tensors[token] is original or (base is not None and _token(base) == token)

    def _tensor(self, edited: onnx.TensorProto, original: onnx.TensorProto | None) -> onnx.TensorProto:
        token = _token(edited)
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
        _restore_empty_lists(result)
        return result


def _copy_but(source: _P, skip: set[str]) -> _P:
    copied: _P = type(source)()
    for descriptor, value in source.ListFields():
        if descriptor.name in skip:
            continue
        if descriptor.is_repeated:
            getattr(copied, descriptor.name).extend(value)
        elif descriptor.message_type is None:
            setattr(copied, descriptor.name, value)
        else:
            getattr(copied, descriptor.name).CopyFrom(value)
    return copied


def _patch(result: Message, base: Message, edited: Message, names: Iterable[str]) -> None:
    for name in names:
        if getattr(base, name) != getattr(edited, name):
            setattr(result, name, getattr(edited, name))


def _patch_lists(result: Message, base: Message, edited: Message, names: Iterable[str]) -> None:
    for name in names:
        if list(getattr(base, name)) != list(getattr(edited, name)):
            getattr(result, name)[:] = getattr(edited, name)


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _opsets(
    original: Sequence[onnx.OperatorSetIdProto],
    base: Sequence[onnx.OperatorSetIdProto],
    edited: Sequence[onnx.OperatorSetIdProto],
) -> Iterator[onnx.OperatorSetIdProto]:
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


def _defined(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    names.update(name for node in graph.node for name in node.output)
    return names


def _exported_initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """By name, the sub-graphs' included: that is where a constant goes which only sub-graphs use."""
    found: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == _Attr.GRAPH:
                found.update(_exported_initializers(attribute.g))
    found.update((tensor.name, tensor) for tensor in graph.initializer)
    return found


def _origins(
    original: Sequence[onnx.NodeProto],
    edited: Sequence[onnx.NodeProto],
    stamps: tuple[object, ...],
    path: str,
) -> list[int | None]:
    """For each edited node the index of the original node it comes from, None for a new one."""
    free = dict.fromkeys(range(len(original)))
    origins: list[int | None] = [None] * len(edited)
    for at, stamp in enumerate(stamps):
        if isinstance(stamp, tuple) and stamp[0] == path and stamp[1] in free:
            origins[at] = stamp[1]
            del free[stamp[1]]
    for keys in (_all_outputs, _each_output, _own_name):
        waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
        for index in free:
            for key in keys(original[index]):
                waiting[key].append(index)
        for at, node in enumerate(edited):
            if origins[at] is not None:
                continue
            for key in keys(node):
                queue = waiting[key]
                while queue and queue[0] not in free:
                    queue.popleft()
                if queue:
                    chosen = queue.popleft()
                    origins[at] = chosen
                    del free[chosen]
                    break
    return origins


def _all_outputs(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, tuple(node.output))]


def _each_output(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, name) for name in node.output if name]


def _own_name(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, node.name)] if node.name else []


def _numbered(values: Iterable[onnx.ValueInfoProto]) -> dict[tuple[str, int], onnx.ValueInfoProto]:
    # A graph may list the same output twice.
    seen: defaultdict[str, int] = defaultdict(int)
    found = {}
    for value in values:
        found[value.name, seen[value.name]] = value
        seen[value.name] += 1
    return found


def _signature(
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


def _value_infos(
    original: onnx.GraphProto,
    base: onnx.GraphProto,
    edited: onnx.GraphProto,
    changed: dict[str, onnx.TensorProto],
    gone: set[str],
    outer: frozenset[str],
) -> Iterator[onnx.ValueInfoProto]:
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
        if name not in before or _bytes(before[name]) != _bytes(value):
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
    if edited is None or (base is not None and _bytes(base) == _bytes(edited)):
        return original
    result = _copy_but(original, set())
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


def _same_tensor(one: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    if _bytes(one) == _bytes(other):
        return True
    if list(one.dims) != list(other.dims):
        return False
    if one.data_type == other.data_type == onnx.TensorProto.STRING:
        return bool(list(one.string_data) == list(other.string_data))
    try:
        first, second = onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other)
    except Exception:  # data that onnx cannot decode; the original then counts as edited
        return False
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(first.tobytes() == second.tobytes())


def _same_dense(sparse: onnx.SparseTensorProto, dense: onnx.TensorProto) -> bool:
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        where = onnx.numpy_helper.to_array(sparse.indices)
        full = np.zeros(list(sparse.dims), dtype=values.dtype)
        if where.ndim == 1:
            full.reshape(-1)[where] = values
        else:
            full[tuple(where.T)] = values
        return bool(np.array_equal(full, onnx.numpy_helper.to_array(dense)))
    except Exception:  # malformed indices: take the edit as one
        return False


def _is_empty_list(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.type == _Attr.STRING and attribute.s == _EMPTY_LIST.encode())


def _restore_empty_lists(part: Message) -> None:
    if isinstance(part, onnx.AttributeProto):
        if _is_empty_list(part):
            part.ClearField("s")
            # Of the list kinds only integers occur empty in the standard: axes, shapes, pads of nothing.
            part.type = _Attr.INTS
        elif part.type == _Attr.GRAPH:
            _restore_empty_lists(part.g)
        return
    if isinstance(part, onnx.NodeProto):
        for attribute in part.attribute:
            _restore_empty_lists(attribute)
        return
    if isinstance(part, (onnx.GraphProto, onnx.FunctionProto)):
        for node in part.node:
            _restore_empty_lists(node)
