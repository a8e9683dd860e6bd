"""One layer to refit: the cut layer, and its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.site import Masks
from onnxprune.graph.view import Graph
from onnxprune.linear.form import Layer
from onnxprune.refit.cut_layer import CutLayer
from onnxprune.refit.targets import Target, target_of
from onnxprune.refit.window import Window

Array = np.ndarray
#: A per-channel scale below this share of the largest is too small to divide by.
SMALLEST_SCALE = 1e-4


@dataclass(frozen=True, eq=False)
class LayerJob:
    """A cut layer and its target.

    ``places``: (axis, kept positions) of every other output axis that loses positions (a batch axis that holds heads,
    say).
    """

    part: CutLayer
    target: Target
    places: tuple[tuple[int, Array], ...]

    @property
    def layer(self) -> Layer:
        return self.part.layer

    @property
    def index(self) -> int:
        return self.part.layer.index

    @property
    def axis(self) -> int:
        """The channel axis of the output."""
        return self.layer.channel_axis

    @property
    def constant(self) -> float:
        """The value of the constant feature: 1 if the layer can take a bias, else 0."""
        return 0.0 if self.layer.bias_slot is None and self.target.home is None else 1.0

    @property
    def window(self) -> Window:
        """The window of the target, for the kept channels."""
        return self.part.seen(self.target.window)

    @cached_property
    def usable(self) -> Array:
        """Boolean per kept output channel: its scale is large enough to divide by."""
        scale = np.abs(self.target.scale[self.part.kept_outputs])
        return np.asarray(scale > SMALLEST_SCALE * max(float(scale.max(initial=0.0)), 1e-30))

    @property
    def scale(self) -> Array:
        """The target's scale per kept output channel; 1 where it is not usable."""
        return np.where(self.usable, self.target.scale[self.part.kept_outputs], 1.0)

    @property
    def shift(self) -> Array:
        """The target's shift per kept output channel, float32."""
        return np.asarray(self.target.shift[self.part.kept_outputs].astype(np.float32))

    def where_usable(self, weights: Array, otherwise: Array) -> Array:
        """``weights`` (g, n+1, o) for usable channels, ``otherwise`` for the rest."""
        return np.where(self.usable.reshape(self.part.groups, 1, -1), weights, otherwise)

    def still_there(self, activation: Array) -> Array:
        """An ``activation`` of the original, cut to the places that the pruned model still has."""
        for axis, kept in self.places:
            activation = np.compress(kept, activation, axis=axis)
        return activation


def jobs_of(coupling: Coupling, keep: Array, layers: Sequence[Layer], pruned: Graph) -> dict[int, LayerJob]:
    """One job per layer, by node index, in graph order.  ``pruned`` is the graph cut by ``keep``."""
    masks = coupling.masks(keep)

    def job(layer: Layer) -> LayerJob:
        groups = pruned.nodes[layer.index].integer("group", 1) if layer.kind != "matmul" else 1
        channels = coupling.facts.shapes[layer.output][layer.channel_axis]
        part = CutLayer(coupling, masks, layer, groups)
        return LayerJob(part, target_of(coupling, layer, channels), _places(coupling, masks, layer))

    return {layer.index: job(layer) for layer in layers}


def _places(coupling: Coupling, masks: Masks, layer: Layer) -> tuple[tuple[int, Array], ...]:
    rank = len(coupling.facts.shapes[layer.output])
    masked = [(axis, masks(layer.output, axis)) for axis in range(rank) if axis != layer.channel_axis % rank]
    return tuple((axis, kept) for axis, kept in masked if not kept.all())
