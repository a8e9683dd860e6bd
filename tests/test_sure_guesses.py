"""No guess is certain and wrong: outputs of many kinds and sizes are each read as what they are, or not for sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np
import pytest
from detector_layouts import SIZE as SCENE_SIZE
from detector_layouts import scene, things, write

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.classify import Classify
from onnxprune.tasks.detect.layout import Layout
from onnxprune.tasks.guess import guess
from onnxprune.tasks.maps import is_map_of, map_channel_axis
from onnxprune.tasks.task import TaskKind

Array = np.ndarray
N = 8
#: Sizes of pictures: wide, high, square.
PICTURES = ((192, 256), (256, 192), (224, 224))
SEEDS = range(3)


def one(*outputs: Array, size: tuple[int, int] | None, single: bool = False) -> Answers:
    """Answers in one batch; with ``single``, each sample in a batch of its own."""
    names = tuple(f"y{i}" for i in range(len(outputs)))
    if not single:
        return Answers(names, (outputs,), (len(outputs[0]),), size)
    return Answers(names, tuple(tuple(o[i : i + 1] for o in outputs) for i in range(N)), (1,) * N, size)


def heat(keypoints: int, size: tuple[int, int], seed: int, faint: float) -> Array:
    """(N, K, H/4, W/4): a blob per keypoint, most of them faint, as on pictures that show no subject."""
    generator = np.random.default_rng(seed)
    rows, columns = size[0] // 4, size[1] // 4
    y, x = np.mgrid[:rows, :columns]
    at = generator.uniform(0.1, 0.9, (N, keypoints, 2, 1, 1)) * np.array([columns, rows])[:, None, None]
    peak = generator.uniform(faint, 0.9, (N, keypoints, 1, 1)) if faint else np.full((N, keypoints, 1, 1), 0.9)
    blobs = peak * np.exp(-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / 8)
    return np.asarray(blobs + generator.uniform(-0.003, 0.003, blobs.shape))


def heat_maps(keypoints: int, size: tuple[int, int], seed: int, faint: float, last: bool, single: bool) -> Answers:
    values = heat(keypoints, size, seed, faint)
    return one(np.moveaxis(values, 1, 3) if last else values, size=size, single=single)


def cells(fields: int, side: int, seed: int) -> Array:
    """(N, fields, side, side): a raw head: an objectness, a box, and class scores of every cell."""
    generator = np.random.default_rng(seed)
    maps = 0.3 * generator.uniform(size=(N, fields, side, side)) ** 32
    maps[:, 1:5] = generator.normal(size=(N, 4, side, side))
    return np.asarray(maps)


def landmarks(width: int, seed: int, low: float, high: float) -> Array:
    """(N, width): a mean shape that moves and scales a little."""
    generator = np.random.default_rng(seed)
    shape = generator.uniform(0.1, 0.9, width) + generator.normal(size=(N, width)) * 0.03
    return np.asarray(low + (high - low) * np.clip(shape, 0, 1))


def frequencies(width: int, scale: float) -> Array:
    return np.asarray(60 + scale * np.abs(np.random.default_rng(1).normal(size=(N, width)).cumsum(axis=1)))


def logits(classes: int, seed: int) -> Array:
    """(N, classes) with a winner, and a mean of zero, as training leaves them."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(N, classes))
    rows[np.arange(N), generator.integers(0, classes, N)] += 7
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def softmax(rows: Array) -> Array:
    shares = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def priors(seed: int, size: tuple[int, int]) -> tuple[Array, Array]:
    """Offsets to two priors per cell of three grids, and probabilities with a background first."""
    generator = np.random.default_rng(seed)
    places = 2 * sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32))
    face = np.where(generator.uniform(size=(N, places)) < 0.01, 0.9, 0.01)
    return generator.normal(size=(N, places, 4)) * 0.5, np.stack([1 - face, face], axis=2)


def offsets(seed: int, low: float) -> Array:
    """(N, A, 6) offsets in cells, logarithms of sizes around ``low``, objectness, class: rows with few negative numbers."""
    generator = np.random.default_rng(seed)
    places = sum((192 // s) * (256 // s) for s in (8, 16, 32))
    middle, sides = generator.normal(0.5, 0.27, (N, places, 2)), generator.normal(low, 0.4, (N, places, 2))
    there = generator.uniform(size=(N, places, 1)) < 0.02
    return np.concatenate([middle, sides, np.where(there, 0.9, 0.01), np.where(there, 0.95, 0.5)], axis=2)


Case = tuple[str, Callable[[], Answers], TaskKind, bool | None]


def cases() -> Iterator[Case]:
    """(name, answers, what they are, whether that must be certain: None for either)."""
    for keypoints, size, seed, faint, single in product((17, 133), PICTURES, (0,), (0.0, 0.08), (False, True)):
        for last in (False, True):

            name = f"{keypoints} heat maps, {size}, {faint} {last} {single}"
            yield name, partial(heat_maps, keypoints, size, seed, faint, last, single), "pose", True
    for fields, side, single in product((7, 27, 85), (14, 28), (False, True)):
        yield (
            f"raw head of {fields} fields, {side} cells, {single}",
            lambda f=fields, s=side, o=single: one(cells(f, s, 0), size=(224, 224), single=o),
            "detect",
            None,
        )
    for width, (low, high), seed in product((3, 10, 42, 136, 196), ((0.0, 1.0), (0.0, 112.0), (1.0, 5.0)), SEEDS):
        yield (
            f"landmarks {width} {low} {high} {seed}",
            lambda w=width, a=low, b=high, r=seed: one(landmarks(w, r, a, b), size=(112, 112)),
            "regress",
            None,
        )
    for width, seed in product((42, 136, 196), SEEDS):
        yield (
            f"landmarks around zero {width} {seed}",
            lambda w=width, r=seed: one(landmarks(w, r, -1.0, 1.0), size=(112, 112)),
            "regress",
            None,
        )
    for width, scale in product((1, 3, 62, 129), (1.0, 40.0)):
        yield (
            f"frequencies {width} {scale}",
            lambda w=width, s=scale: one(frequencies(w, s), size=None),
            "regress",
            None,
        )
    for seed, size, single in product(SEEDS, PICTURES, (False, True)):
        yield (
            f"priors {seed} {size} {single}",
            lambda r=seed, s=size, o=single: one(*priors(r, s), size=s, single=o),
            "detect",
            False,
        )
    for count, size, single, squashed in product((1, 5), PICTURES, (False, True), (False, True)):

        def edges(c: int = count, s: tuple[int, int] = size, o: bool = single, b: bool = squashed) -> Answers:
            raw = np.random.default_rng(2).normal(-4, 2, (c, N, 1, *s))
            return one(*(1 / (1 + np.exp(-raw)) if b else raw), size=s, single=o)

        yield f"{count} edge maps {size} {single} {squashed}", edges, "segment" if squashed else "regress", None
    for letters, steps in product((97, 6625), (20, 40)):
        yield (
            f"{letters} letters, no text, {steps}",
            lambda c=letters, t=steps: one(softmax(np.eye(c)[np.zeros((N, t), int)] * 12), size=(48, 320)),
            "ctc",
            False,
        )
    for low, seed, single in product((0.8, 1.4, 1.8), SEEDS, (False, True)):
        yield (
            f"offsets in cells {low} {seed} {single}",
            lambda a=low, r=seed, o=single: one(offsets(r, a), size=(192, 256), single=o),
            "detect",
            True,
        )
    for layout in (
        Layout(box="grid", unit="strides", score="objectness"),
        Layout(box="xywh", unit="pixels", axis="places-last"),
        Layout(box="distances", unit="strides"),
    ):
        yield layout.text(), lambda told=layout: write(*scene(things()), told, "combined"), "detect", True
    for classes, seed in product((2, 3, 5, 10, 43, 100, 512, 1000), SEEDS):
        yield f"{classes} logits {seed}", lambda c=classes, r=seed: one(logits(c, r), size=(224, 224)), "classify", True
        yield (
            f"{classes} probabilities {seed}",
            lambda c=classes, r=seed: one(softmax(logits(c, r)), size=(224, 224)),
            "classify",
            True,
        )
        yield (
            f"{classes} log-probabilities {seed}",
            lambda c=classes, r=seed: one(np.log(softmax(logits(c, r))), size=(224, 224)),
            "classify",
            True,
        )
        if classes > 3:
            yield (
                f"{classes} labels at once {seed}",
                lambda c=classes, r=seed: one(1 / (1 + np.exp(4 - logits(c, r) * 2)), size=(224, 224)),
                "classify",
                True,
            )


EVERY = list(cases())


@pytest.mark.parametrize(("answers", "kind", "sure"), [case[1:] for case in EVERY], ids=[case[0] for case in EVERY])
def test_a_wrong_reading_is_never_certain(answers: Callable[[], Answers], kind: TaskKind, sure: bool | None) -> None:
    found = guess(answers())
    read = found.reader.kind if found.reader is not None else None
    # Plain numbers, channel by channel, hold for any output: not wrong, only less than the task's measure.
    assert not found.sure or read in (kind, "regress" if sure is None else kind), found.because
    assert sure is None or found.sure == sure, found.because
    assert found.because


@pytest.mark.parametrize("keypoints", [4, 17, 133])
@pytest.mark.parametrize("last", [False, True])
def test_each_keypoint_is_a_heat_map(keypoints: int, last: bool) -> None:
    assert guess(heat_maps(keypoints, PICTURES[0], 0, 0.08, last, False)).because == f"{keypoints} heat maps"


@pytest.mark.parametrize("low", [0.8, 1.4, 1.8])
def test_offsets_in_cells_are_read_as_such_at_any_share_of_negative_numbers(low: float) -> None:
    for seed in SEEDS:
        assert "grid" in guess(one(offsets(seed, low), size=(192, 256))).because


def test_samples_that_look_like_different_layouts_make_a_guess_unsure() -> None:
    first = write(*scene(things()), Layout(box="grid", unit="strides"), "combined").batches
    other = write(*scene(things()), Layout(box="xywh", unit="pixels"), "combined").batches
    found = guess(Answers(("y",), (*first, *other), (3, 3), SCENE_SIZE))
    assert not found.sure
    assert "other samples look like dense,xywh" in found.because


def test_an_unsure_guess_of_rows_names_the_other_reading() -> None:
    found = guess(one(landmarks(136, 0, 0.0, 1.0), size=(112, 112)))
    assert isinstance(found.reader, Classify)
    assert "--task regress" in found.because


SHAPES: Mapping[tuple[int, ...], int | None] = {
    (1, 17, 64, 48): 1,
    (1, 133, 64, 48): 1,
    (1, 64, 48, 17): 3,
    (1, 64, 48, 133): 3,
    (1, 1, 256, 192): 1,
    (1, 256, 192, 1): 3,
    (1, 8400, 85): None,
    (1, 1, 8400, 85): None,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_channel_axis_is_found_by_the_shape_of_the_picture(shape: tuple[int, ...]) -> None:
    assert map_channel_axis(shape, (256, 192)) == SHAPES[shape]
    assert map_channel_axis(shape, None) is None


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize("stride", [1, 4, 8, 32])
def test_places_of_one_map_are_told_from_a_list(size: tuple[int, int], stride: int) -> None:
    assert is_map_of((size[0] // stride) * (size[1] // stride), size)
    assert not is_map_of(4099, size)
