"""Models to time: one layer at one input width and several output widths, without stored weights."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.latency.device import LAYERS, PROBE_IN, PROBE_OUT, Json
from onnxprune.latency.signature import Signature

#: Shares of the full width at which to time a layer, rounded up to STEP channels.  Between them time is nearly
#: bilinear.
SHARES, STEP = (0.125, 0.25, 0.5, 0.75, 1.0), 16
#: Maximum elements of one weight.  Times of larger weights are extrapolated: memory bandwidth limits them.
MAX_ELEMENTS = 1 << 24
#: Shape of the tensors that time an elementwise operator, and side of the square matrices that time a product.
PROBE_ELEMENTS, PROBE_SIDE = (1, 64, 56, 56), 192
WEIGHT = 0.01


def widths(full: int) -> list[int]:
    """The widths at which to time a layer, ascending up to ``full``."""
    return sorted({min(full, math.ceil(share * full / STEP) * STEP) for share in SHARES})


def layers_file(signatures: Iterable[Signature]) -> Json:
    """The layers file, as JSON: all that :func:`onnxprune.latency.device.measure` needs."""
    entries = probes()
    for signature in dict.fromkeys(signatures):
        entries += entries_of(signature)
    moved = 3 * 4 * math.prod(PROBE_ELEMENTS)
    return {LAYERS: 1, "probe_bytes": moved, "probe_macs": PROBE_SIDE**3, "entries": entries}


def entries_of(signature: Signature) -> list[Json]:
    """One entry per input width, or per output width if the input width follows it."""
    if not signature.live_inputs:
        return [_entry(signature, signature.inputs, [w]) for w in group_widths(signature)]
    return [_entry(signature, w, widths(signature.outputs)) for w in widths(signature.inputs)]


def group_widths(signature: Signature) -> list[int]:
    """Output widths of a grouped convolution that keep whole groups, ascending."""
    each = max(1, signature.outputs // signature.groups)
    return sorted({max(each, round(w / each) * each) for w in widths(signature.outputs)})


def probes() -> list[Json]:
    """Entries that measure a machine's block, its alignment, and the cost of moving a byte and of one MAC."""
    conv = Signature(
        "Conv", (14, 14), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, max(PROBE_IN), max(PROBE_OUT), "float32"
    )
    entries = [{**_entry(conv, max(PROBE_IN), list(PROBE_OUT)), "key": "widths"}]
    entries += [{**_entry(conv, n, [max(PROBE_OUT)]), "key": "inputs"} for n in PROBE_IN]
    square = (PROBE_SIDE, PROBE_SIDE)
    for key, op, shape in (("byte", "Add", PROBE_ELEMENTS), ("mac", "MatMul", square)):
        nodes = [oh.make_node(op, ["a", "b"], ["layer.1.out"], name="layer.1")]
        entries.append(_packed(key, 1, nodes, [], {"a": shape, "b": shape}, {"layer.1.out": shape}, "float32", 1.0))
    return entries


def _entry(signature: Signature, inputs: int, outputs: list[int]) -> Json:
    dtype = oh.np_dtype_to_tensor_dtype(np.dtype(signature.dtype))
    matrix = signature.op == "MatMul"
    each = max(1, signature.outputs // signature.groups)
    groups = max(1, outputs[0] // each) if signature.groups > 1 else 1
    channels = inputs * groups
    taken = min(1.0, MAX_ELEMENTS / (channels // groups * max(outputs) * math.prod(signature.kernel)))
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    results: dict[str, tuple[int, ...]] = {}
    for width in outputs:
        outs = max(1, int(width * taken))
        shape = (channels, outs) if matrix else _weight_shape(signature, channels, outs, groups)
        constants.append(numpy_helper.from_array(np.asarray(shape, dtype=np.int64), f"shape.{width}"))
        value = oh.make_tensor("value", dtype, [1], [WEIGHT])
        nodes.append(oh.make_node("ConstantOfShape", [f"shape.{width}"], [f"weight.{width}"], value=value))
        name, made = f"layer.{width}", f"layer.{width}.out"
        if matrix:
            nodes.append(oh.make_node("MatMul", ["x", f"weight.{width}"], [made], name=name))
            results[made] = (*signature.space, outs)
            continue
        nodes.append(_convolution(signature, groups, [f"weight.{width}", made], name))
        nodes.append(oh.make_node("Relu", [made], [f"{made}.relu"], name=f"{name}.relu"))
        # Each branch ends in a few numbers, so that onnxruntime converts no large output to the plain layout.
        nodes.append(oh.make_node("GlobalAveragePool", [f"{made}.relu"], [f"pool.{width}"], name=f"pool.{width}"))
        results[f"pool.{width}"] = (1, outs, *(1 for _ in signature.space))
    x = (*signature.space, channels) if matrix else (1, channels, *signature.space)
    return _packed(signature.key, inputs, nodes, constants, {"x": x}, results, signature.dtype, 1 / taken)


def _weight_shape(signature: Signature, channels: int, outs: int, groups: int) -> tuple[int, ...]:
    if signature.op == "Conv":
        return (outs, channels // groups, *signature.kernel)
    return (channels, max(1, outs // groups), *signature.kernel)


def _convolution(signature: Signature, groups: int, names: list[str], name: str) -> onnx.NodeProto:
    pads = signature.pads
    return oh.make_node(
        signature.op,
        ["x", names[0]],
        [names[1]],
        name=name,
        kernel_shape=signature.kernel,
        strides=signature.strides,
        dilations=signature.dilations,
        group=groups,
        **({"auto_pad": pads} if isinstance(pads, str) else {"pads": pads}),
    )


def _packed(
    key: str,
    inputs: int,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    feeds: dict[str, tuple[int, ...]],
    results: dict[str, tuple[int, ...]],
    dtype: str,
    scale: float,
) -> Json:
    kind = oh.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = oh.make_graph(
        nodes,
        "layer",
        [oh.make_tensor_value_info(name, kind, shape) for name, shape in feeds.items()],
        [oh.make_tensor_value_info(name, kind, shape) for name, shape in results.items()],
        constants,
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8)
    code = base64.b64encode(model.SerializeToString(deterministic=True)).decode()
    shapes = {name: list(shape) for name, shape in feeds.items()}
    return {"key": key, "in": inputs, "inputs": shapes, "dtype": dtype, "scale": scale, "model": code}
