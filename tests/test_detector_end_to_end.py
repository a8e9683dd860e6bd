"""A detector of nine layers, pictures with squares on them, and the commands: the drop, the gate and the report are in
the task's terms."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch
from PIL import Image

from onnxprune.cli import main

SIDE, CELL, COUNT = 64, 8, 40


def detector() -> onnx.ModelProto:
    """Finds cells of 8 × 8 pixels that are red (class 0) or green (class 1), as rows x, y, width, height, two scores
    (1 × 6 × 64), in pixels.  Twelve hidden channels where two would do."""
    sketch = Sketch()
    x = sketch.input("x", ["n", 3, SIDE, SIDE])
    weights = np.zeros((12, 3, CELL, CELL), np.float32)
    colours = np.random.default_rng(0).uniform(0.8, 1.2, 12)
    for channel in range(12):
        weights[channel, channel % 2] = colours[channel] / CELL**2
    mean = sketch.keep("cells", weights)
    bias = sketch.keep("dark", np.full(12, -0.3, np.float32))
    strides = {"strides": [CELL, CELL], "kernel_shape": [CELL, CELL]}
    hidden = sketch.op("Relu", sketch.op("Conv", x, mean, bias, attrs=strides, name="see"))
    kinds = np.zeros((2, 12, 1, 1), np.float32)
    kinds[0, ::2], kinds[1, 1::2] = 4, 4
    logits = sketch.op("Conv", hidden, sketch.keep("kinds", kinds), sketch.keep("none", np.full(2, -6, np.float32)))
    scores = sketch.op("Reshape", sketch.op("Sigmoid", logits), sketch.array([0, 2, -1]))
    y, places = np.mgrid[:CELL, :CELL] * CELL + CELL / 2
    grid = np.stack([places.ravel(), y.ravel(), np.full(64, CELL), np.full(64, CELL)])[None].astype(np.float32)
    zero = sketch.op("Mul", sketch.op("Slice", scores, sketch.array([0]), sketch.array([1]), sketch.array([1])),
                     sketch.keep("zero", np.zeros(1, np.float32)))  # fmt: skip
    boxes = sketch.op("Add", zero, sketch.keep("grid", grid))
    sketch.output(sketch.op("Concat", boxes, scores, attrs={"axis": 1}, name="join"), ["n", 6, 64])
    return sketch.model()


@pytest.fixture
def tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """The command line in a folder with the detector and labelled pictures."""
    onnx.save(detector(), tmp_path / "net.onnx")
    generator = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        pixels = generator.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
        lines = []
        for cell in generator.choice(64, 5, replace=False):
            top, left, kind = cell // 8 * CELL, cell % 8 * CELL, int(generator.integers(0, 2))
            pixels[top : top + CELL, left : left + CELL, kind] = 255
            lines.append(f"{kind} {(left + 4) / SIDE} {(top + 4) / SIDE} {CELL / SIDE} {CELL / SIDE}")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")
        (tmp_path / "photos" / f"{number:02}.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        code = main(shlex.split(line))
        return code, *capfd.readouterr()

    return run


PRUNE = "net.onnx --data photos --preprocess unit --effort fast --round 1 --threads 1"


def test_one_command_prunes_a_detector_and_tells_its_agreement(tool: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = tool(f"{PRUNE} --macs 0.7 --json --report report.html")
    assert code == 0, err
    told = json.loads(out)
    assert told["drop"]["metric"] == "AP50 lost"
    assert told["drop"]["value"] == pytest.approx(1 - told["drop"]["figures"]["AP50"])
    assert told["drop"]["low"] <= told["drop"]["value"] <= told["drop"]["high"]
    assert told["drop"]["value"] < 0.05
    # The labels lie beside the pictures, and the model is as good as they are.
    assert told["scores"]["AP50 by labels"]["before"] == pytest.approx(1)
    assert told["scores"]["AP50 by labels"]["after"] > 0.95
    (note,) = [note for note in told["notes"] if note.startswith("task detect")]
    assert "dense,xywh,pixels,classes,probabilities,places-last" in note
    assert "5 detections above 0.25, best 'class" in note
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4
    assert "original: 5 detections above 0.25; pruned: 5 detections" in page


def test_the_report_is_worded_in_the_tasks_terms(tool: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = tool(f"{PRUNE} --macs 0.7 --report report.html --no-samples")
    assert code == 0, err
    text = " ".join(out.split())
    assert "its detections agree with the original's at AP50 1.000 (AP50-95 1.000) on 8 held-out samples" in text
    assert "drop: AP50 lost – 0.0% 0% to 9% (8 samples)" in text
    assert "the drop is measured against 40 detections of the original on 8 held-out samples" in " ".join(err.split())
    assert "AP50 by labels 1.000 1.000 same" in text
    assert "data:image/jpeg" not in Path("report.html").read_text(encoding="utf-8")


def test_a_drop_is_bounded_and_gated_by_what_is_detected(tool: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = tool(f"{PRUNE} --max-drop 0.02 --json")
    assert code == 0, err
    told = json.loads(out)
    assert told["drop"]["value"] <= 0.02
    assert told["macs"]["after"] < told["macs"]["before"]
    compare = "compare net.onnx net.pruned.onnx --data photos --preprocess unit --max-drop"
    code, out, _ = tool(f"{compare} 0.05 --json")
    assert code == 0
    assert json.loads(out)["drop"]["metric"] == "AP50 lost"
    assert json.loads(out)["scores"]["AP50 by labels"]["before"] == pytest.approx(1)
    # A model that sees one of the colours only loses half.
    blind = onnx.load("net.onnx")
    for tensor in blind.graph.initializer:
        if tensor.name == "kinds":
            kinds = onnx.numpy_helper.to_array(tensor).copy()
            kinds[1] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(kinds, "kinds"))
    onnx.save(blind, "net.pruned.onnx")
    code, _, err = tool(f"{compare} 0.4")
    assert code == 1
    assert "the drop, 0.5, is above --max-drop 0.4" in err


def test_a_stated_layout_is_believed(tool: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = tool(f"{PRUNE} --macs 0.7 --json --task detect --layout xywh,classes,places-last")
    assert code == 0, err
    assert json.loads(out)["drop"]["value"] < 0.05


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--task detct", "did you mean 'detect'"),
        ("--layout xyhw", "did you mean 'xywh'"),
        ("--task classify", "cannot be read as --task classify"),
        ("--task embed --layout xywh", "does not go with task 'embed'"),
        ("--layout rows", "not be read as --task detect"),
        ("--letterbox --resize 80", "scales directly to the model's size"),
    ],
)
def test_what_contradicts_the_outputs_is_refused(
    tool: Callable[[str], tuple[int, str, str]], asked: str, said: str
) -> None:
    code, out, err = tool(f"{PRUNE} --macs 0.7 {asked}")
    assert (code, out) == (2, "")
    assert said in err
    assert not Path("net.pruned.onnx").exists()


def test_a_preset_that_the_model_was_not_made_for_is_seen(tool: Callable[[str], tuple[int, str, str]]) -> None:
    dark = PRUNE.replace("unit", "raw --mean 255 --std 255")
    code, out, _ = tool(f"{dark} --macs 0.7 --json")
    assert code == 0
    told = json.loads(out)
    assert told["drop"]["metric"] == "output error"
    assert any("detects nothing above a score of 0.25" in note for note in told["notes"])
    code, _, err = tool(f"{dark} --macs 0.7 --task detect")
    assert code == 2
    assert "check --data, --preprocess and --layout" in err


def test_text_beside_the_pictures_that_is_no_label_is_told_and_left(
    tool: Callable[[str], tuple[int, str, str]],
) -> None:
    Path("photos/00.txt").write_text("a red square, and a green one")
    for number in range(1, COUNT):
        Path(f"photos/{number:02}.txt").write_text("squares")
    code, out, err = tool(f"{PRUNE} --macs 0.7 --json")
    assert code == 0, err
    told = json.loads(out)
    assert told["scores"] == {}
    assert any("no accuracy is measured" in note and "line 1" in note for note in told["notes"])
    code, _, err = tool(f"{PRUNE} --macs 0.7 --test photos")
    assert code == 2
    assert "is not a box" in err


@pytest.mark.parametrize("sure", [True, False])
def test_a_detector_without_a_preset_is_told_of_those_it_may_need(
    tool: Callable[[str], tuple[int, str, str]], sure: bool
) -> None:
    """Also where pictures fed the wrong way show it nothing, so that no task is sure."""
    if not sure:
        net = onnx.load("net.onnx")
        (bias,) = [array for array in net.graph.initializer if array.name == "none"]
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(2, -60, np.float32), bias.name))
        onnx.save(net, "net.onnx")
    plain = PRUNE.replace("--preprocess unit ", "")
    code, out, err = tool(f"{plain} --macs 0.7 --json")
    assert code == 0, err
    notes = [note for note in json.loads(out)["notes"] if "no --preprocess was given" in note]
    assert len(notes) == 1
    assert "--preprocess unit --letterbox" in notes[0]
    code, out, _ = tool(f"{PRUNE} --macs 0.7 --json")
    assert not any("no --preprocess was given" in note for note in json.loads(out)["notes"])


@pytest.mark.parametrize("limit", [0.02, 0.3])
def test_a_search_adds_the_standard_error_of_few_objects_to_the_drop(
    tool: Callable[[str], tuple[int, str, str]], limit: float
) -> None:
    code, out, err = tool(f"{PRUNE} --max-drop {limit} --json")
    assert code == 0, err
    drop = json.loads(out)["drop"]
    error = (drop["high"] - drop["low"]) / (2 * 1.96)
    assert drop["value"] == 0 or drop["value"] + error <= limit + 1e-6
