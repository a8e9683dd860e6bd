"""Notes about the original's answers on the held-out samples, and about the labels."""

from __future__ import annotations

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.notes import ALIKE, DETECTOR_PRESET, NO_SCORES
from onnxprune.tasks.classify import Classify
from onnxprune.tasks.detect.reader import Detect


def evaluation_notes(evaluator: Evaluator, labelled: Dataset, data: object | None, options: Options) -> tuple[str, ...]:
    """What the user should know about the original's answers and the labels before the run starts."""
    notes = list(evaluator.warnings) if data is not None else []
    if evaluator.alike and options.budget("max_drop") is not None:
        which = ("made-up", "give --data") if data is None else ("held-out", "give data that differ")
        notes.append(ALIKE.format(*which))
    if evaluator.yardstick.note is not None and data is not None:
        notes.append(evaluator.yardstick.note)
    pictures = evaluator.holdout.picture is not None
    if options.preprocess is None and pictures and evaluator.yardstick.likely in ("detect", "pose"):
        notes.append(DETECTOR_PRESET)
    reader = evaluator.yardstick.reader
    used = isinstance(reader, Classify) or (labelled.boxes_of is not None and isinstance(reader, Detect))
    if options.test is not None and not used and not metrics.is_scores(evaluator.reference):
        notes.append(NO_SCORES)
    return tuple(notes)
