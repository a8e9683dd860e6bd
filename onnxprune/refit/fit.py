"""Fits one layer to its target: ridge regression, then regression on the differences that readers can see.

If every reader of the target clips it (a Relu), any negative number may stand for a negative target.  So a target
outside the window is replaced by the prediction, clipped to the window's edge on that side.  The regression is then
repeated with the same factored system.  This is expectation-maximisation for a censored (Tobit-like) least-squares
problem.  Each round lowers the clipped error on its rows.  Rounds stop when the held-out rows no longer gain.  The
better of the plain slice and the folded weights makes the first prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from onnxprune.linear.gram import CHUNK, Gram, cross, with_constant
from onnxprune.linear.system import Moments, Solver, System, few, system_of
from onnxprune.refit.window import Window, is_finite

Array = np.ndarray
#: Ridge strengths to try, and the index of the first one tried.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
START = 2
#: Maximum rounds of refinement.  They stop earlier below this relative gain on held-out rows.
ROUNDS, MIN_GAIN = 6, 5e-3
#: Below this relative squared error a layer needs no fit: no cut changed its inputs.
EXACT = 1e-10
#: Stands for an infinite edge of a window, float32: products with infinity would give NaN.
FAR = np.float32(1e30)


#: Rows of one part, float32: ``x`` (r, g, n); ``wanted`` (r, g·o), the target activation; ``offset``, added to
#: ``scale``·output before the two are compared: (r, g·o), or (g·o,) if it is the same for all rows.
Part = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Rows:
    """Sampled rows of one layer, in ``parts``.

    ``scale`` (g·o,).  ``constant``: the value of the constant feature.  It is 0 if the layer has no place for a bias; then
    the prior's bias stays.
    """

    parts: Sequence[Part]
    scale: Array
    constant: float = 1.0

    @property
    def groups(self) -> int:
        return int(self.parts[0][0].shape[1])

    @property
    def count(self) -> int:
        return sum(len(x) for x, _, _ in self.parts)

    def chunks(self) -> Iterator[Part]:
        for x, wanted, offset in self.parts:
            for start in range(0, len(x), CHUNK):
                part = slice(start, start + CHUNK)
                yield x[part], wanted[part], offset[part] if offset.ndim > 1 else offset

    def gram(self) -> Gram:
        """Moments of the rows and of the outputs that the layer should give."""
        x, wanted, _ = self.parts[0]
        found = Gram.empty(x.shape[1], x.shape[2], wanted.shape[1] // x.shape[1])
        for x, wanted, offset in self.chunks():
            found.update(x[:, :, :, None], (wanted - offset) / self.scale)
        found.xx = with_constant(found.xx, self.constant)
        found.xy[:, -1] *= self.constant
        return found

    def inputs(self) -> System:
        """The normal equations of the rows alone."""
        return system_of([x for x, _, _ in self.parts], self.constant)

    def few(self) -> bool:
        return few(self.count, self.groups, self.parts[0][0].shape[2])


@dataclass(frozen=True, eq=False)
class Fit:
    """``weights`` (g, n+1, o).  ``before``, ``after``: relative error on held-out rows of the plain slice and of ``weights``.

    ``strengths``: the ridge strengths worth trying if the layer is fitted again to similar rows.
    """

    weights: Array
    before: float
    after: float
    accepted: bool
    strengths: tuple[float, ...] = STRENGTHS


def predict(x: Array, weights: Array) -> Array:
    """(r, g, n) rows through (g, n+1, o) weights: (r, g·o), float32."""
    light = weights.astype(np.float32)
    if len(light) > 1 and light.shape[2] == 1:
        # Depthwise: one sum is faster than thousands of tiny products.
        return np.asarray(np.einsum("rgn,gn->rg", x, light[:, :-1, 0]) + light[:, -1, 0])
    out = np.matmul(x.transpose(1, 0, 2), light[:, :-1])
    out += light[:, -1:]
    return np.ascontiguousarray(out.transpose(1, 0, 2).reshape(len(x), -1))


def loss(rows: Rows, weights: Array, window: Window) -> float:
    """Sum of squared errors after clipping to ``window``."""
    error = 0.0
    for x, wanted, offset in rows.chunks():
        got = _activations(rows, x, weights, offset)
        np.clip(got, *window, out=got)
        got -= np.clip(wanted, *window)
        error += _squares(got)
    return error


def _energy(rows: Rows, window: Window) -> float:
    """Sum of squares of the targets after clipping to ``window``."""
    return sum(_squares(np.clip(wanted, *window)) for _, wanted, _ in rows.chunks())


def _squares(array: Array) -> float:
    # Summed by pairs, in float32: exact enough, and the same for any number of threads.
    return float(np.square(array).sum())


def _activations(rows: Rows, x: Array, weights: Array, offset: Array) -> Array:
    got = predict(x, weights)
    got *= rows.scale
    got += offset
    return got


@dataclass(frozen=True, eq=False)
class _Trial:
    """``weights`` and their ``loss`` on held-out rows.  ``factor`` solved them, at ridge ``strength``; ``None`` if no
    regression did."""

    weights: Array
    loss: float
    strength: float = 0.0
    factor: Solver | None = None


def fit(
    train: Rows,
    test: Rows,
    base: Array,
    prior: Array,
    window: Window,
    strengths: tuple[float, ...] = STRENGTHS,
) -> Fit:
    """Weights for the layer: the best on ``test`` of ``base``, ``prior``, and regressions toward ``prior``.

    ``base``/``prior`` (g, n+1, o) float64; ``strengths`` of the ridge, ascending.  Cost: see
    :class:`onnxprune.linear.solve.Ridges`, once per strength, plus two products of the rows with the weights per round.
    """
    first, energy = loss(test, base, window), max(_energy(test, window), 1e-30)
    if first <= EXACT * energy:
        return Fit(base, 0.0, 0.0, False)
    before = float(np.sqrt(first / energy))
    start = min((_Trial(w, loss(test, w, window)) for w in (base, prior)), key=lambda trial: trial.loss)
    clipped = is_finite(window)
    # If targets are clipped, plain regression also fits differences that no reader sees, and may be worse than no fit.
    system, right = _system(train, start.weights, window)
    best = _best_strength(system, right, prior, start, lambda weights: loss(test, weights, window), strengths)
    if best.factor is None:
        return Fit(best.weights, before, float(np.sqrt(best.loss / energy)), best.weights is not base)
    if clipped:
        best, right = _censored(train, test, best, best.factor, prior, window)
    final = _final(train, test, system, right, best, prior, window)
    return Fit(final, before, float(np.sqrt(best.loss / energy)), True, (best.strength,))


def _best_strength(
    system: System,
    right: Array,
    prior: Array,
    start: _Trial,
    held_out_loss: Callable[[Array], float],
    strengths: tuple[float, ...],
) -> _Trial:
    """The best of ``start`` and the regressions.  Tries the usual strength, then stronger ones while they help, else weaker."""
    best = start

    def improves(strength: float) -> bool:
        nonlocal best
        factor = system.ridges(strength)
        weights = factor.solve(right, prior)
        trial = _Trial(weights, held_out_loss(weights), strength, factor)
        better = trial.loss < best.loss
        best = trial if better else best
        return better

    usual = min(START, len(strengths) - 1)
    improves(strengths[usual])
    for side in (strengths[usual + 1 :], strengths[:usual][::-1]):
        if list(takewhile(improves, side)):
            break
    return best


def _censored(
    train: Rows, test: Rows, start: _Trial, factor: Solver, prior: Array, window: Window
) -> tuple[_Trial, Array]:
    """Repeat the regression, with predictions for targets outside the window, while held-out rows gain.

    Returns the best trial, and the right-hand side of ``train`` for its predictions.
    """
    best = start
    right = _refined(train, best.weights, window)
    for _ in range(ROUNDS):
        weights = factor.solve(right, prior)
        error = loss(test, weights, window)
        if error > best.loss * (1 - MIN_GAIN):
            break
        best = replace(best, weights=weights, loss=error)
        right = _refined(train, weights, window)
    return best, right


def fit_bias(train: Rows, test: Rows, base: Array, start: Array, window: Window) -> Fit:
    """``start`` with the better of two biases: its own, or the one that matches the mean target of ``train``.

    ``base``, ``start``: (g, n+1, o) float64.  The matrix of ``start`` stays as it is.
    """
    first, scale = loss(test, base, window), max(_energy(test, window), 1e-30)
    best, best_loss = start, loss(test, start, window)
    if train.constant and train.count:
        missing = np.zeros(len(train.scale))
        for x, wanted, offset in train.chunks():
            missing += ((wanted - offset) / train.scale - predict(x, start)).sum(axis=0, dtype=np.float64)
        moved = start.copy()
        moved[:, -1] += (missing / train.count).reshape(len(start), -1)
        error = loss(test, moved, window)
        if error < best_loss:
            best, best_loss = moved, error
    if first <= EXACT * scale and best is start:
        return Fit(start, 0.0, 0.0, False)
    return Fit(best, float(np.sqrt(first / scale)), float(np.sqrt(best_loss / scale)), True)


def _final(train: Rows, test: Rows, system: System, right: Array, best: _Trial, prior: Array, window: Window) -> Array:
    """The chosen fit, solved again on all rows.  ``system``, ``right``: the normal equations of ``train``."""
    if test is train:
        return best.weights
    more, beside = _system(test, best.weights, window)
    return system.plus(more).ridges(best.strength).solve(right + beside, prior)


def _system(rows: Rows, weights: Array, window: Window) -> tuple[System, Array]:
    """The system of XᵀX, and XᵀY.  The prediction of ``weights`` replaces targets outside the window."""
    if is_finite(window) or rows.few():
        return rows.inputs(), _refined(rows, weights, window)
    both = rows.gram()
    return Moments(both.xx), both.xy


def _refined(rows: Rows, weights: Array, window: Window) -> Array:
    """XᵀY, (g, n+1, o).  Predictions replace targets outside the window, but never reach inside it."""
    groups = rows.groups
    total = np.zeros_like(weights)
    for x, wanted, offset in rows.chunks():
        step = (_beyond(wanted, _activations(rows, x, weights, offset), window) - offset) / rows.scale
        total[:, :-1] += cross(x, step)
        # Rows first: a sum along an inner axis is many times slower.
        total[:, -1] += rows.constant * np.asarray(step.sum(axis=0), dtype=np.float64).reshape(groups, -1)
    return total


def _beyond(wanted: Array, got: Array, window: Window) -> Array:
    """``wanted``; but ``got`` if both lie beyond the same edge of the window, and the edge if only ``wanted`` does.

    Computed by products with masks, exact to rounding: a choice per number is several times slower.
    """
    low, high = window
    goal = wanted
    if np.isfinite(low).any():
        edge = np.maximum(low, -FAR)
        change = np.minimum(got, edge)
        change -= wanted
        change *= wanted <= edge
        goal = goal + change
    if np.isfinite(high).any():
        edge = np.minimum(high, FAR)
        change = np.maximum(got, edge)
        change -= wanted
        change *= wanted >= edge
        goal = goal + change
    return np.asarray(goal)
