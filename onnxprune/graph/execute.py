"""Run one node on arrays, with the reference implementation of its operator in the model's own opset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh
from onnx.reference import ReferenceEvaluator


class CannotExecute(Exception):
    """The node cannot run on these arrays (unknown operator, unsupported type, bad shapes)."""


def run_node(
    node: onnx.NodeProto, opsets: Mapping[str, int], inputs: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, ...]:
    """Outputs of ``node`` on ``inputs`` (one per slot, ``None`` for an empty slot).

    Raises:
        CannotExecute: with the evaluator's message.  No other exception escapes.
    """
    if node.op_type == "Pad":
        node, inputs = _without_cropping(node, inputs)
    node = _with_distinct_inputs(node)
    feeds = {name: value for name, value in zip(node.input, inputs, strict=False) if name and value is not None}
    try:
        # A bare NodeProto would run in the newest opset; a one-node function runs in the model's own.
        wrapped = oh.make_function(
            "onnxprune",
            "one_node",
            list(feeds),
            [o for o in node.output if o],
            [node],
            [oh.make_opsetid(domain, version) for domain, version in opsets.items()],
        )
        # Models may compute log(0) in a branch they then discard: such warnings are noise.
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(wrapped).run(None, feeds, attributes={})
    except Exception as error:
        raise CannotExecute(f"{node.op_type}: {error}") from error
    return tuple(np.asarray(result) for result in results)


def _with_distinct_inputs(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node with a distinct name for every input slot.  A name read twice may have different values per slot."""
    names = [name for name in node.input if name]
    if len(names) == len(set(names)):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [f"{slot} {name}" if name else "" for slot, name in enumerate(node.input)]
    return copy


def _without_cropping(
    node: onnx.NodeProto, inputs: Sequence[np.ndarray | None]
) -> tuple[onnx.NodeProto, Sequence[np.ndarray | None]]:
    """Crop the data for negative pads, which the reference evaluator does not support."""
    data = inputs[0] if inputs else None
    attribute = next((a for a in node.attribute if a.name == "pads"), None)
    stated = inputs[1] if attribute is None and len(inputs) > 1 else None
    pads = np.asarray(attribute.ints, dtype=np.int64) if attribute is not None else stated
    if data is None or pads is None or (pads >= 0).all():
        return node, inputs
    count = len(pads) // 2
    axes = range(data.ndim) if len(inputs) < 4 or inputs[3] is None else [int(a) for a in inputs[3].ravel()]
    window = [slice(None)] * data.ndim
    for axis, before, after in zip(axes, pads[:count].tolist(), pads[count:].tolist(), strict=True):
        window[axis] = slice(max(-before, 0), data.shape[axis] - max(-after, 0))
    rest = np.maximum(pads, 0)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if attribute is not None:
        next(a for a in copy.attribute if a.name == "pads").ints[:] = rest.tolist()
        return copy, [data[tuple(window)], *inputs[1:]]
    return copy, [data[tuple(window)], rest, *inputs[2:]]
