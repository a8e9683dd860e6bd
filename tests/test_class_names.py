"""Classes are called by the names that the exporter wrote into the metadata, whatever those names are."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from graphs import Sketch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from onnxprune.cli import main
from onnxprune.graph.metadata import class_names
from onnxprune.report.samples import _with_boxes
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.detections import Detections

NAMES = st.lists(st.text(string.ascii_letters + " -_é象", min_size=1), max_size=5)


@given(NAMES)
@settings(max_examples=50, deadline=None)
def test_every_form_that_exporters_write_is_read(names: list[str]) -> None:
    numbered = dict(enumerate(names))
    for text in (repr(numbered), json.dumps(numbered, ensure_ascii=False)):
        assert class_names({"names": text}) == numbered
    assert class_names({"names": repr(names)}) == numbered


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_it(text: str) -> None:
    for entry in (text, "{" + text, "[" + text):
        names = class_names({"names": entry})
        assert all(isinstance(number, int) and isinstance(name, str) for number, name in names.items())


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_name_can_be_drawn(name: str) -> None:
    found = Detections(np.array([[2.0, 2.0, 30.0, 30.0]]), np.array([0.9]), np.array([0]))
    drawn = _with_boxes(Image.new("RGB", (64, 64)), found, Answers((), (), (), classes={0: name}))
    assert np.asarray(drawn).any()


@pytest.mark.parametrize(
    ("stated", "called"),
    [("{0: 'cat', 1: 'cat'}", "cat"), ("['\x1b[31mcat', '\x1b[31mcat']", "\\x1b[31mcat"), ("", "class ")],
)
def test_the_note_on_the_first_sample_names_the_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stated: str, called: str
) -> None:
    sketch = Sketch()
    x = sketch.input("x", ["n", 3, 8, 8])
    hidden = sketch.op("Relu", sketch.op("Conv", x, sketch.weight(8, 3, 3, 3)))
    pooled = sketch.op("Flatten", sketch.op("GlobalAveragePool", hidden))
    sketch.output(sketch.op("Softmax", sketch.op("Gemm", pooled, sketch.weight(8, 2))), ["n", 2])
    model = sketch.model()
    model.metadata_props.add(key="names", value=stated)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "data.npy", np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    line = [
        str(tmp_path / "net.onnx"),
        "--data",
        str(tmp_path / "data.npy"),
        "--macs",
        "0.8",
        "--round",
        "1",
        "-o",
        str(tmp_path / "o.onnx"),
    ]
    code = main([*line, "--effort", "fast"])
    err = capsys.readouterr().err
    assert code == 0, err
    assert f"the model answers: {called}" in err
