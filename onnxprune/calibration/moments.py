"""The calibration pass: second moments of every layer's input on the original model.

The original runs once per batch, with the inputs of layers as its outputs (taps).  A seeded generator samples rows from
them; :class:`onnxprune.calibration.row_rule.RowRule` says how many.  Memory: the moments, and the taps of one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.row_rule import MOMENTS
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine, open_session, run, with_outputs
from onnxprune.linear.form import Geometry, Layer, geometry, sample_rows, to_normal
from onnxprune.linear.gram import InputMoments, SecondMoments
from onnxprune.linear.threads import product_threads
from onnxprune.progress import Progress
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
#: Layers with more unknowns than this keep no full second moments (25,088 inputs of a Gemm would take 5 GB).
MOST_UNKNOWNS = 6144
#: Maximum bytes of taps in memory.
TAP_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Moments:
    """Layer index -> second moments of its input rows."""

    grams: Mapping[int, SecondMoments]


def batch_size(coupling: Coupling, values: list[str], dataset: Dataset, budget: int = TAP_BYTES) -> int:
    """Samples per run, so that the ``values`` of one batch take at most ``budget`` bytes."""
    per_sample = sum(4 * math.prod(coupling.facts.shapes[v]) for v in values)
    size = max(1, min(64, budget // max(per_sample, 1)))
    return min(size, dataset.batch_limit) if dataset.batch_limit else size


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


def measure(
    coupling: Coupling, layers: list[Layer], dataset: Dataset, engine: Engine, seed: int, progress: Progress
) -> Moments:
    """Second moments of the inputs of ``layers``.

    Cost: one pass of the original over ``dataset``, plus rows·unknowns² multiply-adds per layer.
    """
    inputs: dict[int, InputMoments] = {}
    wanted: list[Layer] = []
    for layer in layers:
        weight = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
        features = weight.shape[2] * weight.shape[3]
        if features <= MOST_UNKNOWNS:
            inputs[layer.index] = InputMoments(weight.shape[0], features)
            wanted.append(layer)
    values = sorted({layer.data for layer in wanted} - set(coupling.graph.inputs))
    size = batch_size(coupling, values, dataset)
    progress.stage("calibrate", -(-dataset.count // size))
    if not wanted:
        return Moments({})
    session = open_session(with_outputs(coupling.graph.model, values or list(coupling.graph.outputs)), engine)
    for number, feeds in enumerate(dataset.batches(size)):
        taps = dict(zip(values, run(session, feeds, values), strict=True)) if values else {}
        for layer in wanted:
            x = taps[layer.data] if layer.data in taps else feeds[layer.data]
            into = inputs[layer.index]
            out = (x.shape[0], *_out_space(coupling, layer, x))
            wanted_rows = MOMENTS.rows(into.groups, into.features)
            picks, geo = row_picks(coupling, layer, x, out, wanted_rows, dataset.count, seed + number)
            rows = sample_rows(layer, x, geo, picks, into.groups)
            with product_threads(into.features + 1):
                into.update(rows)
        progress.advance()
    return Moments({index: one.found() for index, one in inputs.items()})


def _out_space(coupling: Coupling, layer: Layer, x: Array) -> tuple[int, ...]:
    """The layer's output shape without the batch axis."""
    if layer.kind == "matmul":
        return ()
    return tuple(coupling.facts.shapes[layer.output][1:])
