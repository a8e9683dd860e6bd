"""Poses: keypoints of each detected person, or of the single subject of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.reader import CONFIDENT, Detect, detect
from onnxprune.tasks.detect.suppress import overlap
from onnxprune.tasks.interval import bootstrap
from onnxprune.tasks.maps import likely_channel_axis, map_channel_axis
from onnxprune.tasks.task import Agreement, Guess, Reader, TaskKind

Array = np.ndarray
MEASURE = "keypoint similarity lost"
#: Spread of annotators at each of COCO's 17 keypoints, as a share of the person's size (cocodataset.org/#keypoints-eval).
#: Other sets of keypoints use the mean.
COCO = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
#: Minimum confidence of the original for a keypoint to count.
VISIBLE = 0.3
#: Minimum overlap of two boxes of the same person.
SAME = 0.5
#: Number of samples to look at.
SEEN = 16
#: Minimum share of a heat map's high values within an eighth of its longer side from its peak, median over maps.  A model
#: of poses fed pictures without people had 0.55 to 1, the score maps of a detector 0.27 to 0.45.
TOGETHER = 0.6


@dataclass(frozen=True, eq=False)
class Pose:
    """``points`` maps answers to the people on each sample, as detections with keypoints.  ``how`` describes the reading
    in words.  ``reads`` are the positions of the outputs read."""

    points: Callable[[Answers], list[Detections]]
    how: str
    reads: tuple[int, ...]

    @property
    def kind(self) -> TaskKind:
        return "pose"

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def allowed(self) -> float:
        return 0.05

    def against(self, original: Answers) -> PoseComparer:
        there = [one.above(CONFIDENT) for one in self.points(original)]
        if not any(len(one) for one in there):
            raise DataError(
                f"the original finds no keypoints above {CONFIDENT:g} on {original.samples} held-out samples: check "
                "--data, --preprocess and --layout"
            )
        return PoseComparer(self, there)

    def first(self, answers: Answers) -> str:
        first = self.points(replace(answers, batches=answers.batches[:1], counts=answers.counts[:1]))[0]
        sure = first.above(CONFIDENT)
        if not len(sure) or sure.points is None:
            return "no keypoints"
        visible = int(np.count_nonzero(sure.points[0, :, 2] >= VISIBLE))
        poses = f"{len(sure)} pose{'' if len(sure) == 1 else 's'} above {CONFIDENT:g}"
        return f"{poses}, {visible} of {sure.points.shape[1]} keypoints visible in the best"


@dataclass(frozen=True, eq=False)
class PoseComparer:
    """One minus the mean object keypoint similarity of the original's people and the people found in their places."""

    reader: Pose
    there: Sequence[Detections]

    @property
    def basis(self) -> str:
        return f"{sum(map(len, self.there))} poses of the original on {len(self.there)} held-out samples"

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        similar = [_similar(a, b) for a, b in zip(self.there, self.reader.points(answers), strict=True)]

        def lost(chosen: Array) -> float:
            values = np.concatenate([similar[i] for i in chosen])
            return 1 - float(values.mean()) if values.size else float("nan")

        drop = lost(np.arange(len(similar)))
        low, high = bootstrap(lost, len(similar), resamples) if resamples else (None, None)
        return Agreement(MEASURE, drop, len(similar), low, high, (("OKS", 1 - drop),))


def _similar(original: Detections, pruned: Detections) -> Array:
    """(people,): the similarity of each person and the best remaining overlapping one; 0 if none overlaps."""
    left = np.ones(len(pruned), dtype=bool)
    values = np.zeros(len(original))
    for person in range(len(original)):
        near = np.flatnonzero(left & (overlap(original.boxes[person], pruned.boxes) >= SAME))
        if original.points is None or pruned.points is None or not len(near):
            continue
        scores = [oks(original.points[person], pruned.points[i], original.boxes[person]) for i in near]
        values[person] = max(scores)
        left[near[int(np.argmax(scores))]] = False
    return values


def oks(there: Array, pruned: Array, box: Array) -> float:
    """Object keypoint similarity, 0 … 1, over the keypoints visible in ``there`` (COCO keypoint evaluation).

    ``there`` and ``pruned`` are (K, 3).  ``box`` is the person's left, top, right, bottom; its area is the person's size.
    """
    visible = there[:, 2] >= VISIBLE
    visible = visible if visible.any() else np.ones(len(there), dtype=bool)
    sigmas = COCO if len(there) == len(COCO) else np.full(len(there), COCO.mean())
    area = max(float(np.prod(np.maximum(box[2:] - box[:2], 0))), 1.0)
    squared = ((there[:, :2] - pruned[:, :2]) ** 2).sum(axis=1)
    # COCO's variance is (2σ)².  COCO takes the area of the segment, which is about half the area of the box.
    errors = squared / (2 * (2 * sigmas) ** 2 * area / 2)
    # A keypoint at NaN has no similarity.
    return float(np.nan_to_num(np.exp(-errors[visible])).mean())


def pose(answers: Answers, given: Mapping[str, object]) -> Guess:
    """Guess: heat maps, detections with keypoints, or coordinates.  ``given`` holds what ``--layout`` states."""
    maps = Guess(None, False, "") if given else heat_maps(answers)
    if maps.reader is not None:
        return maps
    guessed = detect(answers, given)
    if isinstance(guessed.reader, Detect) and guessed.reader.layout.keypoints:
        reader = guessed.reader
        return Guess(
            Pose(reader.detections, f"keypoints, --layout {reader.layout.text()}", reader.reads),
            guessed.sure,
            guessed.because,
        )
    for index in range(len(answers.names)):
        values = answers.batches[0][index]
        if answers.row(index) is None or values.dtype.kind != "f" or not np.isfinite(values).all():
            continue
        shape = values.shape[1:]
        if len(shape) >= 2 and shape[-1] == 3 and int(np.prod(shape[:-1])) in range(4, 200):
            return Guess(_of_coordinates(index), False, f"{int(np.prod(shape[:-1]))} rows of three numbers")
    return Guess(None, False, "no keypoints")


def heat_maps(answers: Answers) -> Guess:
    """Guess: one heat map per keypoint.  Certain only if shapes show which axis holds the keypoints."""
    for index in range(len(answers.names)):
        values = answers.stacked(index)
        if values is None or values.ndim != 4 or values.dtype.kind != "f" or not np.isfinite(values).all():
            continue
        axis = likely_channel_axis(values.shape, answers.size)
        if _heat(np.moveaxis(values[:SEEN], axis, 1)):
            sure = map_channel_axis(values.shape, answers.size) is not None
            return Guess(_of_heat(index, axis), sure, f"{values.shape[axis]} heat maps")
    return Guess(None, False, "no heat maps")


def _heat(values: Array) -> bool:
    """Whether (samples, K, rows, columns) are heat maps: each has one peak and is almost zero elsewhere."""
    if not 4 <= values.shape[1] <= 200 or values[0, 0].size < 64:
        return False
    maps = values.reshape(-1, *values.shape[2:])
    peak = maps.max(axis=(1, 2))
    high = maps >= peak[:, None, None] / 2
    alike = 0.05 < float(np.median(peak)) < 2 and float(np.median(np.abs(maps))) < 0.05
    # A Gaussian of two pixels covers one percent of a map of 64 × 48.
    narrow = float(np.median(high.mean(axis=(1, 2)))) < 0.03
    return alike and narrow and float(np.median([_together(m, h) for m, h in zip(maps, high, strict=True)])) >= TOGETHER


def _together(one: Array, high: Array) -> float:
    """The share of a map's ``high`` values within an eighth of its longer side from its peak."""
    row, column = np.unravel_index(int(one.argmax()), one.shape)
    y, x = np.nonzero(high)
    apart = np.maximum(np.abs(y - row), np.abs(x - column))
    return float(np.mean(apart <= max(one.shape) / 8)) if apart.size else 0.0


def _of_heat(index: int, axis: int) -> Reader:
    def points(answers: Answers) -> list[Detections]:
        people = []
        for part in answers.parts(index):
            maps = np.moveaxis(part, axis, 1)
            rows, columns = maps.shape[2:]
            flat = np.nan_to_num(maps.reshape(*maps.shape[:2], -1))
            best = flat.argmax(axis=2)
            height, width = answers.size or (rows, columns)
            x, y = (best % columns + 0.5) * width / columns, (best // columns + 0.5) * height / rows
            people += [_one(np.stack(p, axis=1), (height, width)) for p in zip(x, y, flat.max(axis=2), strict=True)]
        return people

    return Pose(points, "one heat map per keypoint", (index,))


def _of_coordinates(index: int) -> Reader:
    def points(answers: Answers) -> list[Detections]:
        values = np.concatenate(answers.parts(index)).astype(np.float64)
        rows = np.nan_to_num(values.reshape(len(values), -1, 3))
        height, width = answers.size or (1, 1)
        scale = np.array([width, height, 1.0]) if np.abs(rows).max() <= 2 else np.ones(3)
        return [_one(row * scale, (height, width)) for row in rows]

    return Pose(points, "three numbers per keypoint", (index,))


def _one(points: Array, size: tuple[int, int]) -> Detections:
    """The single subject of an image.  Its box is the whole image, so that a lost pose still overlaps it."""
    box = np.array([[0.0, 0.0, size[1], size[0]]])
    return Detections(box, np.ones(1), np.zeros(1, dtype=np.int64), points[None].astype(np.float64))
