"""The information in the original's answer to each sample: none for background, much for a sample with objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.outputs import BATCH, outputs_of
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine, open_session
from onnxprune.measure.fields import Field, fields_of
from onnxprune.measure.kinds import NUMBERS, Kind, average, divergence, kinds_of, softened, values_of

Array = np.ndarray


def sample_information(coupling: Coupling, engine: Engine, dataset: Dataset) -> Array | None:
    """The divergence of the original's probabilities from their average, per sample, (samples,) float64.

    Sums over the channels and places of all outputs that hold probabilities at several places: scores of detectors,
    masks of segmenters.  ``None`` if there are no such outputs.  The average comes from the first
    :data:`onnxprune.calibration.outputs.BATCH` samples.
    Cost: one pass of the original over ``dataset``, with the outputs of ``BATCH`` samples in memory.  Nothing if there are
    no such outputs.
    """
    graph = coupling.graph
    names = [value for value in graph.outputs if value in graph.producer and graph.producer[value] not in coupling.facts.folded]
    fields = [field for field in fields_of(coupling, names) if _is_dense(coupling, names, field)]
    if not fields:
        return None
    session = open_session(graph.model, engine)
    kinds: tuple[Kind, ...] = ()
    parts: list[Array] = []
    for start in range(0, dataset.count, BATCH):
        some = dataset.take(range(start, min(start + BATCH, dataset.count)))
        outputs = outputs_of(session, some, names)
        if any(len(outputs[f.output]) != some.count or outputs[f.output].ndim != _rank(coupling, names, f) for f in fields):
            return None
        kinds = kinds or tuple(kind for kind in kinds_of(fields, outputs) if kind.form != NUMBERS)
        if not kinds:
            return None
        parts.append(np.sum([_of(kind, outputs) for kind in kinds], axis=0))
    return np.nan_to_num(np.concatenate(parts)) if parts else None


def _is_dense(coupling: Coupling, names: Sequence[str], field: Field) -> bool:
    """Whether ``field`` holds numbers between 0 and 1 at several places."""
    if not field.squashed or field.axis is None:
        return False
    shape = coupling.facts.shapes[names[field.output]]
    return math.prod(shape[1:]) > shape[field.axis]


def _rank(coupling: Coupling, names: Sequence[str], field: Field) -> int:
    return len(coupling.facts.shapes[names[field.output]])


def _of(kind: Kind, outputs: Sequence[Array]) -> Array:
    usual = softened(average(kind), kind.form)
    parts = [softened(values_of(part.field, outputs[part.field.output]), kind.form) for part in kind.parts]
    each = [divergence(part, usual, kind.form).sum(axis=(1, 2), dtype=np.float64) for part in parts]
    return np.asarray(np.sum(each, axis=0))
