"""Classifiers that answer a label beside probabilities, as sklearn's exporters write them, lose labels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch
from onnx import TensorProto
from onnx import helper as oh

import onnxprune

INPUTS = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)


def classifier(probabilities: str) -> onnx.ModelProto:
    """8 → 32 → 3, half of the hidden channels the other half again; a label, and probabilities as a tensor, as a map,
    or none."""
    sketch = Sketch()
    x = sketch.input("x", ["n", 8])
    generator = np.random.default_rng(1)
    first = generator.normal(size=(8, 32)).astype(np.float32)
    first[:, 16:] = first[:, :16]
    hidden = sketch.op("Relu", sketch.op("MatMul", x, sketch.keep("first", first)))
    last = sketch.keep("last", generator.normal(size=(32, 3)).astype(np.float32))
    shares = sketch.op("Softmax", sketch.op("MatMul", hidden, last), attrs={"axis": 1})
    sketch.output(sketch.op("ArgMax", shares, attrs={"axis": 1, "keepdims": 0}), ["n"], TensorProto.INT64)
    if probabilities == "tensor":
        sketch.output(sketch.op("Identity", shares), ["n", 3])
    if probabilities == "map":
        sketch.domains["ai.onnx.ml"] = 3
        attrs = {"classlabels_int64s": [0, 1, 2]}
        name = sketch.op("ZipMap", shares, domain="ai.onnx.ml", attrs=attrs)  # type: ignore[arg-type]
        kind = oh.make_map_type_proto(TensorProto.INT64, oh.make_tensor_type_proto(TensorProto.FLOAT, []))
        sketch.outputs.append(oh.make_value_info(name, oh.make_sequence_type_proto(kind)))
    return sketch.model()


@pytest.mark.parametrize("probabilities", ["tensor", "map", "none"])
def test_the_drop_is_changed_labels_and_the_accuracy_is_theirs(probabilities: str) -> None:
    model = classifier(probabilities)
    session = onnxprune.compare(model, model, {"x": INPUTS})
    assert session.drop is not None and (session.drop.metric, session.drop.value) == ("top-1 changed", 0)
    labels = (INPUTS[:, 0] > 0).astype(np.int64)
    report = onnxprune.prune(model, {"x": INPUTS, "labels": labels}, macs=0.6, round_to=1, effort="fast").report
    assert report.drop is not None
    assert (report.drop.metric, report.drop.samples) == ("top-1 changed", 20)
    assert report.drop.value <= 0.2
    assert report.drop.low is not None and report.drop.high is not None
    assert report.drop.low <= report.drop.value <= report.drop.high
    assert any(note.startswith("task classify: a label per sample") for note in report.notes)
    assert report.accuracy is not None
    assert 0 < report.accuracy.before < 1
    assert abs(report.accuracy.after - report.accuracy.before) <= report.drop.value + 1e-9
