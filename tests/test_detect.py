"""Detections are read from every layout; their average precision is 1 for a model with itself and about 0 for noise."""

from __future__ import annotations

import numpy as np
import pytest
from detector_layouts import (
    CLASSES,
    LEVELS,
    SAMPLES,
    SIZE,
    alike,
    layouts,
    scene,
    things,
    write,
)

from onnxprune.errors import DataError, OptionError
from onnxprune.measure.loss import OutputLoss
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.grid import grid_levels
from onnxprune.tasks.detect.layout import Layout, parse_layout
from onnxprune.tasks.detect.precision import precision, truth
from onnxprune.tasks.detect.reader import Detect, detect
from onnxprune.tasks.detect.suppress import suppressed
from onnxprune.tasks.guess import guess, stated
from onnxprune.tasks.yardstick import outputs, yardstick

Array = np.ndarray
THINGS = things()
SCENE = scene(THINGS)
EVERY = list(layouts())


def ids(value: object) -> str:
    return value.text() if isinstance(value, Layout) else str(value)


def read(answers: Answers, given: dict[str, object]) -> Detect:
    found = detect(answers, given).reader
    assert isinstance(found, Detect)
    return found


@pytest.mark.parametrize(("layout", "way"), EVERY, ids=ids)
def test_what_is_written_in_a_stated_layout_is_read(layout: Layout, way: str) -> None:
    answers = write(*SCENE, layout, way)
    assert alike(read(answers, parse_layout(layout.text())).detections(answers), THINGS)


def guessable(layout: Layout, way: str) -> bool:
    """What values tell: logits with a background on a grid, fields in another order, and a number of bins beside
    classes other than 16, must be stated."""
    told = layout.box in ("xyxy", "xywh", "distances", "grid") and layout.activation != "softmax"
    return told and not (way.startswith("combined") and layout.bins == 8)


@pytest.mark.parametrize(("layout", "way"), [(a, b) for a, b in EVERY if guessable(a, b)], ids=ids)
def test_what_is_written_is_recognised(layout: Layout, way: str) -> None:
    answers = write(*SCENE, layout, way)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert found.sure
    assert found.reader.layout == layout
    assert alike(found.reader.detections(answers), THINGS)


@pytest.mark.parametrize("count", [100, 300])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_set_of_predictions_on_no_grid_is_recognised(count: int, activation: str) -> None:
    generator = np.random.default_rng(0)
    middle = generator.uniform(0.2, 0.8, (SAMPLES, count, 2))
    sides = generator.uniform(0.05, 0.3, (SAMPLES, count, 2))
    scores = generator.uniform(0.0005, 0.002, (SAMPLES, count, CLASSES))
    scores[:, 0, 3] = 0.9
    if activation == "softmax":
        scores = np.concatenate([scores, 1 - scores.sum(axis=2, keepdims=True)], axis=2)
    logits = np.log(scores) + 5 if activation == "softmax" else np.log(scores / (1 - scores))
    boxes = np.concatenate([middle, sides], axis=2)
    answers = Answers(("logits", "boxes"), ((logits, boxes),), (SAMPLES,), SIZE)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert found.sure
    assert found.reader.layout.box == "xywh"
    assert found.reader.layout.activation == activation
    assert [list(f.above(0.25).classes) for f in found.reader.detections(answers)] == [[3]] * SAMPLES


@pytest.mark.parametrize("axis", ["places-first", "places-last"])
def test_coefficients_of_masks_behind_the_classes_are_no_scores(axis: str) -> None:
    """As segmenters with boxes answer: 32 coefficients at the end of each row, and 32 prototypes beside."""
    layout = Layout(box="xywh", axis=axis)
    fields = write(*SCENE, layout, "combined").batches[0][0]
    fields = fields if axis == "places-first" else fields.swapaxes(1, 2)
    generator = np.random.default_rng(0)
    rows = np.concatenate([fields, generator.normal(size=(*fields.shape[:2], 32)).astype(np.float32)], axis=2)
    rows = rows if axis == "places-first" else rows.swapaxes(1, 2)
    masks = generator.normal(size=(SAMPLES, 32, 32, 40)).astype(np.float32)
    answers = Answers(("rows", "masks"), ((np.ascontiguousarray(rows), masks),), (SAMPLES,), SIZE)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert found.sure
    assert found.reader.layout == layout
    assert alike(found.reader.detections(answers), THINGS)
    note = yardstick(answers, "auto", "", True, OutputLoss(outputs(answers), ())).note
    assert note is not None
    assert "not read: masks" in note


# -- ready detections -------------------------------------------------------------------------------------------

FIELDS = {"box": 4, "score": 1, "class": 1, "batch": 1}
ORDERS = [
    ("box", "score", "class"),
    ("class", "score", "box"),
    ("box", "class", "score"),
    ("batch", "box", "class", "score"),
    ("batch", "class", "score", "box"),
    ("batch", "box", "score", "class"),
]


def rows(order: tuple[str, ...], normalised: bool) -> list[Array]:
    sides = np.array([SIZE[1], SIZE[0]] * 2, dtype=float) if normalised else np.ones(4)
    found = []
    for sample, here in enumerate(THINGS):
        values = {
            "box": here.boxes / sides,
            "score": here.scores[:, None],
            "class": here.classes[:, None],
            "batch": np.full((len(here), 1), sample),
        }
        found.append(np.concatenate([values[field] for field in order], axis=1).astype(np.float32))
    return found


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("order", ORDERS, ids=".".join)
@pytest.mark.parametrize("form", ["stacked", "padded", "one sample at a time", "one list"])
def test_ready_rows_are_recognised(order: tuple[str, ...], normalised: bool, form: str) -> None:
    parts = rows(order, normalised)
    if form == "one list":
        if "batch" not in order:
            pytest.skip("rows of several samples need the number of their sample")
        batches, counts = ((np.concatenate(parts),),), (SAMPLES,)
    elif form == "one sample at a time":
        for part in parts:
            if "batch" in order:
                part[:, 0] = 0
        batches, counts = tuple((part,) for part in parts), (1,) * SAMPLES
    else:
        stacked = np.stack(parts)
        if form == "padded":
            stacked = np.concatenate([stacked, np.zeros((SAMPLES, 3, stacked.shape[2]), np.float32)], axis=1)
        batches, counts = ((stacked,),), (SAMPLES,)
    answers = Answers(("y",), batches, counts, SIZE)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert found.sure
    assert found.reader.layout.order == order
    assert alike(found.reader.detections(answers), THINGS)


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("classed", [False, True])
def test_ready_columns_are_recognised(integer: bool, counted: bool, classed: bool) -> None:
    pad = 3
    boxes, scores, classes = np.zeros((SAMPLES, 4 + pad, 4)), np.zeros((SAMPLES, 4 + pad)), np.zeros((SAMPLES, 4 + pad))
    for sample, here in enumerate(THINGS):
        boxes[sample, :4], scores[sample, :4], classes[sample, :4] = here.boxes, here.scores, here.classes
    if counted:
        # What lies behind the count is whatever was in memory.
        scores[:, 4:], boxes[:, 4:] = 0.5, [1, 1, 9, 9]
    outputs = [boxes, scores]
    outputs += [classes.astype(np.int64 if integer else np.float32)] if classed else []
    outputs += [np.full((SAMPLES, 1), 4, np.int32)] if counted else []
    answers = Answers(tuple("abcd"[: len(outputs)]), (tuple(outputs),), (SAMPLES,), SIZE)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert found.sure
    wanted = THINGS if classed else [Detections(f.boxes, f.scores, np.zeros(len(f), np.int64)) for f in THINGS]
    assert alike(found.reader.detections(answers), wanted)


def test_ready_rows_with_their_classes_beside() -> None:
    boxes = np.stack([np.hstack([f.boxes, f.scores[:, None]]) for f in THINGS]).astype(np.float32)
    answers = Answers(("dets", "labels"), ((boxes, np.stack([f.classes for f in THINGS])),), (SAMPLES,), SIZE)
    found = guess(answers)
    assert isinstance(found.reader, Detect)
    assert alike(found.reader.detections(answers), THINGS)


def test_the_order_of_ready_rows_does_not_matter() -> None:
    answers = Answers(("y",), ((np.stack(rows(ORDERS[0], False)),),), (SAMPLES,), SIZE)
    turned = Answers(("y",), ((answers.batches[0][0][:, ::-1],),), (SAMPLES,), SIZE)
    reader = read(answers, {})
    agreement = reader.against(answers)(turned, 20)
    assert (agreement.drop, agreement.low) == (0, 0)
    for here, there in zip(reader.detections(answers), reader.detections(turned), strict=True):
        np.testing.assert_array_equal(here.boxes, there.boxes)


# -- average precision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "way"), EVERY[::29], ids=ids)
def test_a_detector_agrees_with_itself_and_not_with_noise(layout: Layout, way: str) -> None:
    answers = write(*SCENE, layout, way)
    reader = read(answers, parse_layout(layout.text()))
    same = reader.against(answers)(answers, 20)
    assert (same.drop, same.low) == (0, 0)
    # Twelve boxes that are all found leave room for one in four that is not.
    assert same.high == pytest.approx(0.2425, abs=1e-3)
    assert dict(same.figures) == {"AP50": 1, "AP50-95": 1}
    other = write(*scene(things(5), 7), layout, way)
    assert reader.against(answers)(other, 0).drop > 0.5


def test_noise_is_no_agreement() -> None:
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 100, (SAMPLES, 60, 2))
    noise = [Detections(np.hstack([p, p + 20]), generator.uniform(size=60), generator.integers(0, CLASSES, 60)) for p in low]
    score = precision(truth(THINGS), noise, 50)
    assert score.ap50 < 0.1
    assert score.low is not None
    assert score.high is not None
    assert score.low <= score.ap50 <= score.high


def test_a_model_that_finds_nothing_or_answers_nan_loses_everything() -> None:
    layout = Layout(box="xywh", axis="places-last")
    answers = write(*SCENE, layout, "combined")
    compare = read(answers, {}).against(answers)
    silent = write(SCENE[0], np.full_like(SCENE[1], 0.001), layout, "combined")
    broken = write(SCENE[0] * np.nan, SCENE[1], layout, "combined")
    assert compare(silent, 10).drop == 1
    assert compare(broken, 10).drop == 1


def test_the_interval_holds_the_drop_and_is_seeded() -> None:
    answers = write(*SCENE, Layout(box="xywh"), "combined")
    boxes, scores = (part.copy() for part in SCENE)
    scores[0] = 0.001
    worse = write(boxes, scores, Layout(box="xywh"), "combined")
    compare = read(answers, {}).against(answers)
    first, second = compare(worse, 50), compare(worse, 50)
    assert first == second
    assert first.low is not None
    assert first.high is not None
    assert first.low <= first.drop <= first.high
    assert first.low < first.high


def test_a_detector_that_sees_nothing_cannot_be_held_against() -> None:
    answers = write(SCENE[0], np.full_like(SCENE[1], 0.001), Layout(box="xywh"), "combined")
    with pytest.raises(DataError, match=r"detects nothing above a score of 0\.25 on 3 held-out samples"):
        read(answers, {}).against(answers)


def test_what_the_model_answers_is_told() -> None:
    answers = write(*SCENE, Layout(box="xywh"), "combined")
    best = THINGS[0]
    expected = f"4 detections above 0.25, best 'class {best.classes[0]}' {best.scores[0]:.2f}"
    assert read(answers, {}).first(answers) == expected


# -- suppression ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "left"), [((0, 0), 1), ((0, 1), 2)])
def test_suppression_is_within_a_class(classes: tuple[int, int], left: int) -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert len(suppressed(boxes, np.array([0.5, 0.6]), np.array(classes), None)) == left


def test_suppression_leaves_no_two_boxes_that_overlap() -> None:
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 60, (400, 2))
    boxes = np.hstack([low, low + generator.uniform(5, 40, (400, 2))])
    found = suppressed(boxes, generator.uniform(size=400), generator.integers(0, 2, 400), None)
    low, high = (
        np.maximum(found.boxes[:, None, :2], found.boxes[:, :2]),
        np.minimum(found.boxes[:, None, 2:], found.boxes[:, 2:]),
    )
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    iou = shared / (area[:, None] + area - shared)
    same = found.classes[:, None] == found.classes
    assert (iou[same & ~np.eye(len(found), dtype=bool)] <= 0.6).all()
    assert (np.diff(found.scores) <= 0).all()


# -- what is stated ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "way"), EVERY[::7], ids=ids)
def test_the_text_of_a_layout_says_all_of_it(layout: Layout, way: str) -> None:
    assert Layout().stated(parse_layout(layout.text())) == layout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("xyhw", "did you mean 'xywh'"),
        ("xywh,xyxy", "says both 'xywh' and 'xyxy'"),
        ("bins=0", "whole number above 0"),
        ("bins=", "whole number above 0"),
        ("keypoints=many", "whole number above 0"),
        ("order=box.class", "name box and score once each"),
        ("order=box.score.score", "once"),
        ("anchors=nowhere.npy", "save them with numpy.save"),
        ("xywh=4", "unknown word"),
    ],
)
def test_a_layout_that_says_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_layout(text)


def test_anchors_are_read_from_a_file(tmp_path: object) -> None:
    path = f"{tmp_path}/anchors.npy"
    centres = np.concatenate([level.centres() for level in LEVELS]) / [SIZE[1], SIZE[0]]
    anchors = np.hstack([centres, np.full((len(centres), 2), 0.2)])
    np.save(path, anchors)
    boxes, scores = SCENE
    sides = np.array([SIZE[1], SIZE[0]], dtype=float)
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2 / sides, (boxes[..., 2:] - boxes[..., :2]) / sides
    raw = np.concatenate([(middle - anchors[:, :2]) / 0.2 / 0.1, np.log(size / 0.2) / 0.2], axis=2)
    answers = Answers(("loc", "conf"), ((raw, scores),), (SAMPLES,), SIZE)
    assert alike(read(answers, parse_layout(f"priors,anchors={path}")).detections(answers), THINGS)
    np.save(path, anchors[:, :3])
    with pytest.raises(OptionError, match="boxes, 4"):
        parse_layout(f"anchors={path}")


def test_outputs_that_are_no_detections_are_refused_by_their_shapes() -> None:
    answers = Answers(("y",), ((np.zeros((2, 10), np.float32),),), (2,), SIZE)
    with pytest.raises(DataError, match=r"--task detect.*'y' 2×10"):
        stated("detect", answers)
    with pytest.raises(DataError, match="no input is an image"):
        stated("detect", Answers(("y",), answers.batches, (2,), None))


@pytest.mark.parametrize(
    ("places", "size", "strides"),
    [
        (8400, (640, 640), [8, 16, 32]),
        (25200, (640, 640), [8, 16, 32]),
        (3549, (416, 416), [8, 16, 32]),
        (21, (128, 128), [32, 64, 128]),
        (300, (640, 640), None),
    ],
)
def test_places_tell_their_grids(places: int, size: tuple[int, int], strides: list[int] | None) -> None:
    found = grid_levels(places, size)
    assert (None if found is None else [level.stride for level in found]) == strides
    assert found is None or sum(level.places for level in found) == places
