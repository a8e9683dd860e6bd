"""Orders of units: most worth keeping first.  One function per criterion of the literature."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from baselines.readers import Reader, normal_weight, readers, unit_moments
from baselines.workbench import Workbench
from onnxprune.coupling.groups import Group
from onnxprune.selection.base import Ranking
from onnxprune.selection.baselines import magnitude as by_magnitude
from onnxprune.selection.qr import select as by_contribution
from onnxprune.selection.qr import square_root

Array = np.ndarray
#: Dampening of the layer-wise Hessian, as a share of its mean diagonal (the value of OBC, GPTQ and ZipLM).
DAMP = 1e-2


def contribution_qr(bench: Workbench) -> tuple[Ranking, ...]:
    """CHaPR (arXiv 1908.03266): pivoted QR on channel contributions."""
    return tuple(by_contribution(found, 0) for found in bench.evidence)


def magnitude(bench: Workbench) -> tuple[Ranking, ...]:
    """Largest L2 norm of the weights that a unit owns."""
    return tuple(by_magnitude(found, 0) for found in bench.evidence)


def wanda(bench: Workbench) -> tuple[Ranking, ...]:
    """‖w_c‖·‖x_c‖ (Sun et al., ICLR 2024) summed over readers, each scaled by its output's energy."""
    return tuple(_by_wanda(bench, group) for group in bench.work.coupling.groups)


def activation_qr(bench: Workbench) -> tuple[Ranking, ...]:
    """Pivoted QR on activations, the selection of the interpolative decomposition (Chee et al., NeurIPS 2022)."""
    return tuple(_by_activation(bench, group) for group in bench.work.coupling.groups)


def block_obs(bench: Workbench) -> tuple[Ranking, ...]:
    """Structured optimal brain surgeon (ZipLM, NeurIPS 2023): the unit whose removal costs least leaves, the rest
    of the weights and the inverse Hessian are updated exactly, and so on.  Order of leaving, reversed."""
    return tuple(_by_elimination(bench, group) for group in bench.work.coupling.groups)


def joint_moments(bench: Workbench, found: list[Reader]) -> Array:
    """(u, u) second moments of a group's activations, over all its readers, each scaled to trace 1."""
    size = len(found[0].places)
    total = np.zeros((size, size))
    for reader in found:
        part = unit_moments(reader, normal_weight(bench.work.coupling, reader.layer).shape[3])
        total += part / max(float(np.trace(part)), 1e-30)
    return total


def _readers(bench: Workbench, group: Group) -> list[Reader]:
    return readers(bench.work.coupling, group, bench.work.layers, bench.grams)


def _ranked(order: Array, score: Array) -> Ranking:
    tail = np.concatenate([np.cumsum(score[order][::-1])[::-1], [0.0]])
    return Ranking(order, tail / max(float(tail[0]), 1e-300))


def _by_wanda(bench: Workbench, group: Group) -> Ranking:
    found = _readers(bench, group)
    if not found:
        return by_magnitude(bench.evidence[group.id], 0)
    score = np.zeros(len(group))
    for reader in found:
        weight = normal_weight(bench.work.coupling, reader.layer)
        groups, outs, channels, taps = weight.shape
        energy = np.square(weight).sum(axis=1).reshape(groups, -1)
        diagonal = np.einsum("gnn->gn", reader.moments)
        part = (energy * diagonal).sum(axis=0)
        score += part[reader.features(np.arange(len(group)), taps)].sum(axis=1) / max(float(part.sum()), 1e-30)
    return _ranked(np.argsort(-score, kind="stable"), score)


def _by_activation(bench: Workbench, group: Group) -> Ranking:
    found = _readers(bench, group)
    if not found:
        return by_magnitude(bench.evidence[group.id], 0)
    root = square_root(joint_moments(bench, found))
    triangle, pivots = scipy.linalg.qr(root, mode="r", pivoting=True, check_finite=False)
    tail = np.concatenate([np.cumsum(np.square(triangle).sum(axis=1)[::-1])[::-1], [0.0]])
    return Ranking(np.asarray(pivots), tail / max(float(tail[0]), 1e-300))


class _Surface:
    """One reader during elimination: what is left of its weight and of its inverse Hessian."""

    def __init__(self, reader: Reader, weight: Array) -> None:
        groups, outs, channels, self.taps = weight.shape
        self.reader = reader
        self.weight = weight.reshape(groups, outs, channels * self.taps).copy()
        self.inverse = np.empty_like(reader.moments)
        energy = 0.0
        for g in range(groups):
            hessian = reader.moments[g]
            energy += float(np.einsum("on,nm,om->", self.weight[g], hessian, self.weight[g], optimize=True))
            damp = DAMP * max(float(np.diagonal(hessian).mean()), 1e-30)
            self.inverse[g] = np.linalg.inv(hessian + damp * np.eye(len(hessian)))
        self.energy = max(energy, 1e-30)
        self.at = np.arange(channels * self.taps)

    def features(self, units: Array) -> Array:
        return np.asarray(self.at[self.reader.features(units, self.taps)])

    def scores(self, units: Array) -> Array:
        """Least added squared error of the output when each of ``units`` alone leaves, as a share of its energy."""
        at = self.features(units)
        total = np.zeros(len(units))
        for g in range(len(self.weight)):
            block = self.inverse[g][at[:, :, None], at[:, None, :]]
            own = self.weight[g][:, at].transpose(1, 2, 0)
            total += np.einsum("uso,uso->u", own, np.linalg.solve(block, own))
        return total / self.energy

    def remove(self, unit: int) -> None:
        gone = self.features(np.asarray([unit]))[0]
        left = np.setdiff1d(np.arange(self.inverse.shape[1]), gone)
        weight, inverse = [], []
        for w, h in zip(self.weight, self.inverse, strict=True):
            gain = np.linalg.solve(h[np.ix_(gone, gone)], h[np.ix_(gone, left)])
            weight.append(w[:, left] - w[:, gone] @ gain)
            inverse.append(h[np.ix_(left, left)] - h[np.ix_(left, gone)] @ gain)
        self.weight, self.inverse = np.stack(weight), np.stack(inverse)
        moved = np.full(len(self.at), -1)
        alive = self.at >= 0
        renumber = np.full(len(gone) + len(left), -1)
        renumber[left] = np.arange(len(left))
        moved[alive] = renumber[self.at[alive]]
        self.at = moved


def _by_elimination(bench: Workbench, group: Group) -> Ranking:
    found = _readers(bench, group)
    if not found:
        return by_magnitude(bench.evidence[group.id], 0)
    surfaces = [_Surface(reader, normal_weight(bench.work.coupling, reader.layer)) for reader in found]
    left = np.arange(len(group))
    gone: list[int] = []
    price = np.zeros(len(group))
    while len(left) > 1:
        scores = np.sum([surface.scores(left) for surface in surfaces], axis=0)
        worst = int(left[np.argmin(scores)])
        price[worst] = max(float(scores.min()), 0.0)
        for surface in surfaces:
            surface.remove(worst)
        gone.append(worst)
        left = left[left != worst]
    price[left] = np.sum([surface.scores(left) for surface in surfaces])
    return _ranked(np.asarray([*left.tolist(), *gone[::-1]]), price)
