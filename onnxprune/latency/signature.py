"""What a layer's time depends on, apart from its widths: operator, kernel, strides, input size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Axis, Key
from onnxprune.linear.form import Layer, computed_layers


@dataclass(frozen=True)
class Signature:
    """What identifies a layer in a latency table.

    ``space`` is the spatial size of the input, or the number of rows of a matrix product.  ``groups`` is 1 for a dense
    layer.  Otherwise ``inputs`` counts per group, and a cut removes whole groups of outputs.  ``inputs`` and
    ``outputs`` are the widths of the uncut model.  ``pads`` holds begins and ends, or the name of an automatic padding.
    """

    op: str
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str
    groups: int
    inputs: int
    outputs: int
    dtype: str

    @property
    def key(self) -> str:
        """The name in tables: ``Conv 14x14 k3x3 s1x1 d1x1 p1,1,1,1 g1 float32 256x512``."""
        pads = self.pads if isinstance(self.pads, str) else ",".join(map(str, self.pads))
        shape = f"k{_by(self.kernel)} s{_by(self.strides)} d{_by(self.dilations)} p{pads} g{self.groups} "
        return f"{self.op} {_by(self.space)} {shape if self.kernel else ''}{self.dtype} {self.inputs}x{self.outputs}"

    @property
    def live_inputs(self) -> bool:
        """Whether the input width varies on its own; in a grouped convolution it follows the output width."""
        return self.groups == 1


@dataclass(frozen=True, eq=False)
class Timed:
    """A layer of a model: its signature, and the input and output axes of its weight."""

    signature: Signature
    node: int
    inputs: Axis
    outputs: Axis


def timed_layers(coupling: Coupling, layers: Sequence[Layer]) -> tuple[Timed, ...]:
    """The signature of all ``layers``, and of layers with a computed weight, at the input shapes of the analysis."""
    timed = []
    for layer in (*layers, *computed_layers(coupling)):
        value = layer.node.inputs[layer.weight_slot] or ""
        use: Key = (layer.index, layer.weight_slot) if (layer.index, layer.weight_slot) in coupling.units else value
        weight, shape = coupling.facts.shapes[value], coupling.facts.shapes[layer.data]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(coupling.facts.dtypes[value]).name
        if layer.kind == "matmul":
            axes = (0, 1) if layer.flip else (1, 0)
            rows, widths = math.prod(shape[:-1]), (weight[axes[0]], weight[axes[1]])
            signature = Signature("MatMul", (rows,), (), (), (), (), 1, *widths, dtype)
        else:
            axes = (1, 0) if layer.kind == "conv" else (0, 1)
            signature = _convolution(layer, weight, dtype, tuple(shape[2:]), axes)
            if layer.groups() > 1:
                axes = (axes[0], 0)
        timed.append(Timed(signature, layer.index, (use, axes[0]), (use, axes[1])))
    return tuple(sorted(timed, key=lambda one: one.node))


def _convolution(
    layer: Layer, weight: tuple[int, ...], dtype: str, space: tuple[int, ...], axes: tuple[int, int]
) -> Signature:
    node, rank, groups = layer.node, len(space), layer.groups()
    automatic = node.string("auto_pad", "NOTSET")
    inputs, outputs = weight[axes[0]], weight[axes[1]]
    if groups > 1 and layer.kind == "transpose":
        # ConvTranspose stores the weight the other way round: all inputs, and the outputs of one group.
        inputs, outputs = inputs // groups, inputs
    return Signature(
        node.op,
        space,
        weight[2:],
        node.integers("strides") or (1,) * rank,
        node.integers("dilations") or (1,) * rank,
        (node.integers("pads") or (0,) * (2 * rank)) if automatic == "NOTSET" else automatic,
        groups,
        inputs,
        outputs,
        dtype,
    )


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
