"""The target of a layer's fit: its own output in the original, or the residual sum that it feeds.

Per-channel affine nodes (BatchNormalization, Identity) may follow the layer.  The target is then the output of the last
of them, mapped back to the output of the layer.  If the chain ends in an Add, the target is
``Add_original − other operand in the pruned model``: the last layer of the branch corrects the error that earlier cuts
left in the shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Node
from onnxprune.linear.form import Layer
from onnxprune.refit.window import Window, window_of
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Target:
    """The fit makes ``scale·y + shift`` match ``value`` of the original, minus ``other`` of the pruned model.

    ``scale``, ``shift``: per output channel of the original.  ``until``: index of the node that computes ``value``.
    ``home``: (place, sign) of a constant that can take a bias in place of the layer (the mean of a BatchNormalization,
    the constant of an Add), or ``None``.  ``window``: outside this range the readers of ``value`` see no difference
    (0 … ∞ before a Relu); two arrays (channels,) of the original if channels differ.
    """

    value: str
    until: int
    other: str | None
    scale: Array
    shift: Array
    home: tuple[Use, float] | None
    window: Window


def target_of(coupling: Coupling, layer: Layer, channels: int) -> Target:
    """The target for ``layer``: as far down the chain as the rules above allow."""
    graph = coupling.graph
    value, until = layer.output, layer.index
    axis = layer.channel_axis % len(coupling.facts.shapes[value])
    scale, shift = np.ones(channels), np.zeros(channels)
    home: tuple[Use, float] | None = None
    while True:
        readers = graph.consumers.get(value, ())
        if value in graph.outputs or len(readers) != 1:
            return Target(value, until, None, scale, shift, home, window_of(coupling, value, axis))
        node, slot = graph.nodes[readers[0][0]], readers[0][1]
        if node.scope:
            return Target(value, until, None, scale, shift, home, window_of(coupling, value, axis))
        affine = _affine(coupling, layer, node, slot, channels)
        if affine is None and node.op == "Add":
            other = node.inputs[1 - slot]
            ready = other is not None and _ready(coupling, other, layer.index)
            same = other is not None and coupling.facts.shapes.get(other) == coupling.facts.shapes.get(value)
            if ready and same and other != value and node.outputs[0] is not None:
                window = window_of(coupling, node.outputs[0], axis)
                return Target(node.outputs[0], node.index, other, scale, shift, home, window)
        if affine is None or node.outputs[0] is None:
            return Target(value, until, None, scale, shift, home, window_of(coupling, value, axis))
        if home is None and value == layer.output:
            home = {"BatchNormalization": ((node.index, 3), -1.0), "Add": ((node.index, 1 - slot), 1.0)}.get(node.op)
        scale, shift = affine[0] * scale, affine[0] * shift + affine[1]
        value, until = node.outputs[0], node.index


def _ready(coupling: Coupling, value: str, index: int) -> bool:
    """Whether ``value`` depends on data and exists before node ``index`` runs."""
    if value in coupling.graph.constants or value in coupling.facts.values:
        return False
    return coupling.graph.producer.get(value, -1) < index


def _affine(coupling: Coupling, layer: Layer, node: Node, slot: int, channels: int) -> tuple[Array, Array] | None:
    """(scale, shift), (channels,) each, of ``node``; ``None`` if it is not a per-channel affine function."""
    if node.op in ("Identity", "Dropout") and slot == 0:
        return np.ones(channels), np.zeros(channels)
    if node.op == "Add":
        addend = _per_channel(coupling, layer, (node.index, 1 - slot), channels)
        return None if addend is None else (np.ones(channels), addend)
    if node.op != "BatchNormalization" or slot != 0 or node.integer("training_mode", 0):
        return None
    if any((node.index, k) not in coupling.units for k in (1, 2, 3, 4)):
        return None
    gamma, beta, mean, variance = (constant_of(coupling, (node.index, k)).astype(np.float64) for k in (1, 2, 3, 4))
    if len(gamma) != channels:
        return None
    epsilon = node.attribute("epsilon")
    scale = gamma / np.sqrt(variance + (epsilon.f if epsilon is not None else 1e-5))
    return scale, beta - mean * scale


def _per_channel(coupling: Coupling, layer: Layer, use: Use, channels: int) -> Array | None:
    """The constant at ``use`` as (channels,) float64; ``None`` unless it varies along the channel axis only."""
    if use not in coupling.units:
        return None
    array = constant_of(coupling, use)
    rank = len(coupling.facts.shapes[layer.output])
    trailing = 0 if layer.kind == "matmul" else rank - 2
    if array.ndim > rank or array.size != channels or array.ndim <= trailing or array.shape[-1 - trailing] != channels:
        return None
    return np.asarray(array.reshape(channels), dtype=np.float64)
