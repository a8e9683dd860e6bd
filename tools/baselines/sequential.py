"""Exact refit in graph order, from the pruned network's inputs to each layer's own output in the original.

The closed-loop form of the block OBS solution (OSSCAR, ICML 2024; also Luo et al. and He et al., ICCV 2017):
plain damped least squares per pruned layer, no holdout, no shortcut in the target, no refit of uncut layers.
"""

from __future__ import annotations

import numpy as np

from baselines.compensate import damped, kept_inputs
from baselines.workbench import Workbench
from onnxprune.calibration.moments import batch_size, row_picks
from onnxprune.calibration.row_rule import FIT
from onnxprune.engine.segment import Runner
from onnxprune.engine.store import Store
from onnxprune.graph.uses import Use
from onnxprune.graph.view import view
from onnxprune.linear.form import Layer, from_normal, sample_outputs, sample_rows, to_normal
from onnxprune.linear.gram import Gram
from onnxprune.surgery.cut import constant_of, cut

Array = np.ndarray
MEMORY = 3 << 30


def exact_sequential(bench: Workbench, keep: Array) -> dict[Use, Array]:
    """New weights of every layer that lost inputs."""
    work, coupling = bench.work, bench.work.coupling
    layers = [layer for layer in work.layers if layer.index in bench.grams and not _whole(bench, layer, keep)]
    taps = sorted({v for layer in layers for v in (layer.data, layer.output)})
    weights: dict[Use, Array] = {}
    if not layers:
        return weights
    with Store(MEMORY) as store:
        batches = list(work.fit.batches(batch_size(coupling, taps)))
        original = Runner(coupling.graph, coupling.facts, store, "o:", batches, work.engine)
        pruned = Runner(view(cut(coupling, keep)), coupling.facts, store, "p:", batches, work.engine)
        for layer in layers:
            original.held = {layer.output}
            original.advance(layer.index + 1)
            pruned.replaced = weights
            pruned.advance(layer.index)
            weights[layer.index, layer.weight_slot] = _fitted(bench, layer, keep, original, pruned)
    return weights


def _whole(bench: Workbench, layer: Layer, keep: Array) -> bool:
    return bool(kept_inputs(bench, layer, keep).all())


def _fitted(bench: Workbench, layer: Layer, keep: Array, original: Runner, pruned: Runner) -> Array:
    coupling = bench.work.coupling
    masks = coupling.masks(keep)
    use = (layer.index, layer.weight_slot)
    stored = constant_of(coupling, use)
    for axis in range(stored.ndim):
        stored = np.compress(masks(use, axis), stored, axis=axis)
    groups = pruned.graph.nodes[layer.index].integer("group", 1) if layer.kind != "matmul" else 1
    weight = to_normal(layer, stored, groups).astype(np.float64)
    outs = masks(layer.output, len(coupling.facts.shapes[layer.output]) - 1 if layer.kind == "matmul" else 1)
    bias = np.zeros(len(outs))
    slot = layer.bias_slot
    if slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
        bias = bias + constant_of(coupling, (layer.index, slot))
    features = weight.shape[2] * weight.shape[3]
    gram = Gram.empty(groups, features, weight.shape[1])
    for batch in range(pruned.count):
        x, y = pruned.get(layer.data, batch), original.get(layer.output, batch)
        picks, geometry = row_picks(
            coupling, layer, x, y.shape, FIT.rows(groups, features), bench.work.fit.count, bench.options.seed + batch
        )
        wanted = sample_outputs(layer, y, geometry, picks) - bias.astype(np.float32)
        gram.update(sample_rows(layer, x, geometry, picks, groups), wanted[:, outs])
    new = np.empty_like(weight)
    for g in range(groups):
        prior = weight[g].reshape(weight.shape[1], -1).T
        new[g] = damped(gram.xx[g, :-1, :-1], gram.xy[g, :-1], prior).T.reshape(weight.shape[1:])
    return from_normal(layer, new, stored)
