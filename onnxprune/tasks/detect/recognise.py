"""Recognise the layout of a dense detector's outputs from their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.box_kinds import box_doubts, follows, with_boxes
from onnxprune.tasks.detect.dense import split
from onnxprune.tasks.detect.grid import GridLevel
from onnxprune.tasks.detect.layout import Layout
from onnxprune.tasks.detect.wiring import Wiring, levels, wirings
from onnxprune.tasks.maps import map_channel_axis

Array = np.ndarray
#: Number of samples to look at.
SEEN = 8
#: Minimum size of a set of predictions, and maximum share of them that are detections.
MIN_PREDICTIONS, SOME = 50, 0.2
#: Minimum share of logits below zero.
MOSTLY = 0.9
#: Minimum score of a detection, and maximum share of places with a detection.
THERE, FEW = 0.3, 0.03


@dataclass(frozen=True)
class Recognised:
    """A reading of outputs.  ``doubts`` are the open questions, with the words of ``--layout`` that settle them."""

    layout: Layout
    wiring: Wiring
    levels: tuple[GridLevel, ...]
    doubts: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions of the outputs read."""
        wiring = self.wiring
        return (*wiring.combined, *wiring.boxes, *wiring.scores, *wiring.objectness)


def recognise(answers: Answers, given: Mapping[str, object]) -> Recognised | None:
    """The reading of dense outputs that their shapes and values allow, or None.  ``given``: see ``parse_layout``."""
    if answers.size is None or not answers.batches:
        return None
    first = _recognised(answers.batches[0], answers.counts[0], answers.size, given)
    if first is None:
        return None
    # A batch may be a single picture.
    for batch, count in zip(answers.batches[1:SEEN], answers.counts[1:SEEN], strict=True):
        other = _recognised(batch, count, answers.size, given)
        if other is not None and _kind(other) != _kind(first):
            doubt = f"one layout: other samples look like {other.layout.text()}"
            return replace(first, doubts=(*first.doubts, doubt))
    return first


def _recognised(
    arrays: Sequence[Array], samples: int, size: tuple[int, int], given: Mapping[str, object]
) -> Recognised | None:
    axis = given.get("axis")
    readings = []
    for wiring in wirings(arrays, samples, None if axis is None else str(axis), size):
        grids = levels(arrays, wiring, samples, size)
        read = _read(arrays, samples, wiring, grids, size, given)
        if read is not None:
            readings.append(read)
    return min(readings, key=_rank) if readings else None


def _kind(reading: Recognised) -> tuple[str, int]:
    return reading.layout.box, reading.layout.keypoints


def _rank(reading: Recognised) -> tuple[bool, int, int]:
    """The best reading has the lowest rank: places on a grid, then few doubts, then many outputs read."""
    return not reading.levels, len(reading.doubts), -len(reading.reads)


def _read(
    arrays: Sequence[Array],
    samples: int,
    wiring: Wiring,
    grids: tuple[GridLevel, ...],
    size: tuple[int, int],
    given: Mapping[str, object],
) -> Recognised | None:
    start = Layout(axis=wiring.axis).stated(given)
    for bins in _bins(arrays, wiring, samples, given):
        layout = Layout(**{**vars(start), "bins": bins})
        boxes, scores, _ = split(arrays, wiring, layout, samples)
        if boxes.shape[2] != 4 * bins or scores.shape[2] < 1 or boxes.shape[1] < 4:
            continue
        placed = with_boxes(boxes[:SEEN], layout, grids, size, given)
        if placed is None:
            continue
        on_grid = grids if placed.box in ("distances", "grid") or (grids and follows(boxes[:SEEN], grids)) else ()
        if wiring.combined and "keypoints" not in given:
            placed = Layout(**{**vars(placed), "keypoints": _keypoints(scores[:SEEN])})
        _, scores, _ = split(arrays, wiring, placed, samples)
        if wiring.combined and not on_grid and not given and not _set(arrays, wiring, boxes, scores):
            continue
        read = _scores(scores[:SEEN], placed, wiring, bool(on_grid), given)
        if read is not None:
            scored, doubts = read
            open_boxes = box_doubts(boxes[:SEEN], scored, on_grid, given)
            return Recognised(scored, wiring, on_grid, (*_map_doubts(arrays, wiring, size, given), *open_boxes, *doubts))
    return None


def _map_doubts(
    arrays: Sequence[Array], wiring: Wiring, size: tuple[int, int], given: Mapping[str, object]
) -> tuple[str, ...]:
    """Detectors on one grid alone are rare, and other maps have values like theirs."""
    if given or len(wiring.combined) != 1 or map_channel_axis(arrays[wiring.combined[0]].shape, size) is None:
        return ()
    return ("that the only maps are predictions (dense)",)


def _set(arrays: Sequence[Array], wiring: Wiring, boxes: Array, scores: Array) -> bool:
    """Whether rows without a grid may be a set of predictions: no maps, more rows than fields, no rows or columns
    that sum to one, and few detections."""
    if any(arrays[i].ndim > 3 for i in wiring.combined) or boxes.shape[1] < max(MIN_PREDICTIONS, 4 + scores.shape[2]):
        return False
    if float(np.mean(scores.max(axis=2) >= THERE)) > SOME:
        return False
    # Probabilities of characters over time sum to one over the characters, whichever axis holds the places.
    sums = (arrays[i].sum(axis=axis, dtype=np.float64) for i in wiring.combined for axis in (1, -1))
    return not any(np.allclose(total, 1.0, atol=1e-2) for total in sums)


def _bins(arrays: Sequence[Array], wiring: Wiring, samples: int, given: Mapping[str, object]) -> tuple[int, ...]:
    if "bins" in given:
        return (int(str(given["bins"])),)
    if wiring.combined:
        # Next to classes the number of fields does not determine the number of bins.  The usual number is 16.
        return (1, 16)
    fields = split(arrays, wiring, Layout(), samples)[0].shape[2]
    return (fields // 4,)


# -- scores -----------------------------------------------------------------------------------------------------


def _scores(
    raw: Array, layout: Layout, wiring: Wiring, grid: bool, given: Mapping[str, object]
) -> tuple[Layout, tuple[str, ...]] | None:
    """(the layout with its kind of score and its activation, doubts); None if these are not scores."""
    if not np.isfinite(raw).all():
        return None
    bounded = bool(raw.min() >= -1e-3 and raw.max() <= 1 + 1e-3)
    if "activation" not in given:
        layout = layout.stated({"activation": "probabilities" if bounded else "sigmoid"})
    if layout.activation == "probabilities" and not bounded:
        return None
    if layout.activation == "sigmoid" and "activation" not in given and not _logits(raw, wiring):
        return None
    if "score" in given:
        return layout, ()
    if wiring.objectness:
        return layout.stated({"score": "objectness"}), ()
    background = _background(raw, layout, grid)
    if background is not None:
        return layout.stated(background), ()
    if not wiring.combined or raw.shape[2] < 2 or layout.keypoints:
        return layout, ()
    objectness = _objectness(raw if layout.activation == "probabilities" else 1 / (1 + np.exp(-raw)))
    if objectness is None:
        doubt = "whether the fifth field is an objectness score or the first class (objectness, classes)"
        return layout, (doubt,)
    return layout.stated({"score": "objectness" if objectness else "classes"}), ()


def _logits(raw: Array, wiring: Wiring) -> bool:
    """Whether these may be logits: most places have no object, so most logits are negative.  With an objectness, only its
    logits must be negative, because the class scores then hold for every place."""
    below = np.mean(raw < 0, axis=(0, 1))
    if wiring.combined or wiring.objectness:
        return bool(below[0] >= MOSTLY)
    # The first or the last class may be the background.
    return max(float(np.mean(b)) for b in (below, below[1:], below[:-1]) if b.size) >= MOSTLY


def _background(raw: Array, layout: Layout, grid: bool) -> dict[str, object] | None:
    """Which class is the background, the first or the last; None if none is.

    Scores that sum to one have a background.  The logits of a set of predictions without a grid may have one.
    """
    if raw.shape[2] < 2:
        return None
    if layout.activation == "probabilities":
        if not np.allclose(raw.sum(axis=2, dtype=np.float64), 1.0, atol=2e-3):
            return None
        mean = raw.mean(axis=(0, 1))
    else:
        if grid:
            return None
        mean = np.bincount(raw.argmax(axis=2).ravel(), minlength=raw.shape[2]) / raw[..., 0].size
    first, last = float(mean[0]), float(mean[-1])
    if max(first, last) < 0.5:
        return None
    # For independent scores, the most frequent class is not a background: its logits are below zero too.
    if layout.activation != "probabilities" and np.median(raw[..., 0 if first > last else -1]) < 0:
        return None
    stated: dict[str, object] = {"score": "background-first" if first > last else "background-last"}
    return stated if layout.activation == "probabilities" else {**stated, "activation": "softmax"}


def _objectness(scores: Array) -> bool | None:
    """Whether the first score is an objectness; None if the values do not show it.

    An object has some class: where an objectness is high, the best of the following class scores is high too.  Where the
    score of the first class is high, the others are low.
    """
    first, others = scores[..., 0].ravel(), scores[..., 1:].max(axis=2).ravel()
    high = first >= THERE
    if np.count_nonzero(high) >= 3:
        return bool(np.median(others[high]) >= THERE)
    # With an objectness, class scores are high at many places, also at those without an object.
    busy = others >= THERE
    # Without any detection in either reading, the comparison with the original reports that.
    return False if np.mean(busy) <= FEW else None


def _keypoints(scores: Array) -> int:
    """Number of keypoints (x, y, visibility) after the scores.  Coordinates in pixels exceed scores; each third does not."""
    fields = scores.shape[2]
    over = (scores.max(axis=(0, 1)) > 1 + 1e-3) | (scores.min(axis=(0, 1)) < -1e-3)
    if not over.any():
        return 0
    first = int(np.argmax(over))
    count, left = divmod(fields - first, 3)
    bounded = not over[first + 2 :: 3].any()
    # Class logits exceed the bounds in every field.
    return count if first >= 1 and left == 0 and count and bounded else 0
