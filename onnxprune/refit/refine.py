"""Refining a hidden layer against what its reader still misses.

Fitting each layer to the original's activations asks too much of a hidden layer: nothing sees its output but its
reader, so any output will do that serves the reader's target.  With r the reader's residual, the hidden layer's
weights take Gauss-Newton steps with Kronecker-factored curvature (K-FAC, Martens and Grosse, arXiv 1503.05671):

    ΔW = (XᵀX + λD²)⁻¹ · Xᵀδ · (H + μI)⁻¹,    δ = (adjoint of the reader) r ∘ σ',    H = E[σ'σ'ᵀ] ∘ Σ_t w_tᵀw_t

The derivative σ' of the elementwise operators between the two layers is taken by central differences, which needs
no rule per operator.  The length of each step is searched on held-out samples, so a step never makes those worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.linear.gram import Gram, with_constant
from onnxprune.linear.solve import Ridges
from onnxprune.linear.threads import blas_threads
from onnxprune.runtime.free import FreeLayer

Array = np.ndarray
STEPS = 3
#: Relative gain on the held-out samples below which steps stop; ridge of the inputs', damping of the outputs' moments.
LEAST_GAIN, RIDGE, DAMPING = 1e-3, 1e-1, 3e-2
LONGEST, SHORTEST = 2.0, 0.1
#: Rows that the output curvature is estimated from, per batch.
CURVATURE_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Maps:
    """Whole activations of one batch: ``x`` enters the hidden layer; ``wanted`` and ``offset`` as in
    :class:`onnxprune.refit.fit.Rows`, in the shape of the reader's output; ``rows`` (r, g, i, t) float32 are sampled
    from ``x``, and ``pick`` takes the same positions, (r, channels), from an output of the hidden layer."""

    x: Array
    wanted: Array
    offset: Array
    rows: Array
    pick: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Part:
    """One of the two layers: its node with free weights, its weights (g, n+1, o), how these are stored, and the axis
    of its channels in its output."""

    free: FreeLayer
    weights: Array
    stored: Callable[[Array], tuple[Array, Array]]
    axis: int

    def forward(self, x: Array, weights: Array) -> Array:
        return self.free.forward(x, *self.stored(weights))

    def per_channel(self, values: Array, rank: int) -> Array:
        """(channels,) in the shape that broadcasts against the layer's output."""
        shape = [1] * rank
        shape[self.axis] = len(values)
        return values.reshape(shape)


def refine(
    hidden: Part,
    chain: Callable[[Array], Array],
    reader: Part,
    scale: Array,
    window: tuple[float, float],
    constant: float,
    train: Sequence[Maps],
    test: Sequence[Maps],
) -> Array | None:
    """Better weights (g, n+1, o) for ``hidden``; ``None`` where no step helps.

    ``scale`` (reader's channels,), ``window`` and ``constant``: see :class:`onnxprune.refit.fit.Rows`.
    Cost per step: about three passes of both layers over ``train``, and as many trials over ``test`` as the search
    needs; one factorization in all.
    """
    weights = hidden.weights
    groups, _, outs = weights.shape
    gram = Gram.empty(groups, weights.shape[1] - 1, outs)
    for maps in train:
        gram.update(maps.rows, None)
    with blas_threads(weights.shape[1]):
        factors = Ridges(with_constant(gram.xx, constant), RIDGE)
    length, improved = 1.0, False
    before = [hidden.forward(maps.x, weights) for maps in test]
    now = _loss(before, chain, reader, scale, window, test)
    for _ in range(STEPS):
        step = _step(hidden, weights, chain, reader, scale, window, constant, train, factors)
        change = [hidden.forward(maps.x, step) for maps in test]

        def at(alpha: float, before: Sequence[Array] = before, change: Sequence[Array] = change) -> float:
            moved = [b + np.float32(alpha) * c for b, c in zip(before, change, strict=True)]
            return _loss(moved, chain, reader, scale, window, test)

        length, best = _search(at, length)
        if not best < now * (1 - LEAST_GAIN):
            break
        weights, now, improved = weights + length * step, best, True
        before = [b + np.float32(length) * c for b, c in zip(before, change, strict=True)]
    return weights if improved else None


def _loss(
    outputs: Sequence[Array],
    chain: Callable[[Array], Array],
    reader: Part,
    scale: Array,
    window: tuple[float, float],
    data: Sequence[Maps],
) -> float:
    """Sum of squared residuals of the reader, given the hidden layer's outputs."""
    total = 0.0
    for output, maps in zip(outputs, data, strict=True):
        got = reader.forward(chain(output), reader.weights)
        total += float(np.square(_residual(got, reader, scale, window, maps), dtype=np.float64).sum())
    return total


def _residual(got: Array, reader: Part, scale: Array, window: tuple[float, float], maps: Maps) -> Array:
    reached = got * reader.per_channel(scale, got.ndim) + maps.offset
    return np.asarray(np.clip(maps.wanted, *window) - np.clip(reached, *window), dtype=np.float32)


def _step(
    hidden: Part,
    weights: Array,
    chain: Callable[[Array], Array],
    reader: Part,
    scale: Array,
    window: tuple[float, float],
    constant: float,
    train: Sequence[Maps],
    factors: Ridges,
) -> Array:
    """The K-FAC step, (g, n+1, o)."""
    groups, _, outs = weights.shape
    gradient = np.zeros(weights.shape)
    slopes = np.zeros((groups * outs, groups * outs))
    rows = 0
    kernel = reader.stored(reader.weights)[0]
    for maps in train:
        output = hidden.forward(maps.x, weights)
        inner = chain(output)
        missed = _residual(reader.forward(inner, reader.weights), reader, scale, window, maps)
        back = reader.free.transposed(missed * reader.per_channel(scale, missed.ndim), kernel, inner.shape)
        reach = np.float32(1e-3 * max(float(output.std()), 1e-6))
        slope = (chain(output + reach) - chain(output - reach)) / (2 * reach)
        delta = maps.pick(back * slope).reshape(-1, groups, outs).transpose(1, 0, 2)
        x = maps.rows.reshape(len(maps.rows), groups, -1).transpose(1, 2, 0)
        gradient[:, :-1] += np.matmul(x, delta)
        gradient[:, -1] += constant * delta.sum(axis=1, dtype=np.float64)
        flat = np.moveaxis(slope, hidden.axis, -1).reshape(-1, groups * outs)
        flat = flat[:: max(1, len(flat) // CURVATURE_ROWS)].astype(np.float64)
        slopes += flat.T @ flat
        rows += len(flat)
    curvature = slopes / max(rows, 1) * _energy(reader, scale)
    step = np.empty_like(gradient)
    with blas_threads(weights.shape[1]):
        solved = factors.solve(gradient, np.zeros_like(gradient))
        for g in range(groups):
            own = slice(g * outs, (g + 1) * outs)
            block = curvature[own, own]
            block = block + (DAMPING * np.trace(block) / outs + 1e-12) * np.eye(outs)
            step[g] = np.linalg.solve(block, solved[g].T).T
    return step


def _energy(reader: Part, scale: Array) -> Array:
    """Σ_o,t w[o, i, t]·w[o, j, t] of the reader's scaled weights, (channels, channels); zero across its groups."""
    groups, count, outs = reader.weights.shape
    scaled = reader.weights[:, :-1] * scale.reshape(groups, 1, outs)
    channels = reader.free.channels(reader.stored(reader.weights)[0])
    total = np.zeros((groups * channels, groups * channels))
    for g in range(groups):
        own = slice(g * channels, (g + 1) * channels)
        flat = scaled[g].reshape(channels, -1)
        total[own, own] = flat @ flat.T
    return total


def _search(at: Callable[[float], float], start: float) -> tuple[float, float]:
    """(length, value) of a low point of ``at`` by doubling or halving from ``start``."""
    length, best = start, at(start)
    for factor in (2.0, 0.5):
        moved = False
        while SHORTEST <= length * factor <= LONGEST:
            value = at(length * factor)
            if not value < best:
                break
            length, best, moved = length * factor, value, True
        if moved:
            break
    return length, best
