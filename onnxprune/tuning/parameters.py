"""Which constants of a graph are weights to train."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxprune.graph.view import Graph, Node

Array = np.ndarray
#: Operator -> slots that hold weights if they are constant.
WEIGHTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "FusedConv": (1, 2),
    "ConvTransposeWithDynamicPads": (1, 3),
    "CausalConvWithState": (1, 2),
    "Gemm": (0, 1, 2),
    "FusedGemm": (0, 1, 2),
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "TransposeMatMul": (0, 1),
    "Einsum": (0, 1, 2),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6),
    "PRelu": (1,),
    "RNN": (1, 2, 3),
    "GRU": (1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "Gather": (0,),
    "Attention": (1, 2),
    "MultiHeadAttention": (3,),
    "BiasGelu": (1,),
    "FastGelu": (1,),
    "BiasSplitGelu": (1,),
}
#: Operators with a scale or bias: a constant with one value per channel, next to a computed value.
SCALES = {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Div": (0, 1)}
#: Operators that move positions.  A constant that they move describes places (anchors, strides), not channels.
MOVES = frozenset(
    [
        "Reshape",
        "Slice",
        "Split",
        "Concat",
        "Transpose",
        "Gather",
        "GatherND",
        "GatherElements",
        "Flatten",
        "Expand",
        "Tile",
        "Unsqueeze",
        "Squeeze",
        "Pad",
        "Resize",
        "Cast",
    ]
)
#: Between integers and floats.  Constants that they convert stay unchanged.
INTEGERS = frozenset({"DequantizeLinear", "QuantizeLinear"})
#: Operator -> slots that hold stored statistics.  A constant that is read there stays unchanged, also where the file
#: shares it with a bias.
STATISTICS = {"BatchNormalization": (3, 4)}
FLOATS = ("float16", "bfloat16", "float32", "float64")


def trainable(graph: Graph) -> tuple[str, ...]:
    """Value ids of the float constants that are weights, in the order of the graph, each once.

    Looks through copies and arithmetic on constants.
    """
    weights: dict[str, None] = {}
    statistics = {
        name
        for node in graph.nodes
        for slot in STATISTICS.get(node.op, ())
        if slot < len(node.inputs)
        for name in _sources(graph, node.inputs[slot])
    }
    for node in graph.nodes:
        for slot in _slots(graph, node):
            for name in _sources(graph, node.inputs[slot]):
                if _is_weight(graph, name) and name not in statistics:
                    weights.setdefault(name)
    return tuple(weights)


def integer_weights(graph: Graph) -> tuple[str, ...]:
    """Value ids of weights that are stored as integers.  Tuning does not change them."""
    weights: dict[str, None] = {}
    for node in graph.nodes:
        stored = node.inputs[0] if node.op == "DequantizeLinear" and node.inputs else None
        if stored is not None and stored in graph.constants and graph.constants[stored].ndim > 1:
            weights.setdefault(stored)
    return tuple(weights)


def _slots(graph: Graph, node: Node) -> Iterator[int]:
    for slot in WEIGHTS.get(node.op, ()):
        if slot < len(node.inputs) and node.inputs[slot] is not None:
            yield slot
    for slot in SCALES.get(node.op, ()):
        if slot < len(node.inputs) and _is_scale(graph, node.inputs[slot], node.inputs[1 - slot]):
            yield slot


def _is_scale(graph: Graph, value: str | None, other: str | None) -> bool:
    """Whether ``value`` is a constant vector and ``other`` a computed value, not just a moved one."""
    array = graph.constants.get(value or "")
    if array is None or sum(size > 1 for size in array.shape) != 1 or other is None or other not in graph.producer:
        return False
    maker = graph.nodes[graph.producer[other]]
    return maker.op not in MOVES and maker.op != "Constant"


def _sources(graph: Graph, value: str | None) -> list[str]:
    """The stored constants that ``value`` is computed from; none if it depends on inputs or integers."""
    waiting, seen = [value], set[str]()
    constants: list[str] = []
    while waiting:
        name = waiting.pop(0)
        if name is None or name in seen:
            continue
        seen.add(name)
        if name in graph.constants:
            constants.append(name)
            continue
        if name not in graph.producer:
            return []
        node = graph.nodes[graph.producer[name]]
        if node.op in INTEGERS or not any(i is not None for i in node.inputs):
            return []
        waiting += node.inputs
    return constants


def _is_weight(graph: Graph, name: str) -> bool:
    array = graph.constants[name]
    return array.dtype.name in FLOATS and array.size > 1 and bool(np.isfinite(array.astype(np.float64)).all())
