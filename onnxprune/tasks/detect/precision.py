"""Average precision of detections against the ground truth, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.suppress import MAX_DETECTIONS
from onnxprune.tasks.interval import bootstrap, wilson

Array = np.ndarray
#: A single range of areas, which holds every box.
ALL = [[0.0, 1e10]]


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth, as COCO annotations.  ``samples`` counts all samples, also those without a box.  ``boxes`` counts
    the boxes of all samples."""

    coco: Any
    samples: int
    classes: tuple[int, ...]
    boxes: int


@dataclass(frozen=True)
class Precision:
    """``ap50``: mean over classes of the average precision at an overlap of 0.5.  ``ap``: mean over the overlaps 0.50,
    0.55 … 0.95.  ``low`` and ``high``: 95 % interval of ``ap50``, or None if not requested.  It is at least as wide as the
    interval of a share of the same number of boxes."""

    ap50: float
    ap: float
    low: float | None = None
    high: float | None = None


def truth(boxes: Sequence[Detections]) -> Truth:
    """The ground truth from boxes, one entry per sample: labels, or the confident detections of another model."""
    notes: list[dict[str, Any]] = []
    for sample, own in enumerate(boxes, start=1):
        for box, kind in zip(own.boxes.tolist(), own.classes.tolist(), strict=True):
            notes.append(_annotation(len(notes) + 1, sample, kind, box))
    classes = tuple(sorted({note["category_id"] for note in notes}))
    return Truth(_coco(notes, len(boxes), classes), len(boxes), classes, len(notes))


def precision(truth: Truth, detections: Sequence[Detections], resamples: int) -> Precision:
    """Average precision of ``detections`` (at most 100 detections per sample) against ``truth``, as COCO defines it.

    Like COCO's mean, ignores classes that ``truth`` does not have.  ``resamples``: number of bootstrap resamples of the
    samples, 0 for no interval.  Cost: about a millisecond per ten detections, and per resample.
    """
    results: list[dict[str, Any]] = []
    for sample, own in enumerate(detections, start=1):
        for box, kind, score in zip(own.boxes.tolist(), own.classes.tolist(), own.scores.tolist(), strict=True):
            if kind in truth.classes:
                results.append({**_annotation(len(results) + 1, sample, kind, box), "score": score})
    # The library prints its progress to stdout, which belongs to the caller's data.
    with contextlib.redirect_stdout(io.StringIO()):
        scored = COCOeval(truth.coco, _coco(results, truth.samples, truth.classes), "bbox")
        scored.params.maxDets, scored.params.areaRng, scored.params.areaRngLbl = [MAX_DETECTIONS], ALL, ["all"]
        scored.evaluate()
        scored.accumulate()
        values = scored.eval["precision"][:, :, :, 0, 0]
        ap50, ap = _mean(values[0]), _mean(values)
        if not resamples:
            return Precision(ap50, ap)
        low, high = bootstrap(_resampled(scored, truth), truth.samples, resamples)
    # If all of a few boxes are found, every resample gives 1.  Such a result is no surer than a share of so few boxes.
    least, most = wilson(min(ap50, 1.0), truth.boxes)
    return Precision(ap50, ap, min(low, least), max(high, most))


def _resampled(scored: Any, truth: Truth) -> Any:
    """AP50 over samples drawn with replacement.  Reuses the matches of each sample, and only accumulates again."""
    matched = _at_one_half(scored.evalImgs)
    scored.params.iouThrs = scored.params.iouThrs[:1]

    def statistic(chosen: Array) -> float:
        rows = range(0, len(matched), truth.samples)
        scored.evalImgs = [matched[row + i] for row in rows for i in chosen]
        scored.accumulate()
        return _mean(scored.eval["precision"][0, :, :, 0, 0])

    return statistic


def _at_one_half(matched: Sequence[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
    first = ("dtMatches", "gtMatches", "dtIgnore")
    return [None if m is None else {**m, **{key: m[key][:1] for key in first}} for m in matched]


def _mean(precisions: Array) -> float:
    # Classes without a box in the ground truth are -1.
    known = precisions[precisions > -1]
    # Undo the rounding of the mean, so that a mean of ones is one.
    return round(float(known.mean()), 12) if known.size else float("nan")


def _annotation(identity: int, sample: int, kind: int, box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = max(right - left, 0.0), max(bottom - top, 0.0)
    return {
        "id": identity,
        "image_id": sample,
        "category_id": kind,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _coco(notes: Sequence[dict[str, Any]], samples: int, classes: Sequence[int]) -> Any:
    made = COCO()
    made.dataset = {
        "images": [{"id": sample} for sample in range(1, samples + 1)],
        "categories": [{"id": kind} for kind in classes],
        "annotations": list(notes),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made
