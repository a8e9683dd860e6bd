"""Sessions for refinement: a linear layer that takes its weights as inputs, its adjoint, and elementwise chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from onnxprune.engine.session import Engine, open_session, run
from onnxprune.graph.view import Graph, Node
from onnxprune.linear.form import Layer, padding

Array = np.ndarray


class FreeLayer:
    """One linear node of ``graph``, run with any weight and bias.  All arrays are float32."""

    def __init__(self, graph: Graph, layer: Layer, engine: Engine) -> None:
        self._graph = graph
        self._layer = layer
        self._engine = engine
        self._node = graph.nodes[layer.index]
        self._transposed: dict[tuple[tuple[int, ...], tuple[int, ...]], ort.InferenceSession] = {}
        if layer.kind != "matmul":
            proto = onnx.NodeProto()
            proto.CopyFrom(self._node.proto)
            proto.input[:] = ["x", "w", "b"]
            proto.output[:] = ["y"]
            self._forward = _session([proto], ["x", "w", "b"], "y", [], graph, engine)

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        """The layer's output.  ``weight`` is in its stored layout, ``bias`` is (channels,)."""
        if self._layer.kind == "matmul":
            return np.asarray(x @ (weight if self._layer.flip else weight.T) + bias)
        return run(self._forward, {"x": x, "w": weight, "b": bias})[0]

    def transposed(self, y: Array, weight: Array, shape: tuple[int, ...]) -> Array:
        """The adjoint of :meth:`forward` (without bias), applied to ``y``.  ``shape``: the shape of the layer's input.

        For matrix products and convolutions only: nothing here needs it for transposed convolutions.
        """
        if self._layer.kind == "matmul":
            return np.asarray(y @ (weight.T if self._layer.flip else weight))
        key = (tuple(shape[2:]), tuple(y.shape[2:]))
        if key not in self._transposed:
            self._transposed[key] = self._adjoint(key[0], key[1], weight.shape[2:])
        return run(self._transposed[key], {"x": y, "w": weight})[0]

    def channels(self, weight: Array) -> int:
        """Input channels per convolution group, given a weight in its stored layout."""
        return int(weight.shape[self._layer.reading_axis])

    def _adjoint(
        self, space_in: Sequence[int], space_out: Sequence[int], kernel: Sequence[int]
    ) -> ort.InferenceSession:
        node, rank = self._node, len(kernel)
        strides = list(node.integers("strides") or (1,) * rank)
        dilations = list(node.integers("dilations") or (1,) * rank)
        begin = padding(self._layer, space_in, space_out, kernel)
        end, extra = [], []
        for a in range(rank):
            reach = (space_out[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1
            # Input beyond the last tap becomes output padding.  Taps beyond the input are cropped.
            left = space_in[a] + begin[a] - reach
            end.append(max(-left, 0))
            extra.append(max(left, 0))
        # ConvTranspose wants less output padding than stride.  That holds: fewer positions than a stride stay unread.
        proto = oh.make_node(
            "ConvTranspose",
            ["x", "w"],
            ["y"],
            strides=strides,
            dilations=dilations,
            pads=[*begin, *end],
            output_padding=extra,
            group=node.integer("group", 1),
        )
        return _session([proto], ["x", "w"], "y", [], self._graph, self._engine)


def chain_function(
    graph: Graph,
    nodes: Sequence[Node],
    source: str,
    result: str,
    constant: Callable[[str], Array | None],
    engine: Engine,
) -> Callable[[Array], Array]:
    """The function that ``nodes`` compute from ``source`` to ``result``; the identity if there are no nodes.

    ``constant`` looks up the constants that the nodes read; ``None`` for other values.
    """
    if not nodes:
        return lambda array: array
    constants: dict[str, TensorProto] = {}
    for value in (value for node in nodes for value in graph.nodes[node.index].inputs if value is not None):
        known = graph.initializers.get(value)
        array = constant(value) if known is None else None
        if known is None and array is not None:
            known = numpy_helper.from_array(np.ascontiguousarray(array), value)
        if known is not None:
            constants[value] = known
    protos = [graph.nodes[node.index].proto for node in nodes]
    session = _session(protos, [source], result, list(constants.values()), graph, engine)
    return lambda array: run(session, {source: array})[0]


def _session(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    output: str,
    constants: Sequence[TensorProto],
    graph: Graph,
    engine: Engine,
) -> ort.InferenceSession:
    specs = [oh.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    made = oh.make_graph(list(nodes), "piece", specs, [onnx.ValueInfoProto(name=output)], list(constants))
    model = oh.make_model(made, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)
    return open_session(model, engine)
