"""At which input shapes a graph is analysed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, table
from onnx import TensorProto
from PIL import Image

import onnxprune
from onnxprune.calibration import open as opening
from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.open import couple
from onnxprune.errors import ModelError
from onnxprune.graph.facts import evaluate
from onnxprune.graph.inputs import input_shapes
from onnxprune.graph.view import view
from onnxprune.pipeline import setup
from onnxprune.workflows import compare as comparing


def _net(s: Sketch, batch: int | str = "n") -> onnx.ModelProto:
    x = s.op("Relu", s.conv(s.input("x", [batch, 3, 8, 8]), 3, 6, 3, name="a"))
    s.output(s.conv(x, 6, 2, name="b"), [batch, 2, 8, 8])
    return s.model()


def test_dims_of_one_name_get_one_size_and_the_batch_is_one_then_two() -> None:
    s = Sketch()
    s.input("ids", ["batch", "length"], TensorProto.INT64)
    s.input("mask", ["batch", "length"], TensorProto.INT64)
    s.output(s.op("Add", "ids", "mask"), ["batch", "length"], TensorProto.INT64)
    first, other = input_shapes(view(s.model()), {}, None)
    assert first["ids"] == first["mask"] and other["ids"] == other["mask"]
    assert (first["ids"][0], other["ids"][0]) == (1, 2) and first["ids"][1] != other["ids"][1]


def test_given_shapes_are_the_only_ones_and_samples_set_the_free_sizes() -> None:
    graph = view(_net_any_size())
    first, other = input_shapes(graph, {"x": (4, 3, 40, 48)}, None)
    assert first == other == {"x": (4, 3, 40, 48)}
    first, other = input_shapes(graph, {}, {"x": (7, 3, 40, 48)})
    assert first == {"x": (1, 3, 40, 48)}
    assert other["x"][0] == 2 and other["x"][2] > 40


def _net_any_size() -> onnx.ModelProto:
    s = Sketch()
    s.output(s.conv(s.input("x", ["n", 3, "h", "w"]), 3, 6), ["n", 6, "h", "w"])
    return s.model()


def test_a_length_that_the_graph_needs_is_found() -> None:
    s = Sketch()
    wave = s.op("Unsqueeze", s.input("wave", ["n", "t"]), s.array([1]))
    made = s.op("Conv", wave, s.weight(6, 1, 128), name="a", attrs={"strides": [64]})
    s.output(s.op("Conv", made, s.weight(2, 6, 1)), ["n", 2, "k"])
    first, _ = input_shapes(view(s.model()), {}, None)
    assert first["wave"][1] >= 128
    assert table(prove(s.model())) == {"a": 6}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": (1, 3, 8, 8)}, "no such input; its inputs: 'x'"),
        ({"x": (1, 4, 8, 8)}, "so 1x4x8x8 does not fit: axis 1 must be 3$"),
        ({"x": (1, 3, 8)}, "so 1x3x8 does not fit: give 4 sizes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        couple(_net(Sketch()), given, None)


def _traced(batch: int) -> onnx.ModelProto:
    """Declares a free batch, and has one of a traced run in a constant shape."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 12, name="a"))
    y = s.op("Reshape", x, s.array([batch, 12, 64]))
    s.output(s.op("MatMul", s.op("ReduceMean", y, attrs={"axes": [2], "keepdims": 0}), s.weight(12, 5)), ["n", 5])
    return s.model()


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_a_batch_that_only_the_constants_know_is_found_and_fed(batch: int) -> None:
    model = _traced(batch)
    first, other = input_shapes(view(model), {}, None)
    assert first == other == {"x": (batch, 3, 8, 8)}
    result = onnxprune.prune(model, macs=0.6, samples=7, threads=1)
    assert result.report.verify.passed and result.report.macs.ratio <= 0.6
    images = np.random.default_rng(0).random((12, 3, 8, 8), dtype=np.float32)
    assert onnxprune.prune(model, images, macs=0.6, preprocess="raw", threads=1).report.verify.passed


def test_a_batch_that_holds_the_frames_of_clips_comes_in_whole_clips() -> None:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 12, name="a"))
    clips = s.op("Div", s.op("Slice", s.op("Shape", x), s.array([0]), s.array([1])), s.array([8]))
    y = s.op("Reshape", x, s.op("Concat", clips, s.array([8, 12, 64]), attrs={"axis": 0}))
    s.output(s.op("MatMul", s.op("ReduceMean", y, attrs={"axes": [1, 3], "keepdims": 0}), s.weight(12, 5)), ["c", 5])
    model = s.model()
    first, other = input_shapes(view(model), {}, None)
    assert (first["x"][0], other["x"][0]) == (8, 16)
    assert table(prove(model)) == {"a": 12}
    assert onnxprune.prune(model, macs=0.6, samples=11, threads=1).report.verify.passed


def test_slices_that_take_nothing_are_no_contradiction() -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    sizes = s.op("Shape", x)
    rest = s.op("Slice", sizes, s.array([4]), s.array([9]))
    shape = s.op("Concat", s.op("Slice", sizes, s.array([0]), s.array([2])), s.array([-1]), rest, attrs={"axis": 0})
    s.output(s.op("Reshape", x, shape), ["n", 3, 64])
    assert not evaluate(view(s.model()), {"x": (1, 3, 8, 8)}).contradictions


@pytest.mark.parametrize("size", [24, 40])
@pytest.mark.parametrize("command", ["prune", "compare"])
def test_pictures_have_the_size_that_the_user_states(
    command: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, "h", "w"]), 3, 16, name="a"))
    s.output(s.op("GlobalAveragePool", s.conv(x, 16, 4, name="b")), ["n", 4, 1, 1])
    seen: set[tuple[int, ...]] = set()
    real = opening.open_dataset

    def opened(*given: Any) -> Dataset:
        dataset = real(*given)
        seen.update(array.shape for array in dataset.fetch([0]).values())
        return dataset

    for module in (setup, comparing):
        monkeypatch.setattr(module, "open_dataset", opened)
    shapes = {"x": (1, 3, size, size)}
    if command == "prune":
        onnxprune.prune(s.model(), tmp_path, macs=0.9, shapes=shapes, preprocess="unit", effort="fast", round_to=1, threads=1)
    else:
        onnxprune.compare(s.model(), s.model(), tmp_path, shapes=shapes, preprocess="unit", threads=1)
    assert seen == {(1, 3, size, size)}
