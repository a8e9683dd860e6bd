"""Sequential refit: every linear layer, in graph order, from the pruned network's inputs to the original's outputs.

Two runners walk the original and the pruned graph side by side over all calibration batches.  At each layer whose
input differs from the original's, rows of the pruned input X and of the target Y are sampled; the new weights
minimise ‖XW − Y‖² + λ‖D(W − W₀)‖², where W₀ are the weights folded on the original inputs.  λ is the best of a few
on held-out rows; where no λ beats W₀ and the plain slice there, the better of those two stays.  Because later
layers see the refitted outputs of earlier ones, errors are corrected instead of adding up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.moments import batch_size, row_picks
from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import view
from onnxprune.linear.form import Layer, from_normal, sample_outputs, sample_rows, to_normal
from onnxprune.linear.gram import Gram, with_constant
from onnxprune.linear.solve import fold
from onnxprune.linear.threads import blas_threads
from onnxprune.progress import Progress
from onnxprune.refit.fit import Rows, fit
from onnxprune.refit.targets import Target, target_of
from onnxprune.result import Refitted
from onnxprune.runtime.segment import Runner
from onnxprune.runtime.session import Engine
from onnxprune.runtime.store import Store
from onnxprune.surgery.cut import constant_of, cut
from onnxprune.surgery.edit import Use

Array = np.ndarray
FOLD_RIDGE = 1e-3
#: One batch in this many is held out inside the fit, to choose the strength of the ridge.
HOLD_EVERY = 5
#: Per-channel scales below this share of the largest cannot be divided by.
SMALLEST_SCALE = 1e-4


@dataclass(frozen=True, eq=False)
class Refit:
    """New constants per use (pruned shapes), and what each layer's fit was worth."""

    weights: Mapping[Use, Array]
    layers: tuple[Refitted, ...]


def refit(
    coupling: Coupling,
    keep: Array,
    layers: Sequence[Layer],
    grams: Mapping[int, Gram],
    dataset: Dataset,
    engine: Engine,
    memory: int,
    seed: int,
    progress: Progress,
) -> Refit:
    """Refit every layer of the cut ``keep``.

    Cost: one pass of the original and one of the pruned model over ``dataset`` (each node runs once per batch),
    plus, per layer, rows·n² for the moments and n³/3 per strength, n = kept inputs · taps.
    """
    pruned = view(cut(coupling, keep))
    biggest = sorted({v for layer in layers for v in (layer.data, layer.output)})
    size = max(1, min(batch_size(coupling, biggest, dataset, budget=1 << 30), -(-dataset.count // 10)))
    size = min(size, dataset.batch_limit) if dataset.batch_limit else size
    with Store(memory) as store:
        batches = list(dataset.batches(size))
        whole = Runner(coupling.graph, coupling.facts, store, "o:", batches, engine)
        small = Runner(pruned, coupling.facts, store, "p:", batches, engine)
        del batches
        work = _Work(coupling, keep, grams, dataset.count, whole, small, seed)
        progress.stage("refit", len(layers))
        for layer in layers:
            work.prepare(layer)
        for layer in layers:
            work.layer(layer)
            progress.advance()
    return Refit(work.weights, tuple(work.report))


class _Work:
    def __init__(
        self,
        coupling: Coupling,
        keep: Array,
        grams: Mapping[int, Gram],
        samples: int,
        whole: Runner,
        small: Runner,
        seed: int,
    ) -> None:
        self.coupling = coupling
        self.masks = coupling.masks(keep)
        self.grams = grams
        self.samples = samples
        self.whole = whole
        self.small = small
        self.seed = seed
        self.weights: dict[Use, Array] = {}
        self.report: list[Refitted] = []
        self.targets: dict[int, Target] = {}
        self.touched: set[str] = set()

    def prepare(self, layer: Layer) -> None:
        target = target_of(self.coupling, layer, _channels(self.coupling, layer))
        self.targets[layer.index] = target
        self.whole.held.add(target.value)
        if target.other is not None:
            self.small.held.add(target.other)

    def layer(self, layer: Layer) -> None:
        target = self.targets[layer.index]
        self.whole.advance(max(target.until + 1, layer.index))
        self.small.replaced = self.weights
        self.small.advance(layer.index)
        if self.small.has(layer.data) and self.whole.has(target.value):
            self._fit(layer, target)
        later = [t for i, t in self.targets.items() if i > layer.index]
        self.whole.held = {t.value for t in later}
        self.small.held = {t.other for t in later if t.other is not None}

    def _fit(self, layer: Layer, target: Target) -> None:
        sliced = self._sliced(layer)
        groups, outs, channels, taps = sliced.shape
        out_mask = self._out_mask(layer)
        scale = target.scale[out_mask]
        usable = np.abs(scale) > SMALLEST_SCALE * max(float(np.abs(scale).max(initial=0.0)), 1e-30)
        train, test = self._rows(layer, target, groups, channels * taps, np.where(usable, scale, 1.0))
        old_bias = self._old_bias(layer, groups, outs)
        base = np.concatenate([sliced.reshape(groups, outs, -1), old_bias[:, :, None]], axis=2).transpose(0, 2, 1)
        with blas_threads(channels * taps):
            found = fit(train, test, base, self._folded(layer, base, train.constant), target.window)
        if found.before == 0.0:
            return
        self.report.append(Refitted(layer.node.label, found.before, found.after, found.accepted))
        if found.accepted:
            best = np.where(usable.reshape(groups, 1, outs), found.weights, base)
            self._store(layer, target, best, old_bias)

    def _rows(self, layer: Layer, target: Target, groups: int, features: int, scale: Array) -> tuple[Rows, Rows]:
        """Rows to fit on and rows held out, from all batches."""
        out_mask = self._out_mask(layer)
        shift = target.shift[out_mask].astype(np.float32)
        parts: tuple[list[tuple[Array, Array, Array]], ...] = ([], [])
        for batch in range(self.small.count):
            x = self.small.get(layer.data, batch)
            y = self.whole.get(target.value, batch)
            picks, geo = row_picks(self.coupling, layer, x, y.shape, features, self.samples, self.seed + batch)
            rows = sample_rows(layer, x, geo, picks, groups).reshape(-1, groups, features)
            wanted = sample_outputs(layer, y, geo, picks)[:, out_mask]
            offset = np.broadcast_to(shift, wanted.shape)
            if target.other is not None:
                offset = offset + sample_outputs(layer, self.small.get(target.other, batch), geo, picks)
            parts[batch % HOLD_EVERY == HOLD_EVERY - 1].append((rows, wanted, offset))
        light = scale.astype(np.float32)
        constant = 0.0 if layer.bias_slot is None and target.home is None else 1.0
        made = []
        for part in parts:
            if part:
                x, wanted, offset = (np.concatenate(column) for column in zip(*part, strict=True))
                made.append(Rows(x, wanted, offset, light, constant))
        return made[0], made[-1]

    def _folded(self, layer: Layer, base: Array, constant: float) -> Array:
        """W₀: all of the original weights, folded onto the kept inputs with the original's moments.

        ``constant``: see :class:`onnxprune.refit.fit.Rows`.
        """
        gram = self.grams.get(layer.index)
        use = (layer.index, layer.weight_slot)
        stored = constant_of(self.coupling, use)
        full = to_normal(layer, stored, layer.groups())
        if gram is None or full.shape[0] != base.shape[0] or full.shape[2] * full.shape[3] + 1 == base.shape[1]:
            return base
        channels = self._in_mask(layer)
        alive = np.flatnonzero(np.append(np.repeat(channels, full.shape[3]), True))
        outs = self._out_mask(layer).reshape(full.shape[0], -1)
        bias = self._full_bias(layer, full.shape[0], full.shape[1])
        found = np.empty_like(base)
        for g in range(full.shape[0]):
            flat = np.concatenate([full[g].reshape(full.shape[1], -1), bias[g][:, None]], axis=1).T
            found[g] = fold(with_constant(gram.xx[g], constant), flat[:, outs[g]].astype(np.float64), alive, FOLD_RIDGE)
        return found

    # -- masks and slices -----------------------------------------------------------------------------------

    def _out_mask(self, layer: Layer) -> Array:
        axis = -1 if layer.kind == "matmul" else 1
        rank = len(self.coupling.facts.shapes[layer.output])
        return self.masks(layer.output, axis % rank)

    def _in_mask(self, layer: Layer) -> Array:
        """Kept input channels of one group (the same in every group)."""
        axis = (0 if layer.flip else 1) if layer.kind == "matmul" else (1 if layer.kind == "conv" else 0)
        mask = self.masks((layer.index, layer.weight_slot), axis)
        return mask[: len(mask) // layer.groups()] if layer.kind == "transpose" else mask

    def _sliced(self, layer: Layer) -> Array:
        use = (layer.index, layer.weight_slot)
        array = constant_of(self.coupling, use)
        for axis in range(array.ndim):
            array = np.compress(self.masks(use, axis), array, axis=axis)
        return to_normal(layer, array, self._groups_now(layer)).astype(np.float64)

    def _groups_now(self, layer: Layer) -> int:
        attribute = self.small.graph.nodes[layer.index].integer("group", 1)
        return attribute if layer.kind != "matmul" else 1

    def _full_bias(self, layer: Layer, groups: int, outs: int) -> Array:
        slot = layer.bias_slot
        if slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
            bias = constant_of(self.coupling, (layer.index, slot)).astype(np.float64)
            return np.broadcast_to(bias, (groups * outs,)).reshape(groups, outs)
        return np.zeros((groups, outs))

    def _old_bias(self, layer: Layer, groups: int, outs: int) -> Array:
        mask = self._out_mask(layer)
        full = self._full_bias(layer, 1, len(mask))
        return np.asarray(full[0][mask].reshape(groups, outs))

    # -- where the bias goes --------------------------------------------------------------------------------

    def _has_bias(self, layer: Layer) -> bool:
        slot = layer.bias_slot
        return slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None

    def _store(self, layer: Layer, target: Target, best: Array, old_bias: Array) -> None:
        use = (layer.index, layer.weight_slot)
        stored = constant_of(self.coupling, use)
        for axis in range(stored.ndim):
            stored = np.compress(self.masks(use, axis), stored, axis=axis)
        groups, count, outs = best.shape
        taps = math.prod(stored.shape[2:]) if layer.kind != "matmul" else 1
        normal = best[:, :-1].transpose(0, 2, 1).reshape(groups, outs, (count - 1) // taps, taps)
        self.weights[use] = from_normal(layer, normal, stored)
        bias = best[:, -1].reshape(-1)
        if self._has_bias(layer) or (layer.bias_slot is not None and target.home is None):
            slot = layer.bias_slot
            assert slot is not None
            self.weights[layer.index, slot] = bias.astype(stored.dtype)
        elif target.home is not None:
            home, sign = target.home
            array = constant_of(self.coupling, home)
            for axis in range(array.ndim):
                array = np.compress(self.masks(home, axis), array, axis=axis)
            moved = array + sign * (bias - old_bias.reshape(-1)).reshape(array.shape)
            self.weights[home] = moved.astype(array.dtype)


def _channels(coupling: Coupling, layer: Layer) -> int:
    shape = coupling.facts.shapes[layer.output]
    return shape[-1] if layer.kind == "matmul" else shape[1]
