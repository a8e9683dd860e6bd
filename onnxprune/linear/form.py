"""The normal form of a linear layer: ``y[r, g, o] = Σ_{i,t} x[r, g, i, t] · w[g, o, i, t] + b[g, o]``.

A row ``r`` is one output position of one sample; ``g`` runs over convolution groups, ``i`` over input channels of
a group, ``t`` over kernel taps, ``o`` over output channels of a group.  Conv, ConvTranspose, Gemm and MatMul all
take this form, so one implementation of statistics, selection and refit serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Graph, Node
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
#: Positions that are looked up at a time: 32 MB of them.
MAX_LOOKED_UP = 1 << 22


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear node: its tensors, and how its weight maps to the normal form."""

    node: Node
    data: str
    output: str
    weight_slot: int
    bias_slot: int | None
    kind: str  # "conv" | "transpose" | "matmul"
    flip: bool  # matmul: the weight is stored (in, out)

    @property
    def index(self) -> int:
        return self.node.index

    def groups(self) -> int:
        return self.node.integer("group", 1) if self.kind != "matmul" else 1

    @property
    def channel_axis(self) -> int:
        """The axis of the output that runs over output channels."""
        return -1 if self.kind == "matmul" else 1

    @property
    def reading_axis(self) -> int:
        """The axis of the stored weight that runs over input channels."""
        if self.kind == "matmul":
            return 0 if self.flip else 1
        return 1 if self.kind == "conv" else 0

    @cached_property
    def sums_over(self) -> tuple[tuple[int, int], int] | None:
        """The (use, axis) of the weight that the layer sums over; None for a grouped transposed convolution, whose
        input channels are not all summed."""
        if self.kind == "transpose" and self.groups() > 1:
            return None
        return (self.index, self.weight_slot), self.reading_axis


def layers(coupling: Coupling) -> tuple[Layer, ...]:
    """Every linear node of the main graph with a constant floating-point weight, in graph order.

    Nodes that read an empty tensor are left out: they yield no data.
    """
    linears: list[Layer] = []
    for index, bound in sorted(coupling.walked.bounds.items()):
        linear, node = bound.rule.linear, coupling.graph.nodes[index]
        if linear is None or node.scope or node.op not in _KINDS:
            continue
        if (index, linear.weight) not in coupling.units or node.integer("transA", 0):
            continue
        if node.op == "Gemm" and _scaled(node):
            continue
        data, output = node.inputs[linear.data], node.outputs[0]
        weight = constant_of(coupling, (index, linear.weight))
        if data is None or output is None or weight.dtype.kind != "f" or data in coupling.graph.constants:
            continue
        if 0 in coupling.facts.shapes.get(data, ()):
            continue
        bias = linear.bias
        if bias is not None and bias < len(node.inputs) and node.inputs[bias] is not None:
            if (index, bias) not in coupling.units or constant_of(coupling, (index, bias)).ndim != 1:
                continue
        flip = node.op == "MatMul" or (node.op == "Gemm" and not node.integer("transB", 0))
        linears.append(Layer(node, data, output, linear.weight, bias, _KINDS[node.op], flip))
    return tuple(linears)


def computed_layers(coupling: Coupling) -> tuple[Layer, ...]:
    """Linear nodes of the main graph whose weight is computed at run time, in graph order.

    Their channels are cut and they take time as others do, but there is no weight to refit.
    """
    linear_layers: list[Layer] = []
    for index, bound in sorted(coupling.walked.bounds.items()):
        linear, node = bound.rule.linear, coupling.graph.nodes[index]
        if linear is None or node.scope or node.op not in _KINDS or node.integer("transA", 0):
            continue
        data, weight, output = node.inputs[linear.data], node.inputs[linear.weight], node.outputs[0]
        if data is None or output is None or weight not in coupling.units or 0 in coupling.facts.shapes[data]:
            continue
        flip = node.op == "MatMul" or (node.op == "Gemm" and not node.integer("transB", 0))
        linear_layers.append(Layer(node, data, output, linear.weight, linear.bias, _KINDS[node.op], flip))
    return tuple(linear_layers)


_KINDS = {"Conv": "conv", "ConvTranspose": "transpose", "Gemm": "matmul", "MatMul": "matmul"}


def _scaled(node: Node) -> bool:
    return any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.proto.attribute)


def to_normal(layer: Layer, weight: Array, groups: int) -> Array:
    """Stored weight -> (g, o, i, t)."""
    if layer.kind == "matmul":
        matrix = weight.T if layer.flip else weight
        return matrix[None, :, :, None]
    taps = math.prod(weight.shape[2:])
    if layer.kind == "conv":
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], taps)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], taps).transpose(0, 2, 1, 3)


def from_normal(layer: Layer, normal: Array, like: Array) -> Array:
    """(g, o, i, t) -> the stored layout, shape and dtype of ``like``."""
    if layer.kind == "matmul":
        matrix = normal[0, :, :, 0]
        matrix = matrix.T if layer.flip else matrix
    elif layer.kind == "conv":
        matrix = normal
    else:
        matrix = normal.transpose(0, 2, 1, 3)
    return np.ascontiguousarray(matrix.reshape(like.shape).astype(like.dtype))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The input position that each tap reads, per axis: ``taps[a]`` is (output size, kernel size), -1 in the padding."""

    taps: tuple[Array, ...]

    @property
    def positions(self) -> int:
        return math.prod(len(t) for t in self.taps)


def geometry(
    graph: Graph, layer: Layer, space_in: Sequence[int], space_out: Sequence[int], kernel: Sequence[int]
) -> Geometry:
    """Tap positions of a (transposed) convolution for these input, output and kernel sizes."""
    node, rank = layer.node, len(space_in)
    strides = node.integers("strides") or (1,) * rank
    dilations = node.integers("dilations") or (1,) * rank
    begin = padding(layer, space_in, space_out, kernel)
    lines: list[Array] = []
    for a in range(rank):
        out = np.arange(space_out[a])[:, None]
        tap = np.arange(kernel[a])[None, :] * dilations[a]
        if layer.kind == "conv":
            at = out * strides[a] - begin[a] + tap
        else:
            spread = out + begin[a] - tap
            at = np.where(spread % strides[a] == 0, spread // strides[a], -1)
        lines.append(np.where((at >= 0) & (at < space_in[a]), at, -1))
    return Geometry(tuple(lines))


def padding(layer: Layer, space_in: Sequence[int], space_out: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Padding before the first position of each spatial axis; resolves ``auto_pad`` and ``output_shape``."""
    rank = len(space_in)
    strides = layer.node.integers("strides") or (1,) * rank
    dilations = layer.node.integers("dilations") or (1,) * rank
    mode = layer.node.string("auto_pad", "NOTSET")
    pads = layer.node.integers("pads")
    if layer.kind == "transpose" and layer.node.integers("output_shape"):
        mode = mode if mode.startswith("SAME") else "SAME_LOWER" if mode == "NOTSET" else mode
        pads = None
    if mode in ("NOTSET", "VALID") or pads is not None:
        return list(pads[:rank]) if pads and mode != "VALID" else [0] * rank
    begin: list[int] = []
    for a in range(rank):
        reach = (kernel[a] - 1) * dilations[a] + 1
        if layer.kind == "conv":
            total = max((space_out[a] - 1) * strides[a] + reach - space_in[a], 0)
        else:
            total = max((space_in[a] - 1) * strides[a] + reach - space_out[a], 0)
        begin.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return begin


def sample_rows(layer: Layer, x: Array, geo: Geometry | None, picks: Array, groups: int) -> Array:
    """Rows of the layer's input in normal form: (rows, g, i, t), float32.

    For convolutions ``picks`` are flat output positions, the same in every sample of the batch; otherwise they are
    flat rows.  The result may have no rows.
    """
    if geo is None:
        flat = x.reshape(-1, x.shape[-1])[picks]
        return np.asarray(flat, dtype=np.float32)[:, None, :, None]
    batch, channels = x.shape[:2]
    linear, valid = _reads(geo, picks, x.shape[2:])
    flat = x.reshape(batch, channels, math.prod(x.shape[2:]))
    taps = linear.shape[1]
    if taps == 1 and valid.all():
        taken = np.take(flat, linear[:, 0], axis=2).transpose(0, 2, 1)
    else:
        if not valid.all():
            # Taps in the padding read one more position, which is zero.
            linear = np.where(valid, linear, flat.shape[2])
            flat = np.concatenate([flat, np.zeros((batch, channels, 1), x.dtype)], axis=2)
        # One look-up in the order of the result: reordering the result costs several times as much.
        starts = (np.arange(channels) * flat.shape[2])[:, None]
        lines = flat.reshape(batch, -1)
        taken = np.empty((batch, len(picks), channels * taps), x.dtype)
        step = max(1, MAX_LOOKED_UP // (channels * taps))
        for start in range(0, len(picks), step):
            part = slice(start, start + step)
            at = (starts + linear[part, None, :]).reshape(-1)
            taken[:, part] = np.take(lines, at, axis=1, mode="clip").reshape(batch, -1, channels * taps)
    rows = taken.reshape(batch * len(picks), groups, channels // groups, taps)
    return np.asarray(rows, dtype=np.float32)


def _reads(geo: Geometry, picks: Array, space: tuple[int, ...]) -> tuple[Array, Array]:
    """Per pick and tap the flat input position, and whether it lies in the input: (picks, taps) each."""
    where = np.unravel_index(picks, [len(t) for t in geo.taps])
    linear = np.zeros((len(picks), 1), dtype=np.int64)
    valid = np.ones((len(picks), 1), dtype=np.bool_)
    for size, taps, at in zip(space, geo.taps, where, strict=True):
        here = taps[at]
        linear = linear[:, :, None] * size + np.maximum(here, 0)[:, None, :]
        valid = valid[:, :, None] & (here >= 0)[:, None, :]
        linear, valid = linear.reshape(len(picks), -1), valid.reshape(len(picks), -1)
    return linear, valid


def sample_outputs(layer: Layer, y: Array, geo: Geometry | None, picks: Array) -> Array:
    """Rows of an output (or target) tensor at the same ``picks``: (rows, channels), float32."""
    if geo is None:
        return np.asarray(y.reshape(-1, y.shape[-1])[picks], dtype=np.float32)
    flat = y.reshape(y.shape[0], y.shape[1], math.prod(y.shape[2:]))
    return np.asarray(np.take(flat, picks, axis=2).transpose(0, 2, 1).reshape(-1, y.shape[1]), dtype=np.float32)
