"""The size of pictures for a model that leaves it free: what the user says, else its metadata, else the usual one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Sketch
from PIL import Image

from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.graph.load import load
from onnxprune.pipeline.setup import specs_of

STATED = {
    "640": (640, 640),
    "[480, 640]": (480, 640),
    " (96,128) ": (96, 128),
    "[0, 640]": None,
    "large": None,
    "[1, 2, 3]": None,
    "-64": None,
    "9" * 400: None,
    "": None,
}


@pytest.mark.parametrize("free", [("n", 3, "h", "w"), ("n", 3, 64, "w"), ("n", 3, 64, 96)])
@pytest.mark.parametrize("crop", [None, (32, 48)])
@pytest.mark.parametrize("stated", STATED)
def test_the_user_wins_then_the_metadata_then_the_default(
    tmp_path: Path, free: tuple[int | str, ...], crop: tuple[int, int] | None, stated: str
) -> None:
    sketch = Sketch()
    x = sketch.input("x", list(free))
    sketch.output(sketch.op("Conv", x, sketch.weight(4, 3, 3, 3)), ["n", 4, "a", "b"])
    model = sketch.model()
    model.metadata_props.add(key="imgsz", value=stated)
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "a.png")
    height, width = (side if isinstance(side, int) else None for side in free[2:])
    if crop is not None and (height, width) != (None, None):
        # A crop that contradicts the model is refused elsewhere.
        crop = (height or crop[0], width or crop[1])
    usual = crop or STATED[stated]
    data = open_dataset(str(tmp_path), specs_of(load(model)), Preprocess.named("unit", crop=crop), None, 0)
    fallback = (height or width or 224, width or height or 224)
    expected = tuple(own or side for own, side in zip((height, width), usual or fallback, strict=True))
    assert data.fetch([0])["x"].shape[2:] == expected
    notes = [note for note in data.notes if "dynamic height or width" in note]
    assert bool(notes) == (crop is None and None in (height, width))
    assert all(("metadata" in note) == (expected == STATED[stated]) for note in notes)
