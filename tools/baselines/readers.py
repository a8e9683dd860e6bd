"""Where the units of a group stand in the weights that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.graph.uses import Use
from onnxprune.linear.form import Layer, to_normal
from onnxprune.linear.gram import SecondMoments
from onnxprune.selection.base import readers_of
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Reader:
    """``places`` (u, m): the positions of each unit on the input axis of the layer's weight (one per unit of a
    convolution, several behind a Flatten).  ``moments`` (g, n, n): XᵀX of the layer's input rows, uncentred."""

    layer: Layer
    places: Array
    moments: Array

    @property
    def use(self) -> Use:
        return self.layer.index, self.layer.weight_slot

    def features(self, units: Array, taps: int) -> Array:
        """Feature numbers of ``units``: (len(units), m·taps)."""
        own = self.places[units]
        return (own[:, :, None] * taps + np.arange(taps)).reshape(len(own), -1)


def readers(
    coupling: Coupling, group: Group, layers: Sequence[Layer], grams: Mapping[int, SecondMoments]
) -> list[Reader]:
    """The layers that sum over ``group`` and have moments."""
    found = []
    first, size = int(group.units[0]), len(group)
    for layer in readers_of(coupling, group, tuple(layers)):
        gram = grams.get(layer.index)
        if gram is None:
            continue
        units = coupling.units[layer.index, layer.weight_slot][layer.reading_axis] - first
        own = np.flatnonzero((units >= 0) & (units < size))
        # Units of one group stand equally often on an axis; the sort is stable, so occurrences pair up in order.
        places = own[np.argsort(units[own], kind="stable")].reshape(size, -1)
        moments = np.stack([gram.of(g)[:-1, :-1] for g in range(layer.groups())])
        found.append(Reader(layer, places, moments))
    return found


def normal_weight(coupling: Coupling, layer: Layer) -> Array:
    """The layer's weight in the original: (g, o, i, t) float64."""
    stored = constant_of(coupling, (layer.index, layer.weight_slot))
    return to_normal(layer, stored, layer.groups()).astype(np.float64)


def unit_moments(reader: Reader, taps: int) -> Array:
    """(u, u): Σ over occurrences, taps and rows of x_u·x_v."""
    size = len(reader.places)
    total = np.zeros((size, size))
    for column in reader.places.T:
        for tap in range(taps):
            at = column * taps + tap
            total += reader.moments[:, at[:, None], at].sum(axis=0)
    return total
