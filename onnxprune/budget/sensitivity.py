"""What cutting one group does to the model's output: measured at a few widths, interpolated between.

For each group the original is run on some of the holdout with only that group narrowed: the cut channels' weights in
all readers are zero, and what remains is folded by least squares from the calibration moments.  Between the measured
widths the damage follows the selector's error curve on a log-log scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx

from onnxprune.budget.allocate import Curve
from onnxprune.budget.cost import macs, sizes
from onnxprune.budget.relay import Relay
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.outputs import outputs_of
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.effort import Effort, measurements
from onnxprune.engine.session import Engine, open_session
from onnxprune.engine.store import Store
from onnxprune.linear.form import Layer, from_normal, to_normal
from onnxprune.linear.gram import SecondMoments, with_constant
from onnxprune.linear.solve import fold
from onnxprune.linear.threads import blas_threads
from onnxprune.metrics import damage
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, readers_of, reading_axis
from onnxprune.surgery.cut import constant_of, cut, masked_constants
from onnxprune.surgery.edit import Use

Array = np.ndarray
#: Samples per run; the slot that stands for what is added to a layer's bias.
BATCH, BIAS = 32, -1
#: Least and largest relative error that the interpolation distinguishes.
TINY = 1e-9
RIDGE = 1e-3


def folded_weights(
    coupling: Coupling, group: Group, kept: Array, layers: Sequence[Layer], grams: Mapping[int, SecondMoments]
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
                moments = with_constant(gram.of(g), 0.0 if layer.bias_slot is None else 1.0)
                with blas_threads(len(with_one)):
                    solved = fold(moments, flat, with_one, RIDGE)
                block = np.zeros((channels * taps, outs))
                block[alive] = solved[:-1]
                new[g] = block.T.reshape(outs, channels, taps)
                found[_bias_use(layer)] = _add(found.get(_bias_use(layer)), solved[-1], g, groups)
        found[use] = from_normal(layer, new, stored)
    return found


def _bias_use(layer: Layer) -> Use:
    return layer.index, BIAS


def _add(known: Array | None, part: Array, group: int, groups: int) -> Array:
    if known is None:
        known = np.zeros((groups, len(part)))
    known[group] = part
    return known


class Probe:
    """The damage that other weights do to the outputs, asked in graph order."""

    def __init__(
        self,
        coupling: Coupling,
        layers: Sequence[Layer],
        dataset: Dataset,
        engine: Engine,
        store: Store,
        stops: Sequence[int],
    ) -> None:
        self.coupling = coupling
        self.layers = {layer.index: layer for layer in layers}
        graph, facts = coupling.graph, coupling.facts
        outputs = [v for v in graph.outputs if v in graph.producer and graph.producer[v] not in facts.folded]
        self.dataset, self.engine, self.outputs = dataset, engine, outputs
        batches = dataset.batches(dataset.batch_limit or BATCH)
        self.relay = Relay(graph, facts, store, batches, engine, stops, outputs)
        self.reference = self.relay.outcome({})

    @cached_property
    def _whole(self) -> list[Array]:
        return self._run(self.coupling.graph.model)

    def _run(self, model: onnx.ModelProto) -> list[Array]:
        return outputs_of(open_session(model, self.engine), self.dataset, self.outputs)

    def damage_of_cut(self, group: Group, kept: Array) -> float:
        """The damage of a cut of ``group`` alone, without any refit.

        Cost: one pass of the model with other constants or, where that does not do, of the model that is cut.
        """
        keep = np.ones(self.coupling.unit_count, dtype=np.bool_)
        keep[group.units] = kept
        constants = masked_constants(self.coupling, keep)
        if constants is not None:
            return damage(self.reference, self.relay.outcome(constants))
        return damage(self._whole, self._run(cut(self.coupling, keep)))

    def damage(self, weights: Mapping[Use, Array], stop: int) -> float:
        """The damage of ``weights``, all of nodes from ``stop`` on; stops never go down."""
        self.relay.advance(stop)
        replaced: dict[Use, Array] = {}
        for (index, slot), array in weights.items():
            if slot != BIAS:
                replaced[index, slot] = array
            elif self.layers[index].bias_slot is not None:
                base = self._bias(self.layers[index])
                replaced[index, self.layers[index].bias_slot or 0] = (base + array.ravel()).astype(base.dtype)
        return damage(self.reference, self.relay.outcome(replaced))

    def _bias(self, layer: Layer) -> Array:
        slot = layer.bias_slot
        if slot is not None and slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
            return constant_of(self.coupling, (layer.index, slot))
        weight = constant_of(self.coupling, (layer.index, layer.weight_slot))
        normal = to_normal(layer, weight, layer.groups())
        return np.zeros(normal.shape[0] * normal.shape[1], dtype=weight.dtype)


def curves(
    coupling: Coupling,
    rankings: Sequence[Ranking],
    layers: Sequence[Layer],
    grams: Mapping[int, SecondMoments],
    dataset: Dataset,
    engine: Engine,
    frozen: frozenset[int],
    effort: Effort,
    memory: int,
    progress: Progress,
) -> list[Curve]:
    """One :class:`Curve` per group, of every width; groups in ``frozen`` may only stay whole.

    Cost: per group and share, what comes behind the group's first reader, over the samples that ``effort`` allows.
    """
    first = {g.id: min((r.index for r in readers_of(coupling, g, tuple(layers))), default=-1) for g in coupling.groups}
    asked = sorted((g for g in coupling.groups if g.id not in frozen), key=lambda g: (first[g.id], g.id))
    # On average a group stands in the middle: half of the network comes behind it.
    shares, probes = measurements(effort, macs(coupling)(sizes(coupling)) * len(asked) / 2)
    progress.stage("sensitivity", len(asked) * len(shares))
    found = {g.id: Curve(np.zeros(len(g) + 1), np.asarray([len(g)])) for g in coupling.groups}
    if asked:
        few = dataset.take(list(range(min(dataset.count, probes))))
        with Store(memory) as store:
            probe = Probe(coupling, layers, few, engine, store, [first[g.id] for g in asked if first[g.id] >= 0])
            for group in asked:
                found[group.id] = _curve(probe, group, rankings[group.id], grams, first[group.id], shares, progress)
    return [found[g.id] for g in coupling.groups]


def _curve(
    probe: Probe,
    group: Group,
    ranking: Ranking,
    grams: Mapping[int, SecondMoments],
    stop: int,
    shares: Sequence[float],
    progress: Progress,
) -> Curve:
    """The curve of one group; what has no reader to refit (quantized weights, say) is cut to be measured."""
    size = len(group)
    measured: list[tuple[int, float]] = []
    for share in shares:
        count = max(1, round(size * share))
        kept = np.zeros(size, dtype=np.bool_)
        kept[ranking.order[:count]] = True
        readers = folded_weights(probe.coupling, group, kept, list(probe.layers.values()), grams)
        found = probe.damage(readers, stop) if readers else probe.damage_of_cut(group, kept)
        measured.append((count, max(found, 0.0)))
        progress.advance()
    return Curve(interpolate(ranking.error, measured), np.arange(1, size + 1))


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
