"""What onnx-graphsurgeon gets to see: the model without its weights, and without what it cannot import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxprune.graph.tensors import map_tensors
from onnxprune.surgery.exchange import LISTS
from onnxprune.surgery.origin import STAMP, inner_path, known_dtype, stub_of, token_of, visible_functions

_PLAIN = {
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.STRING,
    onnx.AttributeProto.TENSOR,
    onnx.AttributeProto.GRAPH,
    *LISTS,
}


def shadow_of(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """The model without weights and without what onnx-graphsurgeon fails on; and its weights, by token."""
    tensors: list[onnx.TensorProto] = []

    def stub(tensor: onnx.TensorProto) -> onnx.TensorProto:
        tensors.append(tensor)
        return stub_of(tensor, len(tensors) - 1)

    shadow = map_tensors(model, stub)
    _hide_in_graph(shadow.graph)
    del shadow.training_info[:]
    kept = visible_functions(shadow)
    for function in kept:
        _hide_in_nodes(function.node)
        _keep(function.attribute_proto, lambda one: _attribute_fits(one) and one.type != onnx.AttributeProto.GRAPH)
    rest = [onnx.FunctionProto.FromString(one.SerializeToString()) for one in kept]
    del shadow.functions[:]
    shadow.functions.extend(rest)
    return shadow, tensors


def _hide_in_graph(graph: onnx.GraphProto) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.WhichOneof("value") != "tensor_type" or not known_dtype(value.type.tensor_type.elem_type):
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
            if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
                _hide_in_graph(attribute.g)
            elif not _decodes(attribute):
                # The real bytes come back in bind; onnx-graphsurgeon decodes while it imports.
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


class _Origin(LazyValues):  # type: ignore[misc]
    """Values that lie in the original model, and leave as a stub when nobody has read them."""

    def __init__(self, source: onnx.TensorProto, token: int) -> None:
        self.source = source
        self.token = token
        self.shape = list(source.dims)
        self.dtype = (
            onnx.helper.tensor_dtype_to_np_dtype(source.data_type)
            if known_dtype(source.data_type)
            else source.data_type
        )
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * getattr(self.dtype, "itemsize", 1)

    @property
    def tensor(self) -> onnx.TensorProto:
        # A new one each time: the exporter writes the constant's name into it, and copies may share
        # these values.
        return stub_of(self.source, self.token)

    def load(self) -> np.ndarray[Any, Any]:
        if self.source.data_type == onnx.TensorProto.STRING and not _decodes_all(self.source.string_data):
            return np.array([*self.source.string_data, None], dtype=object)[:-1].reshape(self.shape)
        return np.array(onnx.numpy_helper.to_array(self.source))


def bind(
    graph: gs.Graph,
    shadow: onnx.GraphProto | onnx.FunctionProto,
    source: onnx.GraphProto | onnx.FunctionProto,
    tensors: list[onnx.TensorProto],
    path: str,
) -> None:
    """Stamp the nodes of a fresh import, tie constants to the original, give back what import cannot read."""
    for at, (node, twin, real) in enumerate(zip(graph.nodes, shadow.node, source.node, strict=True)):
        setattr(node, STAMP, (path, at))
        for attribute in real.attribute:
            value = node.attrs.get(attribute.name)
            if attribute.ref_attr_name or value is None:
                continue
            if not _decodes(attribute):
                node.attrs[attribute.name] = (
                    attribute.s if attribute.type == onnx.AttributeProto.STRING else list(attribute.strings)
                )
            elif isinstance(value, gs.Graph):
                inner = next(one for one in twin.attribute if one.name == attribute.name)
                bind(value, inner.g, attribute.g, tensors, inner_path(path, at, attribute.name))
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
        token = token_of(value._values.tensor)
        if token is not None:
            value._values = _Origin(tensors[token], token)
            value.data_location = None
