"""Labelled data: what accuracy and average precision by labels are measured on."""

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
    """The data for the accuracy: what ``options`` name, or ``otherwise``, which need not have labels.

    Raises:
        DataError: where it cannot be opened, or has no labels.
    """
    if options.test is None:
        return otherwise
    found = open_dataset(options.test, otherwise.specs, options.preprocess, None, options.seed)
    if found.labels is None and found.things is None:
        raise DataError(
            f"--test: {found.origin} have no labels; give an .npz with an integer array 'labels', "
            "pictures in sub-folders named by class numbers, or for detectors pictures with YOLO's text files or COCO's "
            f"JSON{''.join(f' ({note})' for note in found.notes if note.startswith('no labels'))}"
        )
    return found


def usable(labelled: Dataset, evaluator: Evaluator, options: Options) -> tuple[Dataset, tuple[str, ...]]:
    """The same data, without labels that are no classes of the model; and a note that says so.

    Raises:
        DataError: where the user asked for these labels with ``--test``.
    """
    labelled, unread = _readable(labelled, evaluator, options)
    if labelled.labels is None:
        return labelled, unread
    try:
        metrics.check_labels(evaluator.reference, labelled.labels)
    except DataError as error:
        if options.test is not None:
            raise
        # Folders may be named by numbers, such as years, that are no classes.
        return replace(labelled, labels=None), (*unread, NO_ACCURACY.format(error))
    return labelled, unread


def _readable(labelled: Dataset, evaluator: Evaluator, options: Options) -> tuple[Dataset, tuple[str, ...]]:
    """The same data, without boxes that cannot be read; text files beside pictures may hold anything."""
    if labelled.things is None or not isinstance(evaluator.yardstick.reader, Detect):
        return replace(labelled, things=None), ()
    try:
        boxes = sum(len(labelled.things(sample).classes) for sample in range(labelled.count))
        if not boxes:
            raise DataError(f"{labelled.origin}: the labels hold no box that is on what the model is fed")
    except DataError as error:
        if options.test is not None:
            raise
        return replace(labelled, things=None), (NO_ACCURACY.format(error),)
    return labelled, ()


def box_scores(
    before: onnx.ModelProto, after: onnx.ModelProto, labelled: Dataset, engine: Engine, reader: Reader | None
) -> tuple[tuple[str, Change], ...]:
    """Average precisions of both models by labelled boxes; nothing without such labels, or for other tasks.

    Cost: two passes over the data.

    Raises:
        DataError: where the labels cannot be read.
    """
    if labelled.things is None or not isinstance(reader, Detect):
        return ()
    found = [labelled.things(sample) for sample in range(labelled.count)]
    there = [Detections(t.boxes, np.ones(len(t.classes)), t.classes) for t in found]
    if not any(len(t) for t in there):
        return ()
    wanted = truth(there)
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
