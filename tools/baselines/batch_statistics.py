"""Re-estimation of batch statistics, for graphs with their BatchNormalizations folded as well as not.

In graph order, every Conv of the pruned model gets a scale and a shift per output channel such that the mean and
the standard deviation of its output over the calibration images are those of the same channel in the original.
Where a BatchNormalization follows, this is what re-estimating its running statistics does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from baselines.workbench import BATCH, Workbench
from onnxprune.calibration.moments import batch_size
from onnxprune.coupling.open import couple
from onnxprune.engine.loadable import with_outputs
from onnxprune.engine.segment import Runner
from onnxprune.engine.session import open_session, run
from onnxprune.engine.store import Store
from onnxprune.graph.uses import Use
from onnxprune.linear.form import Layer, layers
from onnxprune.surgery.cut import constant_of, cut

Array = np.ndarray
EPSILON = 1e-5
MEMORY = 3 << 30
#: Mean and standard deviation per channel of a Conv's output, by the output's name.
Statistics = Mapping[str, tuple[Array, Array]]


class _Sums:
    def __init__(self) -> None:
        self.count, self.first, self.second = 0, np.zeros(()), np.zeros(())

    def update(self, y: Array) -> None:
        flat = y.reshape(y.shape[0], y.shape[1], -1).astype(np.float64)
        self.count += flat.shape[0] * flat.shape[2]
        self.first = self.first + flat.sum(axis=(0, 2))
        self.second = self.second + np.square(flat).sum(axis=(0, 2))

    def result(self) -> tuple[Array, Array]:
        mean = self.first / self.count
        return mean, np.sqrt(np.maximum(self.second / self.count - mean**2, 0.0))


def statistics(bench: Workbench, model: onnx.ModelProto) -> Statistics:
    """Of every Conv output of the uncut ``model``, on the images to fit on."""
    work = bench.work
    values = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    sums = {value: _Sums() for value in values}
    session = open_session(with_outputs(model, values), work.engine)
    for feeds in work.fit.batches(BATCH):
        for value, y in zip(values, run(session, feeds, values), strict=True):
            sums[value].update(y)
    return {value: found.result() for value, found in sums.items()}


def channels_of_cut(bench: Workbench, keep: Array) -> dict[str, Array]:
    """The original's channels that stand in each Conv output of the cut ``keep``, by the output's name."""
    masks = bench.work.coupling.masks(keep)
    return {y.output: np.flatnonzero(masks(y.output, 1)) for y in bench.work.layers if y.kind == "conv"}


def reestimated(
    bench: Workbench, model: onnx.ModelProto, channels: Mapping[str, Array], wanted: Statistics
) -> onnx.ModelProto:
    """``model`` with corrected Convs; those that ``channels`` does not name stay as they are."""
    work = bench.work
    sample = {name: array.shape for name, array in work.fit.fetch([0]).items()}
    coupling = couple(model, {}, sample)
    convs = [y for y in layers(coupling) if y.kind == "conv" and y.output in channels and y.output in wanted]
    weights: dict[Use, Array] = {}
    with Store(MEMORY) as store:
        size = batch_size(coupling, [v for y in convs for v in (y.data, y.output)])
        runner = Runner(coupling.graph, coupling.facts, store, "", list(work.fit.batches(size)), work.engine)
        for layer in convs:
            runner.held = {layer.output}
            runner.advance(layer.index + 1)
            sums = _Sums()
            for batch in range(runner.count):
                sums.update(runner.get(layer.output, batch))
            mean, spread = sums.result()
            kept = channels[layer.output]
            target_mean, target_spread = wanted[layer.output][0][kept], wanted[layer.output][1][kept]
            scale = np.sqrt((target_spread**2 + EPSILON) / (spread**2 + EPSILON))
            shift = target_mean - mean * scale
            _rewrite(runner, layer.output, scale, shift)
            weights.update(_corrected(coupling, layer, scale, shift))
    return cut(coupling, np.ones(coupling.unit_count, dtype=np.bool_), weights)


def _rewrite(runner: Runner, value: str, scale: Array, shift: Array) -> None:
    """What later nodes read is the corrected output."""
    found = [runner.get(value, batch) for batch in range(runner.count)]
    runner.store.drop(value)
    for batch, y in enumerate(found):
        ones = (1, -1) + (1,) * (y.ndim - 2)
        runner.store.put(value, batch, (y * scale.reshape(ones) + shift.reshape(ones)).astype(y.dtype))


def _corrected(coupling: object, layer: Layer, scale: Array, shift: Array) -> dict[Use, Array]:
    weight = constant_of(coupling, (layer.index, layer.weight_slot))  # type: ignore[arg-type]
    slot = layer.bias_slot
    assert slot is not None
    bias = np.zeros(len(weight), dtype=weight.dtype)
    if slot < len(layer.node.inputs) and layer.node.inputs[slot] is not None:
        bias = constant_of(coupling, (layer.index, slot))  # type: ignore[arg-type]
    ones = (-1,) + (1,) * (weight.ndim - 1)
    return {
        (layer.index, layer.weight_slot): (weight * scale.reshape(ones)).astype(weight.dtype),
        (layer.index, slot): (bias * scale + shift).astype(weight.dtype),
    }
