"""Labelled data: what accuracy is measured on."""

from __future__ import annotations

from dataclasses import replace

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.open import open_dataset
from onnxprune.errors import DataError
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.notes import NO_ACCURACY


def labelled_data(options: Options, otherwise: Dataset) -> Dataset:
    """The data for the accuracy: what ``options`` name, or ``otherwise``, which need not have labels.

    Raises:
        DataError: where it cannot be opened, or has no labels.
    """
    if options.test is None:
        return otherwise
    found = open_dataset(options.test, otherwise.specs, options.preprocess, None, options.seed)
    if found.labels is None:
        raise DataError(
            f"--test: {found.origin} have no labels; give an .npz with an integer array 'labels', "
            "or pictures in sub-folders named by class numbers"
        )
    return found


def usable(labelled: Dataset, evaluator: Evaluator, options: Options) -> tuple[Dataset, tuple[str, ...]]:
    """The same data, without labels that are no classes of the model; and a note that says so.

    Raises:
        DataError: where the user asked for these labels with ``--test``.
    """
    if labelled.labels is None:
        return labelled, ()
    try:
        metrics.check_labels(evaluator.reference, labelled.labels)
    except DataError as error:
        if options.test is not None:
            raise
        # Folders may be named by numbers, such as years, that are no classes.
        return replace(labelled, labels=None), (NO_ACCURACY.format(error),)
    return labelled, ()
