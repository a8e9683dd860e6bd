"""Each task: a model agrees with itself, noise does not, what cannot be read is refused; guesses are right or unsure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxprune.calibration.preprocess import Preprocess
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import DataError
from onnxprune.graph.load import load
from onnxprune.options import Options
from onnxprune.pipeline.setup import set_up
from onnxprune.tasks.answers import Answers, answers_of
from onnxprune.tasks.classify import Classify
from onnxprune.tasks.ctc import edit_distance
from onnxprune.tasks.guess import guess, stated
from onnxprune.tasks.interval import bootstrap, wilson
from onnxprune.tasks.pose import oks
from onnxprune.tasks.task import KINDS, TaskKind

Array = np.ndarray
N, SIZE = 24, (48, 64)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def answers(*outputs: Array, size: tuple[int, int] | None = SIZE, tokens: bool = False) -> Answers:
    """Two batches, so that nothing may rest on there being one."""
    halves = tuple(tuple(o[part] for o in outputs) for part in (slice(0, 16), slice(16, None)))
    names = tuple(f"y{i}" for i in range(len(outputs)))
    return Answers(names, halves, (16, len(outputs[0]) - 16), size, tokens)


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def scores(classes: int, width: float = 3.0) -> Array:
    return np.asarray(rng().normal(size=(N, classes)) * width)


def unit(values: Array) -> Array:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def characters(seed: int = 0) -> Array:
    """(N, 20, 12) probabilities, blank 0 at most times."""
    generator = np.random.default_rng(seed)
    best = np.where(generator.uniform(size=(N, 20)) < 0.6, 0, generator.integers(1, 12, (N, 20)))
    return softmax(np.eye(12)[best] * 8)


def areas(classes: int, seed: int = 0) -> Array:
    """(N, classes, 48, 64) logits whose best classes come in blocks of 16 × 16."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, classes, (N, 3, 4)).repeat(16, axis=1).repeat(16, axis=2)
    return np.moveaxis(np.eye(classes)[blocks] * 5, 3, 1) + generator.normal(size=(N, classes, *SIZE)) * 0.1


def mask(seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 2, (N, 1, 3, 4)).repeat(16, axis=2).repeat(16, axis=3)
    return np.asarray(np.where(blocks, 0.97, 0.02) + generator.uniform(0, 0.02, blocks.shape))


def heat(seed: int = 0) -> Array:
    """(N, 17, 48, 64): a Gaussian for each keypoint."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :64]
    at = generator.uniform(6, 40, (N, 17, 2, 1, 1))
    return np.asarray(np.exp(-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / 8) * 0.9)


def people(seed: int = 0) -> Array:
    """(N, 4 + 1 + 51, 63): boxes on three grids, a score, 17 keypoints; two people per sample."""
    generator = np.random.default_rng(seed)
    found = np.zeros((N, 56, 63))
    centres = np.concatenate(
        [(np.stack(np.mgrid[: 48 // s, : 64 // s][::-1], -1).reshape(-1, 2) + 0.5) * s for s in (8, 16)]
    )
    centres = np.vstack([centres, [[16, 16], [48, 16], [32, 40]]])[:63]
    found[:, :2] = centres.T
    found[:, 2:4] = generator.uniform(8, 20, (N, 2, 63))
    found[:, 4] = 0.002
    found[:, 4, [9, 36]] = generator.uniform(0.6, 0.9, (N, 2))
    points = centres.T[None, None] + generator.uniform(-8, 8, (N, 17, 2, 63))
    found[:, 5:] = np.concatenate([points, generator.uniform(0.4, 1, (N, 17, 1, 63))], axis=2).reshape(N, 51, 63)
    return found


CASES: Sequence[tuple[str, TaskKind, tuple[Array, ...], dict[str, object]]] = [
    ("logits", "classify", (scores(10),), {}),
    ("probabilities", "classify", (softmax(scores(1000)),), {}),
    ("two classes", "classify", (softmax(scores(2)),), {}),
    ("logits as many as an embedding has", "classify", (scores(512) + 40 * np.eye(512)[:N],), {}),
    ("label and probabilities", "classify", (rng().integers(0, 3, N), softmax(scores(3))), {}),
    ("probabilities and label", "classify", (softmax(scores(3)), rng().integers(0, 3, (N, 1))), {}),
    ("label", "classify", (rng().integers(0, 3, N),), {}),
    ("text", "classify", (np.array(["cat", "dog"] * 12, dtype=object), softmax(scores(2))), {}),
    ("two heads", "classify", (scores(5), scores(7)), {}),
    ("yes or no", "classify", (np.where(rng().uniform(size=(N, 1)) < 0.5, 0.02, 0.97),), {}),
    ("sentence", "embed", (unit(scores(384)),), {"tokens": True, "size": None}),
    ("face", "embed", (unit(scores(128)),), {}),
    ("text line", "ctc", (characters(),), {}),
    ("log probabilities", "ctc", (np.log(characters() + 1e-9),), {}),
    ("blank last", "ctc", (characters()[..., ::-1].copy(),), {}),
    ("class maps", "segment", (areas(6),), {}),
    ("class maps, last", "segment", (np.moveaxis(areas(6), 1, 3),), {}),
    ("class probabilities", "segment", (np.moveaxis(softmax(np.moveaxis(areas(3), 1, 3)), 3, 1),), {}),
    ("label maps", "segment", (areas(6).argmax(axis=1),), {}),
    ("mask", "segment", (mask(),), {}),
    ("heat maps", "pose", (heat(),), {}),
    ("people", "pose", (people(),), {}),
    ("age", "regress", (20 + scores(1),), {}),
    ("depth", "regress", (10 + rng().normal(size=(N, 1, *SIZE)).cumsum(axis=3),), {}),
    ("picture", "regress", (rng().uniform(-0.1, 1.1, (N, 3, *SIZE)),), {}),
]
NAMES = [case[0] for case in CASES]


@pytest.mark.parametrize(("kind", "outputs", "fed"), [case[1:] for case in CASES], ids=NAMES)
def test_the_task_is_guessed_and_a_model_agrees_with_itself(
    kind: TaskKind, outputs: tuple[Array, ...], fed: dict[str, object]
) -> None:
    seen = answers(*outputs, **fed)  # type: ignore[arg-type]
    found = guess(seen)
    assert found.reader is not None
    assert (found.reader.kind, found.sure) == (kind, True), found.because
    same = found.reader.against(seen)(seen, 20)
    assert same.drop == pytest.approx(0, abs=1e-12)
    assert same.low is not None
    assert same.high is not None
    assert same.low <= same.drop <= same.high + 1e-12
    assert same.samples == N
    assert found.reader.first(seen)


@pytest.mark.parametrize(("kind", "outputs", "fed"), [case[1:] for case in CASES], ids=NAMES)
def test_answers_of_other_samples_are_no_agreement(
    kind: TaskKind, outputs: tuple[Array, ...], fed: dict[str, object]
) -> None:
    seen = answers(*outputs, **fed)  # type: ignore[arg-type]
    order = np.roll(np.arange(N), 7)
    other = answers(*(o[order] for o in outputs), **fed)  # type: ignore[arg-type]
    reader = guess(seen).reader
    assert reader is not None
    compare = reader.against(seen)
    assert compare(other, 0).drop > 0.05
    assert compare(other, 0).low is None
    assert compare(other, 20) == compare(other, 20)


@pytest.mark.parametrize(("kind", "outputs", "fed"), [case[1:] for case in CASES], ids=NAMES)
def test_a_model_that_answers_nan_loses(kind: TaskKind, outputs: tuple[Array, ...], fed: dict[str, object]) -> None:
    if any(o.dtype.kind != "f" for o in outputs):
        pytest.skip("whole numbers and text are always something")
    seen = answers(*outputs, **fed)  # type: ignore[arg-type]
    reader = guess(seen).reader
    assert reader is not None
    lost = reader.against(seen)(answers(*(np.full_like(o, np.nan) for o in outputs), **fed), 20)  # type: ignore[arg-type]
    assert 0.3 < lost.drop <= 2
    assert lost.low is not None and np.isfinite(lost.low)


@pytest.mark.parametrize(
    ("outputs", "fed"),
    [
        ((scores(512, 1.0),), {}),
        ((rng().uniform(0.2, 0.8, (N, 1)),), {}),
        ((rng().normal(size=(N, 20, 30)),), {"tokens": True, "size": None}),
        ((softmax(rng().normal(size=(N, 20, 30))),), {"tokens": True, "size": None}),
        ((rng().uniform(0, 1, (N, 30, 40)),), {"size": None}),
    ],
    ids=["rows that may be an embedding", "a share", "token scores", "token probabilities", "values from 0 to 1"],
)
def test_what_values_do_not_tell_is_unsure(outputs: tuple[Array, ...], fed: dict[str, object]) -> None:
    found = guess(answers(*outputs, **fed))  # type: ignore[arg-type]
    assert not found.sure
    assert found.because


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_outputs_cannot_be_of_is_refused(kind: TaskKind) -> None:
    text = answers(
        np.array(["cat", "dog"] * 12, dtype=object).reshape(N, 1), np.array(["a"] * N, dtype=object), size=None
    )
    if kind == "classify":
        assert isinstance(stated(kind, text).reader, Classify)
        return
    with pytest.raises(DataError, match=f"--task {kind}: .*outputs: 'y0' 16×1"):
        stated(kind, text)


def test_a_stated_task_is_taken_where_the_guess_is_unsure() -> None:
    seen = answers(scores(512, 1.0))
    for kind in ("embed", "classify", "regress"):
        found = stated(kind, seen)  # type: ignore[arg-type]
        assert found.reader is not None
        assert (found.reader.kind, found.sure) == (kind, True)


def test_labels_beside_probabilities_are_what_is_read() -> None:
    labels, other = np.zeros(N, np.int64), np.arange(N) % 4 == 0
    seen = answers(labels, softmax(scores(2)))
    reader = guess(seen).reader
    assert reader is not None
    assert reader.against(seen)(answers(other.astype(np.int64), softmax(scores(2))), 0).drop == 0.25


def test_scores_that_are_no_number_change_the_label() -> None:
    seen = answers(scores(5))
    reader = guess(seen).reader
    assert reader is not None
    assert reader.against(seen)(answers(np.full((N, 5), np.nan)), 0).drop == 1


def test_embeddings_are_compared_by_angle_alone() -> None:
    rows = unit(scores(64))
    seen = answers(rows)
    reader = guess(seen).reader
    assert reader is not None
    compare = reader.against(seen)
    assert compare(answers(rows * 3), 0).drop == pytest.approx(0, abs=1e-12)
    assert compare(answers(-rows), 0).drop == pytest.approx(2)
    assert dict(compare(seen, 0).figures) == {"mean cosine": pytest.approx(1), "nearest neighbour kept": 1.0}


def test_strings_are_compared_without_blanks_and_repeats() -> None:
    best = np.zeros((N, 20), int)
    best[:, 2:6], best[:, 8], best[:, 12] = 3, 5, 9
    slower = np.roll(best, 1, axis=1)
    reader = stated("ctc", answers(softmax(np.eye(12)[best] * 8))).reader
    assert reader is not None
    compare = reader.against(answers(softmax(np.eye(12)[best] * 8)))
    assert compare(answers(softmax(np.eye(12)[slower] * 8)), 0).drop == 0
    slower[:6, 9] = 0
    agreement = compare(answers(softmax(np.eye(12)[slower] * 8)), 0)
    assert agreement.drop == 0.25
    assert dict(agreement.figures)["character error"] == pytest.approx(6 / (3 * N))


@pytest.mark.parametrize(("a", "b", "edits"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)])
def test_edit_distance(a: str, b: str, edits: int) -> None:
    left, right = [ord(c) for c in a], [ord(c) for c in b]
    assert edit_distance(left, right) == edit_distance(right, left) == edits


def test_mean_iou_is_that_of_the_definition() -> None:
    labels = np.zeros((N, 4, 4), np.int64)
    labels[:, :2] = 1
    other = labels.copy()
    other[:, 1, :] = 0
    reader = guess(answers(labels)).reader
    assert reader is not None
    # Of class 1 half is found (4 of 8), of class 0 all 8, with 4 too many.
    assert 1 - reader.against(answers(labels))(answers(other), 0).drop == pytest.approx((4 / 8 + 8 / 12) / 2)


def test_masks_that_are_empty_cannot_be_held_against() -> None:
    reader = stated("segment", answers(mask() * 0.01)).reader
    assert reader is not None
    with pytest.raises(DataError, match="masks are empty on all 24 held-out samples"):
        reader.against(answers(mask() * 0.01))


def test_relative_error_is_per_channel() -> None:
    values = np.stack([rng().normal(size=N), 1000 + rng().normal(size=N)], axis=1)[:, :, None, None]
    values = np.broadcast_to(values, (N, 2, 4, 4))
    worse = values.copy()
    worse[:, 0] *= 1.1
    reader = stated("regress", answers(values)).reader
    assert reader is not None
    agreement = reader.against(answers(values))(answers(worse), 0)
    # One channel is off by a tenth, however small its numbers are beside the other's.
    assert agreement.drop == pytest.approx(0.05)
    assert dict(agreement.figures)["R²"] == pytest.approx(1 - 0.01 / 2, abs=1e-3)


def test_keypoint_similarity_falls_with_distance_and_rises_with_size() -> None:
    points = np.hstack([rng().uniform(0, 50, (17, 2)), np.ones((17, 1))])
    moved = points + np.array([2, 0, 0])
    small, large = np.array([0.0, 0, 50, 50]), np.array([0.0, 0, 100, 100])
    assert oks(points, points, small) == 1
    assert (
        0 < oks(points, points + np.array([9, 0, 0]), small) < oks(points, moved, small) < oks(points, moved, large) < 1
    )


@pytest.mark.parametrize("samples", [1, 10, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_wilson_holds_the_share_and_narrows(share: float, samples: int) -> None:
    low, high = wilson(share, samples)
    assert 0 <= low <= share <= high <= 1
    more = wilson(share, samples * 10)
    assert more[1] - more[0] < high - low


def test_the_bootstrap_finds_the_error_of_a_mean() -> None:
    values = rng().normal(size=400)
    low, high = bootstrap(lambda chosen: float(values[chosen].mean()), 400)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.25)


# -- real models ------------------------------------------------------------------------------------------------

ASSETS = Path(os.environ.get("ONNXPRUNE_ASSETS", ""))
needs_assets = pytest.mark.skipif(not os.environ.get("ONNXPRUNE_ASSETS"), reason="ONNXPRUNE_ASSETS is not set")
NANODET = Preprocess.named("raw", mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), bgr=True)
PICTURES = {
    "zoo/nanodet_m": (NANODET, "detect"),
    "zoo/nudenet_yolov8n": (Preprocess.named("unit", crop=640), "detect"),
    "zoo/ultraface_rfb_320": (Preprocess.named("raw", mean=127, std=128), "detect"),
    "zoo/ppocr_v6_tiny_det": (Preprocess.named("imagenet", crop=320), "segment"),
    "zoo/ppocr_v5_cls": (Preprocess.named("symmetric", crop=(80, 160)), "classify"),
    "zoo/super_resolution": (Preprocess.named("unit"), "regress"),
    "zoo/mobilenet_vww_tf": (Preprocess.named("symmetric"), "classify"),
    "imagenet/mobilenetv2": (Preprocess.named("symmetric"), "classify"),
    "imagenet/resnet50_bn": (Preprocess.named("caffe"), "classify"),
    "imagenet/efficientnet_lite0_bn": (Preprocess.named("raw", mean=127, std=128), "classify"),
}


@needs_assets
@pytest.mark.parametrize("name", PICTURES)
def test_the_task_of_a_real_model_is_guessed(name: str) -> None:
    preprocess, kind = PICTURES[name]
    model = load(ASSETS / f"{name}.onnx")
    work = set_up(model, ASSETS / "imagenet" / "calib", replace(Options(), preprocess=preprocess, samples=6, threads=1))
    session = open_session(model.proto, Engine(("CPUExecutionProvider",), 1))
    seen = answers_of(session, work.fit, work.coupling.graph.outputs)
    found = guess(seen)
    assert found.reader is not None
    assert (found.reader.kind, found.sure) == (kind, True), found.because
    assert found.reader.against(seen)(seen, 20).drop == pytest.approx(0, abs=1e-9)
