"""Suppression of overlapping boxes, for detectors that leave it to their users."""

from __future__ import annotations

import numpy as np

from onnxprune.tasks.detect.detections import Detections, ranked

Array = np.ndarray
#: Boxes below FLOOR are not looked at.  Average precision is taken over at most MOST per sample, as COCO does.
FLOOR, MOST = 0.01, 100
#: Candidates that are compared, and the overlap from which the weaker of two boxes of a class goes.  Evaluation
#: scripts of one-stage detectors use 0.6 to 0.7.
CANDIDATES, OVERLAP = 1000, 0.6


def suppressed(boxes: Array, scores: Array, classes: Array, points: Array | None) -> Detections:
    """Greedy non-maximum suppression within each class.

    ``boxes``: (N, 4) left, top, right, bottom.  Cost: at most ``CANDIDATES`` × ``MOST`` overlaps.
    """
    # NaN is above nothing: a model that a cut has broken finds nothing.
    kept = np.flatnonzero((scores >= FLOOR) & np.isfinite(boxes).all(axis=1))
    points = None if points is None else points[kept]
    found = ranked(boxes[kept], scores[kept], classes[kept], points, CANDIDATES)
    left = np.arange(len(found))
    chosen: list[int] = []
    while len(left) and len(chosen) < MOST:
        best, rest = left[0], left[1:]
        chosen.append(int(best))
        over = overlap(found.boxes[best], found.boxes[rest]) > OVERLAP
        left = rest[~(over & (found.classes[rest] == found.classes[best]))]
    return found.take(np.asarray(chosen, dtype=np.int64))


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union of one box with others, (N,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(others[:, 2:] - others[:, :2], 0, None), axis=1)
    union = np.prod(np.clip(box[2:] - box[:2], 0, None)) + areas - shared
    return np.asarray(shared / np.maximum(union, 1e-12))
