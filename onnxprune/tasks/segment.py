"""Segmenters: a class per pixel, or masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.interval import bootstrap
from onnxprune.tasks.maps import is_map_of, likely_channel_axis
from onnxprune.tasks.task import Agreement, Guess, TaskKind

Array = np.ndarray
MEASURE = "mean IoU lost"
#: Minimum share of a mask's values in the outer tenths of 0 … 1.  Images have most values in between.
OUTER = 0.75
#: Minimum share of neighbours with the same best class in a segmentation: classes form areas.
AREAS = 0.75


@dataclass(frozen=True)
class Segment:
    """``outputs``: positions of the outputs read.  ``way``: "labels", "arg-max" over ``axis``, or "masks": probabilities
    (logits with ``logits``) of at least 0.5."""

    outputs: tuple[int, ...]
    way: str
    axis: int = 1
    logits: bool = False

    @property
    def kind(self) -> TaskKind:
        return "segment"

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def allowed(self) -> float:
        return 0.05

    @property
    def how(self) -> str:
        ways = {"labels": "a label per pixel", "arg-max": "the best class per pixel", "masks": "masks at one half"}
        return ways[self.way]

    @property
    def reads(self) -> tuple[int, ...]:
        return self.outputs

    def maps(self, answers: Answers) -> list[Array]:
        """One array per output and batch: a label per pixel (n, …), or masks (n, …) of 0 and 1."""
        return [self._map(part) for index in self.outputs for part in answers.parts(index)]

    def _map(self, part: Array) -> Array:
        if self.way == "labels":
            return part
        if self.way == "arg-max":
            return np.asarray(part.argmax(axis=self.axis).astype(np.int32))
        return np.asarray((part >= (0.0 if self.logits else 0.5)).astype(np.int8))

    def against(self, original: Answers) -> SegmentComparer:
        maps = self.maps(original)
        if self.way == "masks" and not any(one.any() for one in maps):
            raise DataError(
                f"the original's masks are empty on all {original.samples} held-out samples: check --data and "
                "--preprocess"
            )
        return SegmentComparer(self, maps, original.counts)

    def first(self, answers: Answers) -> str:
        one = self.maps(replace(answers, batches=answers.batches[:1], counts=answers.counts[:1]))[0][0]
        values, counts = np.unique(one, return_counts=True)
        if self.way == "masks":
            return f"a mask over {float(np.mean(one != 0)):.1%} of the picture"
        best = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)[:3]
        shares = ", ".join(f"{answers.called(int(value))} {count / one.size:.0%}" for count, value in best)
        return f"{len(values)} class{'' if len(values) == 1 else 'es'}: {shares}"


@dataclass(frozen=True, eq=False)
class SegmentComparer:
    """One minus the mean IoU over classes, pooled over samples; for masks, one minus the IoU of the covered area."""

    reader: Segment
    maps: Sequence[Array]
    counts: tuple[int, ...]

    @property
    def basis(self) -> str:
        return ""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        shared, union = self._sums(self.reader.maps(answers))
        value = _mean_iou(shared.sum(axis=0), union.sum(axis=0))
        low, high = None, None
        if resamples:
            low, high = bootstrap(
                lambda chosen: 1 - _mean_iou(shared[chosen].sum(axis=0), union[chosen].sum(axis=0)),
                len(shared),
                resamples,
            )
        return Agreement(MEASURE, 1 - value, answers.samples, low, high, (("mean IoU", value),))

    def _sums(self, maps: Sequence[Array]) -> tuple[Array, Array]:
        """Two arrays (samples, classes): pixels that both models give a class, and pixels that either model does."""
        least = 1 if self.reader.way == "masks" else 0
        classes = int(max(int(m.max(initial=0)) for m in (*self.maps, *maps))) + 1
        samples = sum(self.counts)
        shared, union = np.zeros((samples, classes)), np.zeros((samples, classes))
        per_output = len(self.counts)
        for position, (a, b) in enumerate(zip(self.maps, maps, strict=True)):
            start = sum(self.counts[: position % per_output])
            for row in range(len(a)):
                left, right = a[row].ravel().astype(np.int64), b[row].ravel().astype(np.int64)
                if left.shape != right.shape:
                    raise DataError("the two models' maps differ in size and cannot be compared")
                both = np.bincount(left[left == right], minlength=classes)
                either = np.bincount(left, minlength=classes) + np.bincount(right, minlength=classes) - both
                shared[start + row] += both
                union[start + row] += either
        return shared[:, least:], union[:, least:]


def _mean_iou(shared: Array, union: Array) -> float:
    there = union > 0
    return float(np.mean(shared[there] / union[there])) if there.any() else 1.0


def segment(answers: Answers) -> Guess:
    """Guess: maps of labels, of class scores, or of masks, but not images or fields of numbers."""
    first = answers.batches[0]
    kinds = [_kind(answers.parts(i), answers.counts, answers) for i in range(len(first))]
    maps = [kind for kind in kinds if kind is not None]
    if not maps:
        return Guess(None, False, "no output is a map of classes or a mask; give another --task, or give your own metric with --eval")
    ways = {(f.way, f.axis, f.logits) for f in maps}
    if len(ways) > 1:
        return Guess(None, False, "maps of several kinds")
    indices = tuple(i for i, kind in enumerate(kinds) if kind is not None)
    sure = len(maps) == len(kinds) and all(_sure(answers.parts(i), maps[0]) for i in indices)
    return Guess(replace(maps[0], outputs=indices), sure, maps[0].how)


def _kind(parts: Sequence[Array], counts: Sequence[int], answers: Answers) -> Segment | None:
    one = parts[0]
    if answers.tokens or one.ndim < 3 or any(len(part) != count for part, count in zip(parts, counts, strict=True)):
        return None
    if one.dtype.kind in "iu" and min(one.shape[1:][-2:]) > 1 and one.min() >= 0:
        return Segment((), "labels")
    if one.dtype.kind == "b":
        return Segment((), "masks")
    if one.dtype.kind != "f" or not np.isfinite(one).all():
        return None
    axis = likely_channel_axis(one.shape, answers.size) if one.ndim == 4 else one.ndim - 1
    if one.shape[axis] > 1 and (_sums_to_one(one, axis) or (one.ndim == 4 and _in_areas(one, axis, answers))):
        # Probabilities over a list of positions may be characters of a text, or classes of boxes.
        return Segment((), "arg-max", axis) if one.ndim != 3 or _pixels(one, answers.size) else None
    # Values that all lie in 0 … 1 come from a sigmoid, not from chance.  A line is no map.
    bounded = one.min() >= 0 and one.max() <= 1 and min(one.shape[-2:]) > 1
    return Segment((), "masks") if bounded and not _colours(one, axis) else None


def _pixels(one: Array, size: tuple[int, int] | None) -> bool:
    """Whether the rows (samples, places, C) are those of a map's pixels.  As many classes as places are an attention."""
    return size is not None and one.shape[1] != one.shape[2] and is_map_of(one.shape[1], size)


def _colours(one: Array, axis: int) -> bool:
    """Whether these are the three colours of pictures: most values lie between the outer tenths."""
    return one.ndim == 4 and one.shape[axis] == 3 and float(np.mean((one < 0.1) | (one > 0.9))) < OUTER


def _sums_to_one(one: Array, axis: int) -> bool:
    return bool(one.min() >= 0 and np.allclose(one.sum(axis=axis, dtype=np.float64), 1.0, atol=1e-2))


def _in_areas(one: Array, axis: int, answers: Answers) -> bool:
    """Whether these are scores of several classes.  The best class of a pixel must mostly equal the best class of its
    neighbours, but must not be the same everywhere."""
    bounded = one.min() >= -0.01 and one.max() <= 1.01
    if bounded or one.shape[axis] < 4 or answers.size is None:
        return False
    best = one.argmax(axis=axis)
    same = np.mean(best[:, 1:] == best[:, :-1]), np.mean(best[:, :, 1:] == best[:, :, :-1])
    return bool(min(same) >= AREAS and len(np.unique(best)) > 1)


def _sure(parts: Sequence[Array], reader: Segment) -> bool:
    if reader.way == "arg-max":
        # The same class everywhere shows nothing.
        return len(np.unique(np.concatenate([part.argmax(axis=reader.axis).ravel() for part in parts]))) > 1
    if reader.way == "labels" or parts[0].dtype.kind == "b":
        return True
    values = np.concatenate([part.ravel() for part in parts])
    return bool(np.mean((values < 0.1) | (values > 0.9)) >= OUTER)
