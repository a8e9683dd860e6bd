"""Detections written in every layout that exporters use: the inverse of what is under test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.grid import GridLevel
from onnxprune.tasks.detect.layout import Layout

Array = np.ndarray
SIZE = (128, 160)
LEVELS = tuple(GridLevel(s, SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32))
CLASSES, SAMPLES, THINGS = 5, 3, 4
WAYS = ("combined", "combined per level", "apart", "apart per level")


def things(seed: int = 0) -> list[Detections]:
    """A few boxes per sample that do not overlap."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(SAMPLES):
        corners = np.array([[4, 4], [84, 4], [4, 68], [84, 68]], dtype=float)
        sides = generator.uniform(24, 50, (THINGS, 2))
        left = corners + generator.uniform(0, 6, (THINGS, 2))
        scores = np.sort(generator.uniform(0.5, 0.95, THINGS))[::-1]
        classes = generator.integers(0, CLASSES, THINGS)
        found.append(Detections(np.hstack([left, left + sides]), scores.copy(), classes))
    return found


def scene(found: list[Detections], seed: int = 1) -> tuple[Array, Array]:
    """Boxes (n, A, 4) in pixels and class scores (n, A, C) of every place: the things, and background elsewhere."""
    generator = np.random.default_rng(seed)
    centres = np.concatenate([level.centres() for level in LEVELS])
    strides = np.concatenate([np.full(level.places, level.stride) for level in LEVELS])[:, None]
    shape = (SAMPLES, len(centres))
    half = generator.uniform(0.3, 2.0, (*shape, 4)) * strides
    boxes = np.concatenate([centres - half[..., :2], centres + half[..., 2:]], axis=2)
    scores = generator.uniform(0.0005, 0.002, (*shape, CLASSES))
    for sample, here in enumerate(found):
        for box, score, kind in zip(here.boxes, here.scores, here.classes, strict=True):
            middle = (box[:2] + box[2:]) / 2
            place = int(np.argmin(((LEVELS[0].centres() - middle) ** 2).sum(axis=1)))
            boxes[sample, place] = box
            scores[sample, place, kind] = score
    return boxes, scores


def layouts() -> Iterator[tuple[Layout, str]]:
    """Every dense layout, and how its fields are spread over tensors."""
    boxes = [
        *(Layout(box=b, unit=u) for b in ("xyxy", "xywh", "yxyx", "tlwh") for u in ("pixels", "normalised")),
        *(Layout(box="distances", unit=u) for u in ("pixels", "strides")),
        *(Layout(box="distances", unit="strides", bins=b) for b in (8, 16)),
        Layout(box="grid", unit="strides"),
    ]
    scores = [
        ("classes", "probabilities"),
        ("classes", "sigmoid"),
        ("objectness", "probabilities"),
        ("objectness", "sigmoid"),
        ("background-first", "probabilities"),
        ("background-last", "probabilities"),
        ("background-first", "softmax"),
    ]
    for box, (score, activation), axis, way in product(boxes, scores, ("places-first", "places-last"), WAYS):
        yield box.stated({"score": score, "activation": activation, "axis": axis}), way


def write(boxes: Array, scores: Array, layout: Layout, way: str) -> Answers:
    """A scene as a model with this layout would answer it."""
    raw, scored = _boxes(boxes, layout), _scores(scores, layout)
    tensors = [np.concatenate([raw, scored], axis=2)] if way.startswith("combined") else [raw, scored]
    if way.startswith("apart") and layout.score == "objectness":
        tensors = [raw, scored[..., :1], scored[..., 1:]]
    ends = np.cumsum([level.places for level in LEVELS])[:-1]
    arrays = []
    for tensor in tensors:
        for part, level in (
            zip(np.split(tensor, ends, axis=1), LEVELS, strict=True) if "level" in way else [(tensor, None)]
        ):
            if layout.axis == "places-last":
                part = part.swapaxes(1, 2)
                part = part if level is None else part.reshape(*part.shape[:2], level.height, level.width)
            arrays.append(np.ascontiguousarray(part, dtype=np.float32))
    return Answers(tuple(f"y{i}" for i in range(len(arrays))), (tuple(arrays),), (len(boxes),), SIZE)


def _boxes(boxes: Array, layout: Layout) -> Array:
    centres = np.concatenate([level.centres() for level in LEVELS])
    strides = np.concatenate([np.full(level.places, float(level.stride)) for level in LEVELS])[:, None]
    low, high = boxes[..., :2], boxes[..., 2:]
    if layout.box == "distances":
        raw = np.concatenate([centres - low, high - centres], axis=2)
    elif layout.box == "grid":
        offset = ((low + high) / 2 - centres) / strides + 0.5
        return np.concatenate([offset, np.log((high - low) / strides)], axis=2)
    elif layout.box == "xywh":
        raw = np.concatenate([(low + high) / 2, high - low], axis=2)
    elif layout.box == "tlwh":
        raw = np.concatenate([low, high - low], axis=2)
    else:
        raw = boxes[..., [1, 0, 3, 2]] if layout.box == "yxyx" else boxes
    if layout.unit == "normalised":
        sides = np.array([SIZE[1], SIZE[0]] * 2, dtype=float)
        raw = raw / (sides[[1, 0, 3, 2]] if layout.box == "yxyx" else sides)
    elif layout.unit == "strides":
        raw = raw / strides
    return raw if layout.bins == 1 else _distributions(raw, layout.bins)


def _distributions(raw: Array, bins: int) -> Array:
    """Logits whose softmax has its mean at each distance: two neighbouring bins share it."""
    below = np.clip(np.floor(raw), 0, bins - 2)
    above = raw - below
    shares = np.full((*raw.shape, bins), 1e-9)
    np.put_along_axis(shares, below[..., None].astype(int), (1 - above)[..., None], axis=3)
    np.put_along_axis(shares, below[..., None].astype(int) + 1, above[..., None], axis=3)
    return np.log(np.maximum(shares, 1e-9)).reshape(*raw.shape[:2], 4 * bins)


def _scores(scores: Array, layout: Layout) -> Array:
    if layout.score == "objectness":
        best = scores.max(axis=2, keepdims=True)
        # Which class it would be is told everywhere, also where nothing is.
        generator = np.random.default_rng(2)
        kinds = generator.uniform(0.05, 0.9, scores.shape)
        np.put_along_axis(kinds, scores.argmax(axis=2)[..., None], 0.9999, axis=2)
        scores = np.concatenate([best / 0.9999, kinds], axis=2)
    elif layout.score.startswith("background"):
        rest = 1 - scores.sum(axis=2, keepdims=True)
        scores = np.concatenate([rest, scores] if layout.score == "background-first" else [scores, rest], axis=2)
    if layout.activation == "sigmoid":
        return np.asarray(np.log(scores / (1 - scores)))
    return np.asarray(np.log(scores) if layout.activation == "softmax" else scores)


def alike(found: list[Detections], wanted: list[Detections], pixels: float = 0.05) -> bool:
    """Whether the confident detections are the same."""
    for here, there in zip(found, wanted, strict=True):
        here = here.above(0.25)
        if len(here) != len(there) or (here.classes != there.classes).any():
            return False
        if np.abs(here.boxes - there.boxes).max() > pixels or np.abs(here.scores - there.scores).max() > 1e-3:
            return False
    return True
