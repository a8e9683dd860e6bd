"""The input and output of every selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.linear.form import Layer, to_normal
from onnxprune.linear.gram import BLOCK, SecondMoments
from onnxprune.linear.stored import real_values
from onnxprune.linear.threads import blas_threads
from onnxprune.surgery.cut import constant_of

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Ranking:
    """``order``: local unit indices, most important first; ``error[k]``: relative error with k units kept.

    ``error`` has len(order)+1 entries and falls from 1 (nothing kept) to 0 (all kept).
    """

    order: Array
    error: Array


@dataclass(frozen=True, eq=False)
class Reading:
    """One layer that sums over a group's units.

    ``weight`` is (g, o, n), ``gram`` holds the moments of its n inputs, and ``features`` (u, m) lists the m inputs of
    each unit.  A channel has ``taps`` inputs.
    """

    weight: Array
    gram: SecondMoments
    features: Array
    taps: int = 1


@dataclass(frozen=True, eq=False)
class Evidence:
    """What selectors know about one group.

    ``gather`` computes the ``contributions``.
    ``magnitude`` (u,) is the L2 norm of all weights that a unit owns.
    ``readings`` are the layers that the contributions come from.
    """

    gather: Callable[[], Array]
    magnitude: Array
    readings: tuple[Reading, ...] = ()

    @cached_property
    def contributions(self) -> Array:
        """The Gram matrix of the units' contributions to all their readers, (u, u) float64.

        Each reader is scaled by the energy of its output.  Without data it is only the diagonal, (u,).
        Cost: n² numbers per reader of n inputs.  Elimination does not ask for it.
        """
        with blas_threads(len(self.magnitude)):
            return self.gather()

    @property
    def energies(self) -> Array:
        """The contribution of each unit on its own, (u,)."""
        return np.diagonal(self.contributions) if self.contributions.ndim == 2 else self.contributions


Selector = Callable[[Evidence, int], Ranking]


def readers_of(coupling: Coupling, group: Group, layers: tuple[Layer, ...]) -> list[Layer]:
    """The layers that sum over the units of ``group``."""
    places = set(group.axes)
    return [layer for layer in layers if layer.sums_over in places]


def evidence(
    coupling: Coupling, group: Group, layers: tuple[Layer, ...], grams: Mapping[int, SecondMoments]
) -> Evidence:
    """Gather the evidence on ``group``.  If no reader has moments, weight magnitudes stand in for contributions."""
    known = [
        _Known(units_of(coupling, group, layer), _reading(coupling, group, layer, gram))
        for layer in readers_of(coupling, group, layers)
        if (gram := grams.get(layer.index)) is not None
    ]
    magnitude = _magnitude(coupling, group)
    if known:
        # Units of a product share inputs: they cannot be eliminated one by one.
        readings = tuple(one.reading for one in known if one.units.ndim == 1)
        return Evidence(partial(_contributions, known, len(group)), magnitude, readings)
    if not magnitude.any():
        # Nothing distinguishes the units, so all count the same.
        magnitude = np.ones(len(group))
    energies = magnitude**2 / max(float((magnitude**2).sum()), 1e-30)
    return Evidence(lambda: energies, magnitude)


@dataclass(frozen=True, eq=False)
class _Known:
    """A reader with moments.  ``units``: see :func:`units_of`."""

    units: Array
    reading: Reading


def units_of(coupling: Coupling, group: Group, layer: Layer) -> Array:
    """The local unit of each input channel of ``layer``; outside 0…size-1 for channels of other groups.

    (channels,), or (channels, factors) if the axis is a product.
    """
    return coupling.units[layer.index, layer.weight_slot][layer.reading_axis] - int(group.units[0])


def _reading(coupling: Coupling, group: Group, layer: Layer, gram: SecondMoments) -> Reading:
    normal = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
    groups, outs, _, taps = normal.shape
    units, size = units_of(coupling, group, layer), len(group)
    features = np.empty((size, 0), np.int64) if units.ndim > 1 else _features(units, size, taps)
    return Reading(normal.reshape(groups, outs, -1), gram, features, taps)


def _contributions(known: Sequence[_Known], size: int) -> Array:
    total = np.zeros((size, size))
    for one in known:
        part = channel_gram(one.reading)
        total += _fold_product(part, one.units, size) if one.units.ndim > 1 else _fold(part, one.units, size)
    return total


def _features(units: Array, size: int, taps: int) -> Array:
    """The features of each unit, (size, m).  ``units`` gives the unit of each input channel."""
    own = np.flatnonzero((units >= 0) & (units < size))
    # Every unit occurs equally often on an axis.  The sort is stable, so the occurrences pair up in order.
    places = own[np.argsort(units[own], kind="stable")].reshape(size, -1)
    return np.asarray((places[:, :, None] * taps + np.arange(taps)).reshape(size, -1))


def channel_gram(reading: Reading) -> Array:
    """Gram matrix of the channel contributions z_c = w_c * x_c of one layer, (i, i), summed over its groups.

    It is centred, because the bias can carry a constant part, and scaled by the energy of the output:
    G[c, d] = Σ_tt' Cov(x_ct, x_dt') · ⟨w_ct, w_dt'⟩ / Var(y).  It is exact for the sampled rows.
    """
    taps = reading.taps
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
    """The centred second moments of one group's features, (n, n) float64: a new array."""
    full = gram.of(group)
    mean, rows = full[-1, :-1], max(full[-1, -1], 1.0)
    centred = np.empty((len(mean), len(mean)))
    # In blocks: for thousands of features each further array of this size takes 100 MB.
    for start in range(0, len(mean), BLOCK):
        part = slice(start, min(start + BLOCK, len(mean)))
        centred[part] = full[part, :-1] - mean[part, None] * mean / rows
    return centred


def _fold(matrix: Array, units: Array, size: int) -> Array:
    """Sum the rows and columns of each unit, and drop the channels of other groups (units outside 0…size-1)."""
    own = np.flatnonzero((units >= 0) & (units < size))
    if len(np.unique(units[own])) == len(own):
        folded = np.zeros((size, size))
        folded[np.ix_(units[own], units[own])] = matrix[np.ix_(own, own)]
        return folded
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
