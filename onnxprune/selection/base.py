"""What every selector is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.linear.form import Layer, to_normal
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.stored import real_values
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Ranking:
    """``order``: local unit indices, most worth keeping first; ``error[k]``: relative error with k kept.

    ``error`` has len(order)+1 entries, falls from 1 (nothing kept) to 0 (all kept).
    """

    order: Array
    error: Array


@dataclass(frozen=True, eq=False)
class Reading:
    """One layer that sums over a group: its ``weight`` (g, o, n), the moments of its inputs, and where the units stand
    among these: ``features`` (u, m), m of them per unit."""

    weight: Array
    gram: SecondMoments
    features: Array


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one group: ``contributions`` (u, u) is the Gram matrix of its units' contributions to
    everything that reads them, each reader scaled by its output's energy, or its diagonal (u,) where nothing is known
    of what they share; ``magnitude`` (u,) the root of the summed squares of all weights that a unit owns;
    ``readings`` what the contributions were computed from."""

    contributions: Array
    magnitude: Array
    readings: tuple[Reading, ...] = ()

    @property
    def energies(self) -> Array:
        """(u,): each unit's contribution alone."""
        return np.diagonal(self.contributions) if self.contributions.ndim == 2 else self.contributions


Selector = Callable[[Evidence, int], Ranking]


def reading_axis(layer: Layer) -> int:
    """The axis of the stored weight that runs over input channels."""
    if layer.kind == "matmul":
        return 0 if layer.flip else 1
    return 1 if layer.kind == "conv" else 0


def readers_of(coupling: Coupling, group: Group, layers: tuple[Layer, ...]) -> list[Layer]:
    """Layers that sum over units of ``group``."""
    places = set(group.axes)
    found = []
    for layer in layers:
        if layer.kind == "transpose" and layer.groups() > 1:
            continue
        if ((layer.index, layer.weight_slot), reading_axis(layer)) in places:
            found.append(layer)
    return found


def evidence(
    coupling: Coupling, group: Group, layers: tuple[Layer, ...], grams: Mapping[int, SecondMoments]
) -> Evidence:
    """Gather what is known of ``group``.  Without any reader that has moments, magnitudes stand in."""
    size = len(group)
    first = int(group.units[0])
    total: Array | None = None
    readings: list[Reading] = []
    for layer in readers_of(coupling, group, layers):
        gram = grams.get(layer.index)
        if gram is None:
            continue
        units = coupling.units[layer.index, layer.weight_slot][reading_axis(layer)] - first
        normal = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
        groups, outs, _, taps = normal.shape
        product = units.ndim > 1
        features = np.empty((size, 0), np.int64) if product else _features(units, size, taps)
        reading = Reading(normal.reshape(groups, outs, -1), gram, features)
        contributions = channel_gram(reading, taps)
        part = _fold_product(contributions, units, size) if product else _fold(contributions, units, size)
        total = part if total is None else total + part
        if not product:
            # Units of a product share inputs: they cannot be eliminated one by one.
            readings.append(reading)
    magnitude = _magnitude(coupling, group)
    if total is not None:
        return Evidence(total, magnitude, tuple(readings))
    if not magnitude.any():
        # Nothing tells the units apart: all are worth the same.
        magnitude = np.ones(size)
    return Evidence(magnitude**2 / max(float((magnitude**2).sum()), 1e-30), magnitude)


def _features(units: Array, size: int, taps: int) -> Array:
    """(size, m): where each unit's features are, ``units`` being the unit of each input channel."""
    own = np.flatnonzero((units >= 0) & (units < size))
    # Every unit of a group stands equally often on an axis; the sort is stable, so that occurrences pair up in order.
    places = own[np.argsort(units[own], kind="stable")].reshape(size, -1)
    return np.asarray((places[:, :, None] * taps + np.arange(taps)).reshape(size, -1))


def channel_gram(reading: Reading, taps: int) -> Array:
    """Gram matrix of channel contributions z_c = w_c * x_c of one layer, (i, i), summed over its groups.

    Centred (a constant part is the bias's to carry) and scaled by the energy of the output:
    G[c, d] = Σ_tt' Cov(x_ct, x_dt') · ⟨w_ct, w_dt'⟩ / Var(y).  Exact for the sampled rows.
    """
    channels = reading.weight.shape[2] // taps
    total = np.zeros((channels, channels))
    energy = 0.0
    for g, weight in enumerate(reading.weight):
        centred = covariance(reading.gram, g)
        flat = weight.astype(np.float64)
        product = centred * (flat.T @ flat)
        energy += float(product.sum())
        total += product.reshape(channels, taps, channels, taps).sum(axis=(1, 3))
    return total / max(energy, 1e-30)


def covariance(gram: SecondMoments, group: int) -> Array:
    """Centred second moments of one group's features, (n, n)."""
    full = gram.of(group)
    mean = full[-1, :-1]
    return np.asarray(full[:-1, :-1] - np.outer(mean, mean) / max(full[-1, -1], 1.0))


def _fold(matrix: Array, units: Array, size: int) -> Array:
    """Sum rows and columns that belong to the same unit; channels of other groups (outside 0…size-1) drop out."""
    own = np.flatnonzero((units >= 0) & (units < size))
    if len(np.unique(units[own])) == len(own):
        found = np.zeros((size, size))
        found[np.ix_(units[own], units[own])] = matrix[np.ix_(own, own)]
        return found
    rows = np.zeros((size, len(own)))
    rows[units[own], np.arange(len(own))] = 1.0
    return np.asarray(rows @ matrix[np.ix_(own, own)] @ rows.T)


def _fold_product(matrix: Array, units: Array, size: int) -> Array:
    """As :func:`_fold` for an axis that is a product: ``units`` (positions, factors).  Approximate: a position counts
    for each unit that takes it away."""
    rows = np.zeros((size, len(units)))
    for column in units.T:
        own = np.flatnonzero((column >= 0) & (column < size))
        rows[column[own], own] = 1.0
    return np.asarray(rows @ matrix @ rows.T)


def _magnitude(coupling: Coupling, group: Group) -> Array:
    first, size = int(group.units[0]), len(group)
    total = np.zeros(size)
    for key, axis in group.axes:
        if not isinstance(key, tuple):
            continue
        array = real_values(coupling, key)
        if array is None or array.ndim < 2:
            continue
        squares = np.square(array).sum(axis=tuple(a for a in range(array.ndim) if a != axis))
        units = coupling.units[key][axis] - first
        own = (units >= 0) & (units < size)
        spread = squares if units.ndim == 1 else np.repeat(squares[:, None], units.shape[1], axis=1)
        np.add.at(total, units[own], spread[own])
    return np.sqrt(total)
