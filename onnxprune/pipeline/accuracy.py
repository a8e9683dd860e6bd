"""Top-1 accuracy of models on labelled data."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.outputs import outputs_of
from onnxprune.engine.session import Engine, open_session
from onnxprune.result import Change
from onnxprune.tasks.answers import answers_of
from onnxprune.tasks.classify import Classify
from onnxprune.tasks.task import Reader


def accuracies(
    before: onnx.ModelProto, after: onnx.ModelProto, labelled: Dataset, engine: Engine, reader: Reader | None
) -> Change | None:
    """Top-1 (0 … 1) of both models on labelled data; ``None`` without labels or if the outputs are not classes.

    ``reader`` belongs to the task.  If it reads one label per sample, the accuracy compares that label.

    Raises:
        DataError: if labels are not classes of the models.
    """
    scores = []
    for model in (before, after):
        score = accuracy_of(model, labelled, engine, reader)
        if score is None:
            return None
        scores.append(score)
    return Change(scores[0], scores[1])


def accuracy_of(model: onnx.ModelProto, labelled: Dataset, engine: Engine, reader: Reader | None) -> float | None:
    """Top-1 (0 … 1) of one model; see :func:`accuracies`."""
    if labelled.labels is None:
        return None
    session = open_session(model, engine)
    names = [o.name for o in session.get_outputs()]
    if isinstance(reader, Classify) and not metrics.is_scores(outputs_of(session, labelled.take([0]), names)):
        if len(reader.outputs) > 1:
            return None
        predicted = reader.labels(answers_of(session, labelled, names))[:, 0]
        # Class names cannot be compared with class numbers.
        return float(np.mean(predicted == labelled.labels)) if predicted.dtype.kind in "iub" else None
    scored = metrics.accuracy(outputs_of(session, labelled, names), labelled.labels)
    return None if scored is None else scored.top1
