"""Labelled data, for accuracy and average precision by labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.open import open_dataset
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import DataError
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.notes import NO_ACCURACY
from onnxprune.result import Change
from onnxprune.tasks.answers import answers_of
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.precision import precision, truth
from onnxprune.tasks.detect.reader import Detect
from onnxprune.tasks.task import Reader


def labelled_data(options: Options, otherwise: Dataset) -> Dataset:
    """The data for the accuracy: from ``--test``, or else ``otherwise``, which may have no labels.

    Raises:
        DataError: if the data of ``--test`` cannot be opened or have no labels.
    """
    if options.test is None:
        return otherwise
    labelled = open_dataset(options.test, otherwise.specs, options.preprocess, None, options.seed)
    if labelled.labels is None and labelled.boxes_of is None:
        raise DataError(
            f"--test: found no labels in {labelled.origin}; give an .npz with an integer array 'labels', "
            "pictures in sub-folders named by class numbers, or for detectors pictures with a text file of boxes each "
            f"(class, centre, size) or COCO's JSON{''.join(f' ({note})' for note in labelled.notes if note.startswith('no labels'))}"
        )
    return labelled


def usable(labelled: Dataset, evaluator: Evaluator, options: Options) -> tuple[Dataset, tuple[str, ...]]:
    """The same data without labels that are not classes of the model, and a note about them.

    Raises:
        DataError: if these labels come from ``--test``.
    """
    labelled, unread = _readable(labelled, evaluator, options)
    if labelled.labels is None:
        return labelled, unread
    try:
        metrics.check_labels(evaluator.reference, labelled.labels)
    except DataError as error:
        if options.test is not None:
            raise DataError(f"--test: {error}") from error
        # Folder names may be numbers, such as years, that are not classes.
        return replace(labelled, labels=None), (*unread, NO_ACCURACY.format(error))
    return labelled, unread


def _readable(labelled: Dataset, evaluator: Evaluator, options: Options) -> tuple[Dataset, tuple[str, ...]]:
    """The same data without unreadable boxes, and a note: text files next to images may hold anything."""
    if labelled.boxes_of is None or not isinstance(evaluator.yardstick.reader, Detect):
        return replace(labelled, boxes_of=None), ()
    try:
        boxes = sum(len(labelled.boxes_of(sample).classes) for sample in range(labelled.count))
        if not boxes:
            raise DataError(f"{labelled.origin}: the labels have no box within the part of the images that the model gets")
    except DataError as error:
        if options.test is not None:
            raise
        return replace(labelled, boxes_of=None), (NO_ACCURACY.format(error),)
    return labelled, ()


def box_scores(
    before: onnx.ModelProto, after: onnx.ModelProto, labelled: Dataset, engine: Engine, reader: Reader | None
) -> tuple[tuple[str, Change], ...]:
    """Average precisions of both models by labelled boxes; empty without such labels or for other tasks.

    Cost: two passes over the data.

    Raises:
        DataError: if the labels are unreadable.
    """
    if labelled.boxes_of is None or not isinstance(reader, Detect):
        return ()
    labels = [labelled.boxes_of(sample) for sample in range(labelled.count)]
    boxes = [Detections(t.boxes, np.ones(len(t.classes)), t.classes) for t in labels]
    if not any(len(t) for t in boxes):
        return ()
    wanted = truth(boxes)
    names = [output.name for output in before.graph.output]
    both = []
    for model in (before, after):
        answers = answers_of(open_session(model, engine), labelled, names)
        both.append(precision(wanted, reader.detections(answers), 0))
    first, second = both
    return (
        ("AP50 by labels", Change(first.ap50, second.ap50)),
        ("AP50-95 by labels", Change(first.ap, second.ap)),
    )
