"""How the rest makes up for what left, layer by layer on the original's own inputs."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from baselines.rank import DAMP, joint_moments
from baselines.readers import normal_weight, readers
from baselines.workbench import Workbench
from onnxprune.graph.uses import Use
from onnxprune.linear.form import Layer, from_normal
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
#: Ridge of the reconstruction as a share of the mean diagonal: none to speak of (interpolative), GRAIL's.
INTERPOLATIVE, GRAIL = 1e-8, 1e-3


def nothing(bench: Workbench, keep: Array) -> dict[Use, Array]:
    """The plain slice."""
    return {}


def interpolative(bench: Workbench, keep: Array) -> dict[Use, Array]:
    """X ≈ X_S·T, T folded into the readers (Chee et al., NeurIPS 2022): on its pivots T = R₁₁⁻¹R₁₂."""
    return _reconstructed(bench, keep, INTERPOLATIVE)


def gram_ridge(bench: Workbench, keep: Array) -> dict[Use, Array]:
    """GRAIL (arXiv 2602.23795): X ≈ X_S·B by ridge regression on the Gram matrix, B folded into the readers."""
    return _reconstructed(bench, keep, GRAIL)


def exact(bench: Workbench, keep: Array) -> dict[Use, Array]:
    """Weights after block OBS: argmin ‖XW − X_S·W'‖² + damp·‖W_S − W'‖², solved at once per reader."""
    masks = bench.work.coupling.masks(keep)
    found: dict[Use, Array] = {}
    for layer in bench.work.layers:
        gram = bench.grams.get(layer.index)
        kept = kept_inputs(bench, layer, keep)
        if gram is None or kept.all():
            continue
        weight = normal_weight(bench.work.coupling, layer)
        groups, outs, channels, taps = weight.shape
        alive = np.flatnonzero(np.repeat(kept, taps))
        new = np.zeros_like(weight).reshape(groups, outs, -1)
        for g in range(groups):
            moments = gram.of(g)[:-1, :-1]
            flat = weight[g].reshape(outs, -1).T
            new[g][:, alive] = damped(moments[np.ix_(alive, alive)], moments[alive] @ flat, flat[alive]).T
        found[layer.index, layer.weight_slot] = sliced(bench, layer, new.reshape(weight.shape), masks)
    return found


def damped(moments: Array, products: Array, prior: Array) -> Array:
    """argmin_W ‖XW − Y‖² + damp·‖W − prior‖² from XᵀX and XᵀY, damp a share of the mean diagonal."""
    damp = DAMP * max(float(np.diagonal(moments).mean()), 1e-30)
    system = moments + damp * np.eye(len(moments))
    return np.asarray(scipy.linalg.solve(system, products + damp * prior, assume_a="pos", check_finite=False))


def kept_inputs(bench: Workbench, layer: Layer, keep: Array) -> Array:
    """Which input channels (of one convolution group) of ``layer`` stay."""
    axis = (0 if layer.flip else 1) if layer.kind == "matmul" else (1 if layer.kind == "conv" else 0)
    mask = bench.work.coupling.masks(keep)((layer.index, layer.weight_slot), axis)
    return mask[: len(mask) // layer.groups()] if layer.kind == "transpose" else mask


def sliced(bench: Workbench, layer: Layer, normal: Array, masks: object) -> Array:
    """(g, o, i, t) of the original's shape -> the stored layout, cut positions removed."""
    use = (layer.index, layer.weight_slot)
    stored = from_normal(layer, normal, constant_of(bench.work.coupling, use))
    for axis in range(stored.ndim):
        stored = np.compress(masks(use, axis), stored, axis=axis)  # type: ignore[operator]
    return np.ascontiguousarray(stored)


def _reconstructed(bench: Workbench, keep: Array, strength: float) -> dict[Use, Array]:
    coupling = bench.work.coupling
    masks = coupling.masks(keep)
    full: dict[int, Array] = {}
    touched: dict[int, Layer] = {}
    for group in coupling.groups:
        kept = np.flatnonzero(keep[group.units])
        found = readers(coupling, group, bench.work.layers, bench.grams)
        if len(kept) == len(group) or not found:
            continue
        moments = joint_moments(bench, found)
        ridge = strength * max(float(np.diagonal(moments).mean()), 1e-30) * np.eye(len(kept))
        inner = moments[np.ix_(kept, kept)] + ridge
        if strength == GRAIL:
            spread = scipy.linalg.solve(inner, moments[kept], assume_a="pos", check_finite=False)
        else:
            spread = np.linalg.lstsq(inner, moments[kept], rcond=1e-10)[0]
            spread[:, kept] = np.eye(len(kept))
        for reader in found:
            layer = reader.layer
            weight = full.setdefault(layer.index, normal_weight(coupling, layer))
            for column in reader.places.T:
                weight[:, :, column[kept]] = np.einsum("ku,gout->gokt", spread, weight[:, :, column])
            touched[layer.index] = layer
    return {(i, layer.weight_slot): sliced(bench, layer, full[i], masks) for i, layer in touched.items()}
