"""Outputs of a model on a whole dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from onnxprune.calibration.dataset import Dataset
from onnxprune.engine.session import run

Array = np.ndarray
#: Samples per run: enough to keep the cores busy, few enough for the activations of large images.
BATCH = 32


def outputs_of(
    session: ort.InferenceSession, dataset: Dataset, names: Sequence[str], batch: int = BATCH
) -> list[Array]:
    """Each output, stacked on the sample axis, or completely flattened if batches differ in shape.

    ``batch``: samples per run, unless the model fixes the number.
    """
    parts: list[list[Array]] = [[] for _ in names]
    rows = dataset.rows(batch)
    for feeds, indices in zip(dataset.batches(batch), rows, strict=True):
        for part, result in zip(parts, run(session, feeds, names), strict=True):
            padded = result.ndim > 0 and dataset.batch_limit not in (None, 1) and len(result) > len(indices)
            part.append(result[: len(indices)] if padded else np.atleast_1d(result))
    return [stack(part) for part in parts]


def stack(parts: list[Array]) -> Array:
    if all(p.shape[1:] == parts[0].shape[1:] for p in parts):
        return np.concatenate(parts)
    return np.concatenate([p.ravel() for p in parts])
