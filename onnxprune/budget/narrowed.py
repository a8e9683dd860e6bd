"""Constants, in their original shapes, that make the original compute as if one group were narrowed.

The weights of cut channels are zero in every layer that reads the group.  The other weights
compensate by least squares on the calibration moments.  So the measured output loss is about the loss that remains after a refit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.graph.uses import Use
from onnxprune.linear.form import Layer, from_normal, to_normal
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.system import fold_onto
from onnxprune.linear.threads import blas_threads
from onnxprune.selection.base import readers_of
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
RIDGE = 1e-3


def narrowed_constants(
    coupling: Coupling, group: Group, kept: Array, layers: Sequence[Layer], grams: Mapping[int, SecondMoments]
) -> dict[Use, Array]:
    """New weights and biases of the layers that read ``group``; empty if no layer does.

    ``kept``: boolean per local unit.  Cost: one factorization of the kept inputs per layer and convolution group.
    """
    constants: dict[Use, Array] = {}
    for layer in readers_of(coupling, group, tuple(layers)):
        gone, gram = _gone(coupling, group, kept, layer), grams.get(layer.index)
        stored = constant_of(coupling, (layer.index, layer.weight_slot))
        weight = to_normal(layer, stored, layer.groups())
        if gram is None:
            new = weight.copy()
            new[:, :, gone] = 0
        else:
            new, change = _folded(layer, weight, gone, gram)
            if layer.bias_slot is not None:
                bias = _bias(coupling, layer, weight.shape[0] * weight.shape[1], stored.dtype)
                constants[layer.index, layer.bias_slot] = (bias + change).astype(bias.dtype)
        constants[layer.index, layer.weight_slot] = from_normal(layer, new, stored)
    return constants


def _gone(coupling: Coupling, group: Group, kept: Array, layer: Layer) -> Array:
    """Boolean per input channel of ``layer``: it belongs to a cut unit of ``group``."""
    units = coupling.units[layer.index, layer.weight_slot][layer.reading_axis] - int(group.units[0])
    mine = (units >= 0) & (units < len(group))
    gone = np.zeros(units.shape, dtype=np.bool_)
    gone[mine] = ~kept[units[mine]]
    return np.asarray(gone if gone.ndim == 1 else gone.any(axis=1))


def _folded(layer: Layer, weight: Array, gone: Array, gram: SecondMoments) -> tuple[Array, Array]:
    """(``weight`` (g, o, i, t) folded onto the kept channels, zero elsewhere; the change of the biases, (g·o,))."""
    groups, outs, channels, taps = weight.shape
    alive = np.flatnonzero(np.repeat(~gone, taps))
    with_one = np.append(alive, channels * taps)
    new, change = weight.copy(), np.zeros((groups, outs))
    for g in range(groups):
        flat = np.concatenate([weight[g].reshape(outs, -1), np.zeros((outs, 1), weight.dtype)], axis=1).T
        # A layer without a bias slot cannot take the constant that the fold would give it.
        constant = 0.0 if layer.bias_slot is None else 1.0
        with blas_threads(len(with_one)):
            solved = fold_onto(gram, g, constant, flat, with_one, RIDGE)
        new[g] = 0
        new[g].reshape(outs, -1)[:, alive] = solved[:-1].T
        change[g] = solved[-1]
    return new, change.ravel()


def _bias(coupling: Coupling, layer: Layer, outputs: int, kind: np.dtype[np.generic]) -> Array:
    """The original bias of ``layer``, (outputs,); zeros if it has none."""
    slot = layer.bias_slot
    if slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
        return constant_of(coupling, (layer.index, slot))
    return np.zeros(outputs, dtype=kind)
