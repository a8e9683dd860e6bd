"""Computes one node whose inputs are known: constants, and arithmetic on sizes."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnxprune.graph.dequantized import dequantizes
from onnxprune.graph.execute import CannotExecute, run_node
from onnxprune.graph.known import Known, Shape
from onnxprune.graph.view import Node

Array = np.ndarray
#: Operators with constant inputs that the graph must still compute: folding them would store int8 weights as floats,
#: or freeze random values.
NEVER_FOLDED = frozenset(
    [
        "DequantizeLinear",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
        "If",
        "Loop",
        "Scan",
        "SequenceEmpty",
    ]
)
#: Maximum elements of a value that counts as shape arithmetic.
SMALL = 4096
#: Maximum elements, over all constants, that one walk computes: a model may request more than fits any machine.
BEARABLE = 1 << 26


def sizes_of(node: Node, shape: Shape) -> Array:
    """The result of a Shape or Size ``node`` for a tensor of this ``shape``, int64."""
    if node.op == "Size":
        return np.asarray(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return np.asarray(shape[start:end], dtype=np.int64)


def compute(known: Known, node: Node) -> bool:
    """Evaluate ``node`` if its inputs are known.  Returns whether its outputs became known values."""
    if node.op in NEVER_FOLDED or node.domain != "" or dequantizes(known.graph, node):
        return False
    if node.op in ("Shape", "Size"):
        source, out = node.inputs[0], node.outputs[0]
        if source is None or out is None or source not in known.shapes:
            return False
        result = sizes_of(node, known.shapes[source])
        fixed = known.value(source) is not None and source not in known.sized and not _is_weight(known, source)
        known.learn(node, (result,), sized=not fixed)
        return True
    feeds = [known.value(value) for value in node.inputs]
    present = [value for value in node.inputs if value is not None]
    if not present or any(known.value(value) is None for value in present):
        return False
    sized = any(value in known.sized for value in present)
    if (sized and not _is_small(known, node)) or not _is_bearable(known, node):
        return False
    try:
        results = run_node(node.proto, known.graph.opsets, feeds)
    except CannotExecute:
        return False
    if sized and any(r.size > SMALL or (r.dtype.kind == "f" and r.ndim > 1) for r in results):
        return False
    known.learn(node, results, sized)
    return True


def _is_weight(known: Known, value: str) -> bool:
    """Whether a cut may change the size of a constant.  It never changes the size of a list of sizes or indices."""
    return value in known.graph.constants and known.dtypes[value] not in (
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
    )


def _is_small(known: Known, node: Node) -> bool:
    shapes = [known.shapes.get(o) for o in node.outputs if o is not None]
    return all(s is None or int(np.prod(s, dtype=np.int64)) <= SMALL for s in shapes)


def _is_bearable(known: Known, node: Node) -> bool:
    """Whether one walk may still compute the results of ``node``.  Unknown sizes count as nothing."""
    shapes = [known.shapes.get(o) for o in node.outputs if o is not None]
    return known.computed + sum(math.prod(s) for s in shapes if s is not None) <= BEARABLE
