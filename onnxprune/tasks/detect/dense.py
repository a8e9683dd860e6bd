"""Decode the predictions of a dense detector into boxes and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax

from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.grid import GridLevel
from onnxprune.tasks.detect.layout import Layout, read_anchors
from onnxprune.tasks.detect.suppress import suppressed
from onnxprune.tasks.detect.wiring import Wiring, joined

Array = np.ndarray
#: Variances of the offsets to prior boxes, for centre and size (Liu et al., arXiv 1512.02325).  Every exporter keeps them.
CENTRE, SIDE = 0.1, 0.2


def split(arrays: Sequence[Array], wiring: Wiring, layout: Layout, samples: int) -> tuple[Array, Array, Array | None]:
    """Raw boxes (n, A, 4·bins), raw scores (n, A, C), and raw keypoints (n, A, 3·K) or None.

    If there is an objectness score, it is the first score.
    """
    if not wiring.combined:
        scores = joined(arrays, wiring.scores, wiring.axis, samples)
        if wiring.objectness:
            scores = np.concatenate([joined(arrays, wiring.objectness, wiring.axis, samples), scores], axis=2)
        return joined(arrays, wiring.boxes, wiring.axis, samples), scores, None
    fields = joined(arrays, wiring.combined, wiring.axis, samples)
    boxes, end = 4 * layout.bins, fields.shape[2] - wiring.rest
    first = end - 3 * layout.keypoints
    return fields[..., :boxes], fields[..., boxes:first], fields[..., first:end] if layout.keypoints else None


def classes_of(scores: Array, layout: Layout) -> Array:
    """Raw scores (…, C) as one score in 0 … 1 per class, without background and objectness."""
    if layout.activation == "sigmoid":
        scores = expit(scores)
    elif layout.activation == "softmax":
        scores = softmax(scores, axis=-1)
    if layout.score == "background-first":
        return scores[..., 1:]
    if layout.score == "background-last":
        return scores[..., :-1]
    if layout.score != "objectness":
        return scores
    return scores[..., :1] * scores[..., 1:] if scores.shape[-1] > 1 else scores


def corners(boxes: Array, layout: Layout, levels: Sequence[GridLevel], size: tuple[int, int]) -> Array:
    """Raw boxes (n, A, 4·bins) as left, top, right, bottom (n, A, 4), in pixels of an image of ``size`` (height, width)."""
    height, width = size
    wide = boxes.astype(np.float64)
    if layout.bins > 1:
        # Generalized focal loss (Li et al. 2020), equation 6: the distance is the mean of the distribution.
        shares = softmax(wide.reshape(*wide.shape[:2], 4, layout.bins), axis=3)
        wide = shares @ np.arange(layout.bins, dtype=np.float64)
    sides = np.array([width, height, width, height], dtype=np.float64)
    if layout.box == "priors":
        return np.asarray(_from_priors(wide, read_anchors(layout.anchors)) * sides)
    centres = np.concatenate([level.centres() for level in levels]) if levels else np.zeros((wide.shape[1], 2))
    strides = np.concatenate([np.full(level.places, float(level.stride)) for level in levels]) if levels else None
    if layout.box == "grid":
        assert strides is not None
        # Relative to the cell's corner, not its centre (Ge et al. 2021, arXiv 2107.08430).
        middle = (wide[..., :2] - 0.5) * strides[:, None] + centres
        half = np.exp(np.minimum(wide[..., 2:], 20.0)) * strides[:, None] / 2
        return np.concatenate([middle - half, middle + half], axis=2)
    if layout.unit == "normalised":
        wide = wide * (sides[[1, 0, 3, 2]] if layout.box == "yxyx" else sides)
    elif layout.unit == "strides" and strides is not None:
        wide = wide * strides[:, None]
    if layout.box == "distances":
        return np.concatenate([centres - wide[..., :2], centres + wide[..., 2:]], axis=2)
    return straight(wide, layout.box)


def straight(boxes: Array, box: str) -> Array:
    """Boxes (…, 4) of a kind that needs no grid, as left, top, right, bottom."""
    if box == "xywh":
        half = boxes[..., 2:] / 2
        return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)
    if box == "tlwh":
        return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)
    return np.asarray(boxes[..., [1, 0, 3, 2]] if box == "yxyx" else boxes)


def _from_priors(offsets: Array, priors: Array) -> Array:
    middle = priors[:, :2] + offsets[..., :2] * CENTRE * priors[:, 2:]
    half = priors[:, 2:] * np.exp(np.minimum(offsets[..., 2:] * SIDE, 20.0)) / 2
    return np.concatenate([middle - half, middle + half], axis=-1)


def decode(
    arrays: Sequence[Array],
    wiring: Wiring,
    layout: Layout,
    levels: Sequence[GridLevel],
    size: tuple[int, int],
    samples: int,
) -> list[Detections]:
    """The detections in a batch of a dense detector's outputs, one entry per sample, after suppression."""
    raw, scores, points = split(arrays, wiring, layout, samples)
    boxes, scored = corners(raw, layout, levels, size), classes_of(scores, layout)
    detections = []
    for row in range(samples):
        best = scored[row].argmax(axis=1)
        top = np.take_along_axis(scored[row], best[:, None], axis=1)[:, 0]
        marks = None if points is None else _points(points[row], layout, size)
        detections.append(suppressed(boxes[row], top, best, marks))
    return detections


def _points(raw: Array, layout: Layout, size: tuple[int, int]) -> Array:
    points = raw.reshape(len(raw), layout.keypoints, 3).astype(np.float64)
    if layout.unit == "normalised":
        points = points * np.array([size[1], size[0], 1.0])
    return points
