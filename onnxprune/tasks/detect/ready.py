"""Ready detections: final ones, after suppression in the graph, as rows or as one tensor per field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.dense import straight
from onnxprune.tasks.detect.detections import Detections, ranked
from onnxprune.tasks.detect.layout import Layout
from onnxprune.tasks.detect.suppress import FLOOR, MAX_DETECTIONS

Array = np.ndarray
#: Number of fields → orders of fields that exporters write.
ORDERS: Mapping[int, tuple[tuple[str, ...], ...]] = {
    5: (("box", "score"),),
    6: (("box", "score", "class"), ("class", "score", "box"), ("box", "class", "score")),
    7: (
        ("batch", "box", "class", "score"),
        ("batch", "class", "score", "box"),
        ("batch", "box", "score", "class"),
    ),
}
WIDTHS = {"batch": 1, "box": 4, "score": 1, "class": 1}
NORMALISED = 2.5


@dataclass(frozen=True)
class Ready:
    """Positions of the outputs with ready detections: ``rows`` alone, or one output per field.  -1 if there is none."""

    layout: Layout
    rows: int = -1
    boxes: int = -1
    scores: int = -1
    classes: int = -1
    counts: int = -1

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions of the outputs read."""
        return tuple(i for i in (self.rows, self.boxes, self.scores, self.classes, self.counts) if i >= 0)


def recognise_ready(answers: Answers, given: Mapping[str, object]) -> Ready | None:
    """The reading of ready detections that the shapes and values allow, or None.  ``given``: see ``parse_layout``."""
    if not answers.batches or given.get("form") == "dense" or answers.size is None:
        return None
    form = given.get("form")
    rows = None if form == "columns" else _rows(answers, given)
    return rows if rows is not None else None if form == "rows" else _columns(answers, given)


# -- rows -------------------------------------------------------------------------------------------------------


def _rows(answers: Answers, given: Mapping[str, object]) -> Ready | None:
    for index in range(len(answers.names)):
        parts = answers.parts(index)
        if parts[0].dtype.kind != "f" or not 2 <= parts[0].ndim <= 4 or parts[0].shape[-1] < 5:
            continue
        flat = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
        stated = given.get("order")
        orders = ORDERS.get(flat.shape[1], ()) if stated is None else (stated,)
        for order in orders:
            assert isinstance(order, tuple)
            if sum(WIDTHS[field] for field in order) != flat.shape[1]:
                continue
            if "batch" not in order and not _per_sample(answers, parts):
                continue
            used = _used(flat, order)
            beside = _classes_beside(answers, index) if "class" not in order else -1
            if stated is None and not _fits(used, order, answers):
                continue
            if stated is None and "class" not in order and beside < 0 and not _sorted(parts):
                continue
            layout = _boxed(Layout("rows", order=order), used[:, _at(order, "box")], given)
            return Ready(layout, rows=index, classes=beside)
    return None


def _classes_beside(answers: Answers, rows: int) -> int:
    """The output with one integer per row; -1 if there is none."""
    first = answers.batches[0]
    alike = (i for i, a in enumerate(first) if a.shape == first[rows].shape[:-1] and a.dtype.kind in "iu")
    return next(alike, -1)


def _sorted(parts: Sequence[Array]) -> bool:
    """Whether scores fall from row to row: then a suppression, or a selection of the best, made them."""
    return all(bool((np.diff(part[..., 4], axis=-1) <= 0).all()) for part in parts)


def _per_sample(answers: Answers, parts: Sequence[Array]) -> bool:
    """Whether rows need no sample number: each sample has its own rows, or each batch is one sample."""
    return all(
        (part.ndim >= 3 and len(part) == count) or count == 1 for part, count in zip(parts, answers.counts, strict=True)
    )


def _at(order: Sequence[str], field: str) -> slice:
    start = sum(WIDTHS[name] for name in order[: order.index(field)])
    return slice(start, start + WIDTHS[field])


def _used(flat: Array, order: Sequence[str]) -> Array:
    """The rows that are not padding."""
    return flat[flat[:, _at(order, "score")][:, 0] > 0]


def _fits(used: Array, order: Sequence[str], answers: Answers) -> bool:
    if not len(used):
        return False
    scores = used[:, _at(order, "score")][:, 0]
    # A column of whole numbers is not a score.
    if scores.max() > 1 + 1e-3 or _whole(scores):
        return False
    for field in ("class", "batch"):
        if field in order and not _whole(used[:, _at(order, field)][:, 0]):
            return False
    if "batch" in order:
        batch = used[:, _at(order, "batch")][:, 0]
        if batch.min() < 0 or batch.max() >= max(answers.counts):
            return False
    return _ordered(used[:, _at(order, "box")])


def _whole(values: Array) -> bool:
    return bool(np.isfinite(values).all() and (values == np.round(values)).all() and values.min() >= -1)


def _ordered(boxes: Array) -> bool:
    return bool(np.isfinite(boxes).all() and np.mean((boxes[:, 2:] >= boxes[:, :2]).all(axis=1)) >= 0.99)


def _boxed(layout: Layout, boxes: Array, given: Mapping[str, object]) -> Layout:
    box = "xyxy" if not len(boxes) or _ordered(boxes) else "xywh"
    unit = "normalised" if len(boxes) and float(np.abs(boxes).max()) <= NORMALISED else "pixels"
    stated = {key: value for key, value in given.items() if key in ("box", "unit")}
    return layout.stated({"box": box, "unit": unit, **stated})


# -- columns ----------------------------------------------------------------------------------------------------


def _columns(answers: Answers, given: Mapping[str, object]) -> Ready | None:
    first = answers.batches[0]
    for index, boxes in enumerate(first):
        if boxes.dtype.kind not in "fi" or boxes.ndim not in (2, 3) or boxes.shape[-1] != 4:
            continue
        beside = [i for i, a in enumerate(first) if i != index and a.shape == boxes.shape[:-1]]
        batched = boxes.ndim == 3 and len(boxes) == answers.counts[0]
        if not beside or not (batched or all(count == 1 for count in answers.counts)):
            continue
        values = {i: np.concatenate([part.ravel() for part in answers.parts(i)]) for i in beside}
        scores = [i for i, v in values.items() if v.dtype.kind == "f" and v.size and not _whole(v) and _shares(v)]
        classes = [i for i, v in values.items() if i not in scores and v.size and _whole(v.astype(np.float64))]
        if len(scores) != 1:
            continue
        flat = np.concatenate([part.reshape(-1, 4) for part in answers.parts(index)]).astype(np.float64)
        used = flat[values[scores[0]] > 0]
        if not len(used) or not (_ordered(used) or "box" in given):
            continue
        counts = [
            i for i, a in enumerate(first) if a.size == answers.counts[0] and _whole(a.astype(np.float64).ravel())
        ]
        counts = [i for i in counts if i not in (index, *beside)]
        layout = _boxed(Layout("columns"), used, given)
        return Ready(
            layout,
            boxes=index,
            scores=scores[0],
            classes=classes[0] if classes else -1,
            counts=counts[0] if counts else -1,
        )
    return None


def _shares(values: Array) -> bool:
    return bool(values.min() >= -1 - 1e-3 and values.max() <= 1 + 1e-3)


# -- decoding ---------------------------------------------------------------------------------------------------


def decode_ready(arrays: Sequence[Array], ready: Ready, size: tuple[int, int], samples: int) -> list[Detections]:
    """The detections in a batch of ready outputs, one entry per sample."""
    if ready.rows >= 0:
        beside = arrays[ready.classes] if ready.classes >= 0 else None
        return _decode_rows(arrays[ready.rows], beside, ready.layout, size, samples)
    boxes = arrays[ready.boxes]
    batched = boxes.ndim == 3
    detections = []
    for row in range(samples):
        own = boxes[row] if batched else boxes
        most = len(own)
        if ready.counts >= 0:
            most = min(most, int(np.asarray(arrays[ready.counts]).ravel()[row]))
        scores = (arrays[ready.scores][row] if batched else arrays[ready.scores])[:most]
        classes = np.zeros(len(scores))
        if ready.classes >= 0:
            classes = (arrays[ready.classes][row] if batched else arrays[ready.classes])[:most]
        detections.append(_detections(own[:most], scores, classes, ready.layout, size))
    return detections


def _decode_rows(
    array: Array, beside: Array | None, layout: Layout, size: tuple[int, int], samples: int
) -> list[Detections]:
    order = layout.order
    flat = array.reshape(-1, array.shape[-1])
    if beside is not None:
        flat = np.concatenate([flat, beside.reshape(-1, 1)], axis=1)
        order = (*order, "class")
    per_sample = len(flat) // max(samples, 1)
    detections = []
    for sample in range(samples):
        if "batch" in order:
            rows = flat[flat[:, _at(order, "batch")][:, 0] == sample]
        else:
            rows = flat[sample * per_sample : (sample + 1) * per_sample]
        classes = rows[:, _at(order, "class")][:, 0] if "class" in order else np.zeros(len(rows))
        scores = rows[:, _at(order, "score")][:, 0]
        detections.append(_detections(rows[:, _at(order, "box")], scores, classes, layout, size))
    return detections


def _detections(boxes: Array, scores: Array, classes: Array, layout: Layout, size: tuple[int, int]) -> Detections:
    wide = boxes.astype(np.float64)
    if layout.unit == "normalised":
        sides = np.array([size[1], size[0], size[1], size[0]], dtype=np.float64)
        wide = wide * (sides[[1, 0, 3, 2]] if layout.box == "yxyx" else sides)
    kept = (scores >= FLOOR) & (classes >= 0) & np.isfinite(wide).all(axis=1)
    return ranked(straight(wide, layout.box)[kept], scores[kept], classes[kept], None, MAX_DETECTIONS)
