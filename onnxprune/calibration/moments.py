"""The calibration pass: second moments of every layer's input on the original model.

The original runs once per batch, with the inputs of layers as its outputs (taps).  A seeded generator samples rows from
them; :class:`onnxprune.calibration.row_rule.RowRule` says how many.  Memory: the moments, and the taps of one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.row_rule import MOMENTS
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.linear.form import Geometry, Layer, geometry, sample_rows, to_normal
from onnxprune.linear.gram import InputMoments, SecondMoments
from onnxprune.linear.threads import product_threads
from onnxprune.progress import Progress
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
#: Layers with more unknowns than this keep no full second moments (25,088 inputs of a Gemm would take 5 GB).
MAX_UNKNOWNS = 6144
#: Maximum number of parts of the samples, and minimum number of samples per part.
MAX_SHARDS, MIN_IN_SHARD = 8, 32
#: Maximum bytes of taps in memory.
TAP_BYTES = 256 << 20


def batch_size(coupling: Coupling, values: list[str], budget: int = TAP_BYTES) -> int:
    """Samples whose ``values`` take at most ``budget`` bytes, at most 64."""
    per_sample = sum(4 * math.prod(coupling.facts.shapes[v]) for v in values)
    return max(1, min(64, budget // max(per_sample, 1)))


def blocks(dataset: Dataset, size: int) -> list[range]:
    """Runs of batches of ``dataset.batches(size)`` that are sampled together, by number.

    A block is one batch.  If the model takes fewer than ``size`` samples at a time, a block is several batches with about
    ``size`` samples in total: many detectors take one picture, and sampling rows per picture would dominate the pass.
    """
    count = len(list(dataset.rows(size)))
    each = max(1, size // dataset.batch_limit) if dataset.batch_limit else 1
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


def stacked(arrays: Sequence[Array]) -> Array | None:
    """One value of several batches, joined on axis 0; None if the batches differ in shape."""
    if len(arrays) == 1:
        return arrays[0]
    if any(array.shape != arrays[0].shape for array in arrays):
        return None
    return np.concatenate(arrays) if arrays[0].ndim > 1 else np.stack(arrays)


def layer_geometry(
    coupling: Coupling, layer: Layer, space_in: tuple[int, ...], space_out: tuple[int, ...]
) -> Geometry | None:
    if layer.kind == "matmul":
        return None
    kernel = constant_of(coupling, (layer.index, layer.weight_slot)).shape[2:]
    return geometry(coupling.graph, layer, space_in, space_out, kernel)


def picks_for(rows_wanted: int, samples: int, in_batch: int, positions: int, generator: np.random.Generator) -> Array:
    """Output positions to sample from each sample of a batch, ascending."""
    per_sample = min(positions, max(1, -(-rows_wanted // max(samples, 1))))
    if per_sample == positions:
        return np.arange(positions)
    return np.sort(generator.choice(positions, per_sample, replace=False))


def row_picks(
    coupling: Coupling, layer: Layer, x: Array, y_shape: tuple[int, ...], rows_wanted: int, samples: int, seed: int
) -> tuple[Array, Geometry | None]:
    """(positions to sample, geometry) for one batch, to get ``rows_wanted`` rows from all ``samples``."""
    generator = np.random.default_rng((seed, layer.index, x.shape[0]))
    if layer.kind == "matmul":
        rows = math.prod(x.shape[:-1])
        per_batch = min(rows, max(1, math.ceil(rows_wanted * x.shape[0] / max(samples, 1))))
        if per_batch == rows:
            return np.arange(rows), None
        return np.sort(generator.choice(rows, per_batch, replace=False)), None
    geo = layer_geometry(coupling, layer, x.shape[2:], y_shape[2:])
    assert geo is not None
    return picks_for(rows_wanted, samples, x.shape[0], geo.positions, generator), geo


def measure_moments(
    coupling: Coupling, layers: Sequence[Layer], dataset: Dataset, engine: Engine, seed: int, progress: Progress
) -> dict[int, SecondMoments]:
    """Layer index -> second moments of its input rows: the sum over all :func:`shards`, in their order.

    Cost: one pass of the original over ``dataset``, plus rows·unknowns² multiply-adds per layer.
    """
    parts = shards(coupling, layers, dataset)
    progress.stage("calibrate", sum(map(len, parts)))
    return added(measure_shard(coupling, layers, dataset, engine, seed, part, progress) for part in parts)


def shards(coupling: Coupling, layers: Sequence[Layer], dataset: Dataset) -> list[range]:
    """The numbers of the blocks of batches, in parts.

    The parts depend only on the model and the data, so the sum is the same wherever each part is computed.
    """
    number = len(blocks(dataset, _size(coupling, layers)))
    count = max(1, min(MAX_SHARDS, number, dataset.count // MIN_IN_SHARD))
    bounds = [number * k // count for k in range(count + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


def added(parts: Iterable[Mapping[int, SecondMoments]]) -> dict[int, SecondMoments]:
    """The sum of the moments of all shards.  Holds two of them at a time."""
    order: list[int] = []
    first: dict[int, SecondMoments] = {}
    totals: dict[int, InputMoments] = {}
    for part in parts:
        if not order:
            first, order = dict(part), list(part)
        else:
            for index in order:
                if index not in totals:
                    totals[index] = InputMoments(*part[index].size)
                    totals[index].absorb(first.pop(index))
                totals[index].absorb(part[index])
        # Let go of it before the next part is computed.
        del part
    return {index: totals[index].moments() if index in totals else first[index] for index in order}


def measure_shard(
    coupling: Coupling,
    layers: Sequence[Layer],
    dataset: Dataset,
    engine: Engine,
    seed: int,
    shard: range,
    progress: Progress,
) -> dict[int, SecondMoments]:
    """Second moments per layer index, over the blocks ``shard``; ``progress`` advances by one per block."""
    wanted = _measurable(coupling, layers)
    inputs = {layer.index: InputMoments(*_unknowns(coupling, layer)) for layer in wanted}
    values = _taps(coupling, wanted)
    if not wanted:
        return {}
    session = open_session(coupling.graph.model, engine, values or None)
    size = _size(coupling, layers)
    batches, parts = list(dataset.rows(size)), blocks(dataset, size)
    for number in shard:
        taps = _tapped(session, values, [dataset.fetch(batches[batch]) for batch in parts[number]])
        for layer in wanted:
            into = inputs[layer.index]
            wanted_rows = MOMENTS.rows(into.groups, into.features)
            for x in taps[layer.data]:
                out = (x.shape[0], *_out_space(coupling, layer, x))
                picks, geo = row_picks(coupling, layer, x, out, wanted_rows, dataset.count, seed + number)
                rows = sample_rows(layer, x, geo, picks, into.groups)
                with product_threads(into.features + 1):
                    into.update(rows)
        progress.advance()
    return {index: one.moments() for index, one in inputs.items()}


def _tapped(
    session: ort.InferenceSession, values: list[str], fed: Sequence[Mapping[str, Array]]
) -> dict[str, Sequence[Array]]:
    """Inputs and ``values`` over all batches ``fed``: one array each, or one per batch if their shapes differ."""
    arrays: dict[str, list[Array]] = {}
    for feeds in fed:
        taps = dict(zip(values, run(session, feeds, values), strict=True)) if values else {}
        for name, array in (dict(feeds) | taps).items():
            arrays.setdefault(name, []).append(array)
    joined: dict[str, Sequence[Array]] = {}
    for name in list(arrays):
        each = arrays.pop(name)
        stack = stacked(each)
        joined[name] = each if stack is None else [stack]
    return joined


def _unknowns(coupling: Coupling, layer: Layer) -> tuple[int, int]:
    """(convolution groups, unknowns of each)."""
    weight = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
    return weight.shape[0], weight.shape[2] * weight.shape[3]


def _measurable(coupling: Coupling, layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if _unknowns(coupling, layer)[1] <= MAX_UNKNOWNS]


def _taps(coupling: Coupling, layers: Sequence[Layer]) -> list[str]:
    return sorted({layer.data for layer in layers} - set(coupling.graph.inputs))


def _size(coupling: Coupling, layers: Sequence[Layer]) -> int:
    """Samples to sample rows from together."""
    return batch_size(coupling, _taps(coupling, _measurable(coupling, layers)))


def _out_space(coupling: Coupling, layer: Layer, x: Array) -> tuple[int, ...]:
    """The layer's output shape without the batch axis."""
    if layer.kind == "matmul":
        return ()
    return tuple(coupling.facts.shapes[layer.output][1:])
