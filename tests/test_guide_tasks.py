"""The metrics that the guide on tasks shows compute what it says; its words and options are those that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune import guide
from onnxprune.tasks.detect.layout import VALUED, WORDS
from onnxprune.tasks.task import KINDS

TEXT = guide.text("tasks")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.S))


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guide's code defines, in a folder with what it reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val").mkdir()
    boxes = {1: [64, 48, 64, 48], 2: [0, 0, 32, 32]}
    for identity in boxes:
        Image.new("RGB", (320, 240), (identity, 0, 0)).save(tmp_path / "val" / f"{identity}.png")
    notes = [
        {"id": i, "image_id": i, "category_id": 7, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in boxes.items()
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 320, "height": 240} for i in boxes]
    value = {"images": images, "annotations": notes, "categories": [{"id": 7, "name": "cat"}]}
    (tmp_path / "val" / "annotations.json").write_text(json.dumps(value))
    (tmp_path / "speech").mkdir()
    np.save(tmp_path / "speech" / "features.npy", np.arange(2, dtype=np.float32)[:, None])
    (tmp_path / "speech" / "texts.txt").write_text("a cab\nbad cab\n")
    names: dict[str, Any] = {}
    exec(CODE, names)
    return names


def detected(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Finds the box of the first picture, in the model's 640 × 640 pixels, and none on the second."""
    first = round(float(feeds["images"].max() * 255)) == 1
    row = [128, 128, 256, 256, 0.9 if first else 0.0, 0]
    return {"output0": np.asarray([[row]], np.float32)}


def heard(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Says "a cab" of everything."""
    letters = "_ abcdefghijklmnopqrstuvwxyz'"
    return {"logits": np.eye(len(letters))[[letters.index(c) for c in "aa_ ccab"]][None]}


def test_the_metrics_of_the_guide_compute_what_it_says(shown: dict[str, Any]) -> None:
    # One of two boxes is found, exactly: the precision is 1 up to a recall of one half (51 of 101 levels).
    assert shown["mean_ap"](detected) == pytest.approx(51 / 101)
    # One word of four is wrong.
    assert shown["word_accuracy"](heard) == pytest.approx(-1 / 4)
    worse = shown["both"](lambda feeds: detected(feeds) if "images" in feeds else heard(feeds))
    assert worse == pytest.approx(min(51 / 101 / 0.412, 0.75 / (1 - 0.083)))


def test_the_guide_has_every_word_of_a_layout_and_every_task() -> None:
    for word in (*WORDS, *(f"{name}=" for name in VALUED)):
        assert re.search(rf"`{word}|[ ,]`{word}", TEXT), word
    for kind in KINDS:
        assert f"| `{kind}` |" in TEXT
