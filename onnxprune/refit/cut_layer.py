"""One linear layer of the cut model: its kept channels, its sliced weights, and how to store new weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.site import Masks
from onnxprune.graph.uses import Use
from onnxprune.linear.form import Layer, from_normal, to_normal
from onnxprune.refit.window import Window
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class CutLayer:
    """``layer`` after a cut.  ``groups``: its convolution groups in the cut model (a depthwise layer loses some)."""

    coupling: Coupling
    masks: Masks
    layer: Layer
    groups: int

    @property
    def weight_use(self) -> Use:
        return self.layer.index, self.layer.weight_slot

    @cached_property
    def kept_outputs(self) -> Array:
        """Boolean per output channel of the original."""
        rank = len(self.coupling.facts.shapes[self.layer.output])
        return self.masks(self.layer.output, self.layer.channel_axis % rank)

    @cached_property
    def kept_inputs(self) -> Array:
        """Boolean per input channel of one convolution group of the original (the same in every group)."""
        layer = self.layer
        mask = self.masks(self.weight_use, layer.reading_axis)
        return mask[: len(mask) // layer.groups()] if layer.kind == "transpose" else mask

    def seen(self, window: Window) -> Window:
        """The part of an original ``window`` that belongs to the kept output channels."""
        low, high = (end[self.kept_outputs] if isinstance(end, np.ndarray) else end for end in window)
        return low, high

    def sliced(self, use: Use) -> Array:
        """A constant of the original, cut to the kept positions along every axis."""
        array = constant_of(self.coupling, use)
        for axis in range(array.ndim):
            array = np.compress(self.masks(use, axis), array, axis=axis)
        return array

    @property
    def has_bias(self) -> bool:
        slot = self.layer.bias_slot
        inputs = self.layer.node.inputs
        return slot is not None and slot < len(inputs) and inputs[slot] is not None

    @property
    def taps(self) -> int:
        """Positions of the kernel; 1 for a matrix."""
        return 1 if self.layer.kind == "matmul" else math.prod(constant_of(self.coupling, self.weight_use).shape[2:])

    @property
    def features(self) -> int:
        """Inputs of one output: kept channels of a convolution group, times the taps of the kernel."""
        return int(self.kept_inputs.sum()) * self.taps

    @property
    def kept_features(self) -> Array:
        """Indices into the features of one output of the original, and of the constant, which comes last."""
        return np.flatnonzero(np.append(np.repeat(self.kept_inputs, self.taps), True))

    def full_bias(self) -> Array:
        """The original's bias per output channel, float64; zeros if it has none."""
        count = len(self.kept_outputs)
        if not self.has_bias:
            return np.zeros(count)
        assert self.layer.bias_slot is not None
        bias = constant_of(self.coupling, (self.layer.index, self.layer.bias_slot)).astype(np.float64)
        return np.broadcast_to(bias, (count,))

    def full(self) -> Array:
        """The original's weights and biases, uncut: (g, n+1, o) float64."""
        normal = to_normal(self.layer, constant_of(self.coupling, self.weight_use), self.layer.groups())
        return _with_bias(normal, self.full_bias())

    def base(self) -> Array:
        """The sliced weights and biases: (g, n+1, o) float64."""
        normal = to_normal(self.layer, self.sliced(self.weight_use), self.groups)
        return _with_bias(normal, self.full_bias()[self.kept_outputs])

    def stored(self, weights: Array) -> tuple[Array, Array]:
        """(g, n+1, o) -> (weight in its stored layout, bias (g·o,)), both in the stored dtype."""
        like = self.sliced(self.weight_use)
        groups, _, outs = weights.shape
        normal = weights[:, :-1].transpose(0, 2, 1).reshape(groups, outs, -1, self.taps)
        return from_normal(self.layer, normal, like), weights[:, -1].reshape(-1).astype(like.dtype)

    def constants(self, weights: Array, home: tuple[Use, float] | None) -> Mapping[Use, Array]:
        """The constants that make the layer compute with ``weights`` (g, n+1, o).

        ``home``: the place and sign of the bias, for a layer without a bias slot; see
        :class:`onnxprune.refit.targets.Target`.
        """
        weight, bias = self.stored(weights)
        constants = {self.weight_use: weight}
        slot = self.layer.bias_slot
        if slot is not None and (self.has_bias or home is None):
            constants[self.layer.index, slot] = bias
        elif home is not None:
            use, sign = home
            array = self.sliced(use)
            change = weights[:, -1].reshape(-1) - self.full_bias()[self.kept_outputs]
            constants[use] = (array + sign * change.reshape(array.shape)).astype(array.dtype)
        return constants


def _with_bias(normal: Array, bias: Array) -> Array:
    """(g, o, i, t) and (g·o,) -> (g, i·t+1, o)."""
    groups, outs = normal.shape[:2]
    flat = normal.reshape(groups, outs, -1).astype(np.float64)
    return np.concatenate([flat, bias.reshape(groups, outs, 1)], axis=2).transpose(0, 2, 1)
