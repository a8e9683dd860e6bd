"""Suppression of overlapping boxes, for detectors without suppression in the graph."""

from __future__ import annotations

import numpy as np

from onnxprune.tasks.detect.detections import Detections, ranked

Array = np.ndarray
#: Minimum score of a box, and maximum boxes per sample for the average precision, as in COCO.
FLOOR, MAX_DETECTIONS = 0.01, 100
#: Maximum candidates to compare, and the overlap above which the weaker of two boxes of a class is removed.  Evaluation
#: scripts of one-stage detectors use 0.6 to 0.7.
CANDIDATES, OVERLAP = 1000, 0.6


def suppressed(boxes: Array, scores: Array, classes: Array, points: Array | None) -> Detections:
    """Greedy non-maximum suppression within each class.

    ``boxes``: (N, 4) left, top, right, bottom.  Cost: at most ``CANDIDATES`` × ``MAX_DETECTIONS`` overlaps.
    """
    # The comparison is False for NaN, so a model that a cut has broken detects nothing.
    kept = np.flatnonzero((scores >= FLOOR) & np.isfinite(boxes).all(axis=1))
    points = None if points is None else points[kept]
    candidates = ranked(boxes[kept], scores[kept], classes[kept], points, CANDIDATES)
    left = np.arange(len(candidates))
    chosen: list[int] = []
    while len(left) and len(chosen) < MAX_DETECTIONS:
        best, rest = left[0], left[1:]
        chosen.append(int(best))
        over = overlap(candidates.boxes[best], candidates.boxes[rest]) > OVERLAP
        left = rest[~(over & (candidates.classes[rest] == candidates.classes[best]))]
    return candidates.take(np.asarray(chosen, dtype=np.int64))


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union of one box (4,) with ``others`` (N, 4): (N,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(others[:, 2:] - others[:, :2], 0, None), axis=1)
    union = np.prod(np.clip(box[2:] - box[:2], 0, None)) + areas - shared
    return np.asarray(shared / np.maximum(union, 1e-12))
