"""Held-out pictures in the report: what is drawn, for which tasks, from which sources of data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch
from PIL import Image

import onnxprune
from onnxprune.calibration.dataset import Dataset, InputSpec
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.engine.session import Engine
from onnxprune.report.samples import SIDE, shown_samples
from onnxprune.tasks.regress import Regress
from onnxprune.tasks.segment import Segment

ENGINE = Engine(("CPUExecutionProvider",), 1)
SPEC = (InputSpec("x", np.dtype(np.float32), (None, 3, 32, 48)),)


def segmenter(threshold: float = 0.5) -> onnx.ModelProto:
    """A mask of what is brighter than a threshold."""
    sketch = Sketch()
    x = sketch.input("x", ["n", 3, 32, 48])
    mean = sketch.keep("mean", np.full((1, 3, 1, 1), 100, np.float32))
    logits = sketch.op("Conv", x, mean, sketch.keep("bias", np.array([-300 * threshold], np.float32)))
    sketch.output(sketch.op("Sigmoid", logits), ["n", 1, 32, 48])
    return sketch.model()


def pictures(folder: Path, count: int = 6) -> Dataset:
    """The right half is white but on the first, which is dark."""
    for number in range(count):
        pixels = np.full((32, 48, 3), 20, np.uint8)
        pixels[:, 24:] = 255 if number else 20
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_dataset(str(folder), SPEC, Preprocess.named("unit"), None, 0)


def test_masks_of_both_models_are_drawn_beside_each_other(tmp_path: Path) -> None:
    reader = Segment((0,), "masks")
    shown = shown_samples(pictures(tmp_path), reader, (segmenter(), segmenter(2.0)), ENGINE, 3)
    # Of the first sample the original says nothing.
    assert len(shown) == 3
    assert shown[0].caption == "original and pruned agree on 50.0% of the pixels"
    with Image.open(io.BytesIO(shown[0].image)) as image:
        assert image.format == "JPEG"
        assert image.width == 2 * SIDE + 4
        pixels = np.asarray(image.convert("RGB")).astype(int)
    left, right = pixels[:, :SIDE], pixels[:, SIDE + 4 :]
    # The left one's white half is coloured, the right one's is not.
    assert np.ptp(left[100, SIDE * 3 // 4]) > 50
    assert np.ptp(right[100, SIDE * 3 // 4]) < 10
    assert np.ptp(left[100, SIDE // 4]) < 10


@pytest.mark.parametrize("layout", ["first", "last", "grey"])
def test_arrays_are_shown_as_pictures(layout: str) -> None:
    channels = 1 if layout == "grey" else 3
    shape = (8, 32, 48, 3) if layout == "last" else (8, channels, 32, 48)
    spec = (InputSpec("x", np.dtype(np.float32), (None, *shape[1:])),)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    data = open_dataset({"x": values}, spec, None, None, 0)
    sketch = Sketch()
    x = sketch.input("x", ["n", *shape[1:]])
    one = sketch.op("ReduceMean", x, attrs={"axes": [3 if layout == "last" else 1], "keepdims": 0})
    sketch.output(sketch.op("Sigmoid", one), ["n", 32, 48])
    model = sketch.model()
    shown = shown_samples(data, Segment((0,), "masks"), (model, model), ENGINE, 2)
    assert [s.caption for s in shown] == ["original and pruned agree on 100.0% of the pixels"] * 2


def test_nothing_is_shown_of_other_tasks_or_where_none_is_asked_for(tmp_path: Path) -> None:
    data, models = pictures(tmp_path), (segmenter(), segmenter())
    assert shown_samples(data, Regress((0,)), models, ENGINE, 4) == ()
    assert shown_samples(data, None, models, ENGINE, 4) == ()
    assert shown_samples(data, Segment((0,), "masks"), models, ENGINE, 0) == ()


def test_class_maps_are_drawn(tmp_path: Path) -> None:
    sketch = Sketch()
    x = sketch.input("x", ["n", 3, 32, 48])
    hidden = sketch.op("Relu", sketch.conv(x, 3, 12, 3))
    sketch.output(sketch.op("ArgMax", sketch.conv(hidden, 12, 4), attrs={"axis": 1, "keepdims": 0}), ["n", 32, 48], 7)
    data = [{"x": row} for row in np.random.default_rng(0).normal(size=(24, 3, 32, 48)).astype(np.float32)]
    report = onnxprune.prune(sketch.model(), data, macs=0.7, round_to=1, effort="fast", pictures=2).report
    assert report.drop is not None and report.drop.metric == "mean IoU lost"
    assert len(report.pictures) == 2
