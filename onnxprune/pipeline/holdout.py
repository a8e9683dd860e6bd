"""Which samples are held out: the run fits on the others, prices widths and measures the drop on these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.calibration.dataset import Dataset

Array = np.ndarray
#: Samples that selection and refit never see: a fifth, within these bounds.
MIN_HELD, MAX_HELD = 8, 128
#: Maximum samples that tuning holds out: fewer would not show a gain of one point.
MAX_JUDGED = 256


def held_out(count: int, seed: int, most: int = MAX_HELD, information: Array | None = None) -> tuple[int, ...]:
    """The positions of at most ``most`` samples to hold out of ``count``; none if there is only one sample.

    A seeded choice, in ascending order.  ``information`` (count,) changes it: see
    :func:`onnxprune.measure.information.sample_information`.  Then it is every second of the samples with the most
    information, in descending order.  A random choice of 25 of 128 pictures held out 5 objects of a detector, too few to
    compare two cuts.
    """
    if count < 2:
        return ()
    held = min(most, max(MIN_HELD, count // 5), count // 2)
    order = np.random.default_rng(seed).permutation(count)
    if information is None:
        return tuple(np.sort(order[:held]).tolist())
    return tuple(order[np.argsort(-information[order], kind="stable")][: 2 * held : 2].tolist())


def divide(dataset: Dataset, held: Sequence[int]) -> tuple[Dataset, Dataset]:
    """(the samples to fit on, the ``held`` ones).  A single sample serves as both."""
    if not held:
        return dataset, dataset
    return dataset.take(np.setdiff1d(np.arange(dataset.count), held)), dataset.take(held)
