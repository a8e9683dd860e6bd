"""What a layer's time depends on besides its widths: operator, kernel, strides, input size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Axis, Coupling
from onnxprune.linear.form import Layer
from onnxprune.surgery.cut import constant_of


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
    """The signature of every layer, at the input shapes of the analysis."""
    timed = []
    for layer in layers:
        use = (layer.index, layer.weight_slot)
        weight = constant_of(coupling, use)
        shape = coupling.facts.shapes[layer.data]
        if layer.kind == "matmul":
            axes = (0, 1) if layer.flip else (1, 0)
            rows, widths = math.prod(shape[:-1]), (weight.shape[axes[0]], weight.shape[axes[1]])
            signature = Signature("MatMul", (rows,), (), (), (), (), 1, *widths, weight.dtype.name)
        else:
            axes = (1, 0) if layer.kind == "conv" else (0, 1)
            signature = _convolution(layer, weight, tuple(shape[2:]), axes)
            if layer.groups() > 1:
                axes = (axes[0], 0)
        timed.append(Timed(signature, layer.index, (use, axes[0]), (use, axes[1])))
    return tuple(timed)


def _convolution(layer: Layer, weight: np.ndarray, space: tuple[int, ...], axes: tuple[int, int]) -> Signature:
    node, rank, groups = layer.node, len(space), layer.groups()
    automatic = node.string("auto_pad", "NOTSET")
    inputs, outputs = weight.shape[axes[0]], weight.shape[axes[1]]
    if groups > 1 and layer.kind == "transpose":
        # ConvTranspose stores the weight the other way round: all inputs, and the outputs of one group.
        inputs, outputs = inputs // groups, inputs
    return Signature(
        node.op,
        space,
        tuple(weight.shape[2:]),
        node.integers("strides") or (1,) * rank,
        node.integers("dilations") or (1,) * rank,
        (node.integers("pads") or (0,) * (2 * rank)) if automatic == "NOTSET" else automatic,
        groups,
        inputs,
        outputs,
        weight.dtype.name,
    )


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
