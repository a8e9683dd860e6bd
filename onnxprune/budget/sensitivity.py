"""What cutting one group does to the model's output: measured at a few widths, interpolated between.

For each group the original is run on the holdout with only that group narrowed: the cut channels' weights in all
readers are zero, and what remains is folded by least squares from the calibration moments.  Between the measured
widths the damage follows the selector's error curve on a log-log scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.budget.allocate import Curve
from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.linear.form import Layer, from_normal, to_normal
from onnxprune.linear.gram import Gram, with_constant
from onnxprune.linear.solve import fold
from onnxprune.linear.threads import blas_threads
from onnxprune.metrics import damage
from onnxprune.progress import Progress
from onnxprune.runtime.outputs import outputs_of
from onnxprune.runtime.session import Engine, open_session
from onnxprune.selection.base import Ranking, readers_of, reading_axis
from onnxprune.surgery.cut import constant_of
from onnxprune.surgery.edit import Editor, Use

Array = np.ndarray
#: Shares of a group's units at which the damage is measured.
SHARES = (0.875, 0.75, 0.5, 0.25)
#: Least and largest relative error that the interpolation distinguishes.
TINY = 1e-9
RIDGE = 1e-3
#: Damage done late counts more than damage done early, by exp(LATE) from the first group to the last: the refit of
#: every later layer still corrects what an early cut did, and nothing comes after the last.
LATE = 1.5


def folded_weights(
    coupling: Coupling, group: Group, kept: Array, layers: Sequence[Layer], grams: Mapping[int, Gram]
) -> dict[Use, Array]:
    """Full-shape weights of the group's readers: zero for cut units, the rest refitted on original inputs.

    ``kept``: boolean per local unit.
    """
    found: dict[Use, Array] = {}
    first = int(group.units[0])
    for layer in readers_of(coupling, group, tuple(layers)):
        use = (layer.index, layer.weight_slot)
        units = coupling.units[use][reading_axis(layer)] - first
        mine = (units >= 0) & (units < len(group))
        gone = np.zeros(len(units), dtype=np.bool_)
        gone[mine] = ~kept[units[mine]]
        stored = constant_of(coupling, use)
        weight = to_normal(layer, stored, layer.groups()).astype(np.float64)
        groups, outs, channels, taps = weight.shape
        gram = grams.get(layer.index)
        new = weight.copy()
        new[:, :, gone] = 0
        if gram is not None:
            alive = np.flatnonzero(np.repeat(~gone, taps))
            for g in range(groups):
                flat = np.concatenate([weight[g].reshape(outs, -1), np.zeros((outs, 1))], axis=1).T
                with_one = np.append(alive, channels * taps)
                # What has no bias cannot be given the constant that would be fitted for it.
                moments = with_constant(gram.xx[g], 0.0 if layer.bias_slot is None else 1.0)
                with blas_threads(len(with_one)):
                    solved = fold(moments, flat, with_one, RIDGE)
                block = np.zeros((channels * taps, outs))
                block[alive] = solved[:-1]
                new[g] = block.T.reshape(outs, channels, taps)
                found[_bias_use(layer)] = _add(found.get(_bias_use(layer)), solved[-1], g, groups)
        found[use] = from_normal(layer, new, stored)
    return found


def _bias_use(layer: Layer) -> Use:
    return (layer.index, -1)


def _add(known: Array | None, part: Array, group: int, groups: int) -> Array:
    if known is None:
        known = np.zeros((groups, len(part)))
    known[group] = part
    return known


class Probe:
    """The original model with every layer's weight replaceable, run on the holdout."""

    def __init__(self, coupling: Coupling, layers: Sequence[Layer], dataset: Dataset, engine: Engine) -> None:
        self.coupling = coupling
        self.dataset = dataset
        self.engine = engine
        self.layers = {layer.index: layer for layer in layers}
        self._model, self.names = _lift(coupling, layers)
        self._tensors = {t.name: t for t in self._model.graph.initializer}
        self._outputs = list(coupling.graph.outputs)
        self.reference = outputs_of(open_session(self._model, engine), dataset, self._outputs)

    def damage(self, weights: Mapping[Use, Array]) -> float:
        # onnxruntime fuses BatchNormalization into the weights stored in the file, so overriding them at load time
        # would have no effect: the stored bytes are exchanged, and put back.
        before: dict[str, bytes] = {}
        for use, array in weights.items():
            name = self.names.get(use)
            if name is None:
                continue
            if use[1] == -1:
                base = self._bias(use)
                array = (base + array.ravel()).astype(base.dtype)
            before[name] = self._tensors[name].raw_data
            self._tensors[name].raw_data = np.ascontiguousarray(array).tobytes()
        session = open_session(self._model, self.engine)
        for name, data in before.items():
            self._tensors[name].raw_data = data
        return damage(self.reference, outputs_of(session, self.dataset, self._outputs))

    def _bias(self, use: Use) -> Array:
        layer = self.layers[use[0]]
        slot = layer.bias_slot
        if slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
            return constant_of(self.coupling, (layer.index, slot))
        weight = constant_of(self.coupling, (layer.index, layer.weight_slot))
        normal = to_normal(layer, weight, layer.groups())
        return np.zeros(normal.shape[0] * normal.shape[1], dtype=weight.dtype)


def _lift(coupling: Coupling, layers: Sequence[Layer]) -> tuple[onnx.ModelProto, dict[Use, str]]:
    """The original with each layer's weight and bias as an initializer of its own; use -> name."""
    editor = Editor(coupling.graph)
    names: dict[Use, str] = {}
    for layer in layers:
        places: list[tuple[Use, int, Array]] = []
        use = (layer.index, layer.weight_slot)
        weight = constant_of(coupling, use)
        places.append((use, layer.weight_slot, weight))
        if layer.bias_slot is not None:
            slot = layer.bias_slot
            if slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
                bias = constant_of(coupling, (layer.index, slot))
            else:
                normal = to_normal(layer, weight, layer.groups())
                bias = np.zeros(normal.shape[0] * normal.shape[1], dtype=weight.dtype)
            places.append(((layer.index, -1), slot, bias))
        for key, slot, array in places:
            name = f"onnxprune.{key[0]}.{key[1]}"
            editor.rewire(layer.node, slot, gs.Constant(name, np.ascontiguousarray(array)))
            names[key] = name
    return editor.finish(), names


def curves(
    coupling: Coupling,
    rankings: Sequence[Ranking],
    layers: Sequence[Layer],
    grams: Mapping[int, Gram],
    dataset: Dataset,
    engine: Engine,
    frozen: frozenset[int],
    progress: Progress,
) -> list[Curve]:
    """One :class:`Curve` per group, of every width; groups in ``frozen`` may only stay whole.

    Cost: one pass of the original over ``dataset`` per group and share.
    """
    movable = [g for g in coupling.groups if g.id not in frozen]
    progress.stage("sensitivity", len(movable) * len(SHARES))
    probe = Probe(coupling, layers, dataset, engine) if movable else None
    found: list[Curve] = []
    for group, ranking in zip(coupling.groups, rankings, strict=True):
        size = len(group)
        if group.id in frozen or probe is None:
            found.append(Curve(np.zeros(size + 1), np.asarray([size])))
            continue
        measured: list[tuple[int, float]] = []
        for share in SHARES:
            count = max(1, round(size * share))
            kept = np.zeros(size, dtype=np.bool_)
            kept[ranking.order[:count]] = True
            readers = folded_weights(coupling, group, kept, layers, grams)
            measured.append((count, max(probe.damage(readers), 0.0) if readers else ranking.error[count]))
            progress.advance()
        late = np.exp(LATE * group.id / max(len(coupling.groups) - 1, 1))
        damage_at = interpolate(ranking.error, measured) * late
        found.append(Curve(damage_at, np.arange(1, size + 1)))
    return found


def interpolate(error: Array, measured: Sequence[tuple[int, float]]) -> Array:
    """Damage at every width from a few measurements, following ``error`` (per width) on a log-log scale.

    Monotone: keeping more never costs more.  Outside the measured range the nearest slope goes on (at least 1).
    """
    points = sorted({k: max(d, TINY) for k, d in measured}.items(), reverse=True)
    x = np.log(np.maximum([error[k] for k, _ in points], TINY))
    y = np.maximum.accumulate(np.log([d for _, d in points]))
    log_error = np.log(np.maximum(error, TINY))
    steps = np.diff(x)
    slopes = np.diff(y) / np.where(steps > 1e-9, steps, np.inf)
    first = float(np.clip(slopes[0], 0.7, 1.5)) if len(slopes) else 1.0
    last = float(np.clip(slopes[-1], 1.0, 3.0)) if len(slopes) else 1.0
    inside = np.interp(log_error, x, y) if len(np.unique(x)) > 1 else np.full(len(error), y[0])
    below = y[0] + first * (log_error - x[0])
    above = y[-1] + last * (log_error - x[-1])
    line = np.where(log_error < x[0], below, np.where(log_error > x[-1], above, inside))
    whole = np.exp(line)
    whole[error <= TINY] = 0.0
    return np.asarray(np.maximum.accumulate(whole[::-1])[::-1])
