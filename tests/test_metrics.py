"""Outputs that look dead or constant are named; others are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import Sketch

import onnxprune
from onnxprune import metrics
from onnxprune.engine.session import Engine
from onnxprune.errors import DataError
from onnxprune.pipeline.own_metric import SessionRunner, own_drop
from onnxprune.report.document import of_report, to_text
from onnxprune.report.html import render
from onnxprune.report.wording import verdict
from onnxprune.result import SearchStep

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(16, 5))
WINNER = SCORES + np.eye(5)[2] * 100


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (SCORES, None),
        (np.zeros((16, 5)), "is zero for every sample"),
        (np.ones((16, 3, 3)) + 1e-9 * GENERATOR.normal(size=(16, 3, 3)), "hardly changes"),
        (np.where(SCORES > 2, np.nan, SCORES) * np.inf, "NaN or infinity"),
        (WINNER, "same top-1 class, 2"),
        (WINNER[:, :, None], None),
        (np.zeros((16, 5), dtype=np.int64), "is zero for every sample"),
        (np.arange(16), None),
        (np.zeros((4, 5)), None),
    ],
)
def test_suspicious_outputs(output: np.ndarray, said: str | None) -> None:
    told = metrics.suspicious(("y",), (output,), len(output), metrics.metric_of((output,)))
    if said is None:
        assert told == ()
    else:
        (text,) = told
        assert said in text
        assert "'y'" in text
        assert "--preprocess" in text


MASK = GENERATOR.integers(0, 3, size=(4, 8, 8))
TEXT = np.array(["cat", "dog"], dtype=object)
BOXES = np.arange(1.0, 13.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("original", "pruned", "metric", "value"),
    [
        ([MASK], [MASK], metrics.VALUES, 0.0),
        ([MASK], [MASK + (np.arange(8) < 2)], metrics.VALUES, 0.25),
        ([MASK > 0, MASK], [MASK <= 0, MASK], metrics.VALUES, 0.5),
        ([np.arange(8)], [np.arange(6)], metrics.VALUES, 0.25),
        ([TEXT], [TEXT[::-1]], metrics.VALUES, 1.0),
        # Boxes and their labels: the numbers tell more than the labels do; a box that is missing is no small matter.
        ([BOXES, np.arange(3)], [BOXES, np.arange(1, 4)], metrics.RELATIVE, 0.0),
        ([BOXES], [BOXES[:0]], metrics.RELATIVE, 1.0),
        ([BOXES[:0]], [BOXES[:0]], metrics.RELATIVE, 0.0),
        # Masked scores are infinite by design.
        ([np.where(BOXES > 6, -np.inf, BOXES)[None]], [np.where(BOXES > 6, -np.inf, BOXES)[None]], metrics.RELATIVE, 0),
    ],
)
def test_outputs_are_compared_by_what_they_hold(
    original: list[np.ndarray], pruned: list[np.ndarray], metric: str, value: float
) -> None:
    found = metrics.drop(metrics.metric_of(original), original, pruned, 4)
    assert (found.metric, found.samples) == (metric, 4)
    assert found.value == pytest.approx(value)
    assert metrics.plain_loss(original, pruned) == pytest.approx(value**2)


def test_a_mask_bounds_what_may_go() -> None:
    sketch = Sketch()
    x = sketch.input("x", ["n", 3, 6, 6])
    hidden = sketch.op("Relu", sketch.conv(x, 3, 16, 3, name="first"))
    scores = sketch.conv(hidden, 16, 4, name="second")
    sketch.output(sketch.op("ArgMax", scores, attrs={"axis": 1, "keepdims": 0}), ["n", 6, 6], 7)
    data = {"x": GENERATOR.normal(size=(40, 3, 6, 6)).astype(np.float32)}
    report = onnxprune.prune(sketch.model(), [{"x": row} for row in data["x"]], max_drop=0.3, effort="fast").report
    assert report.drop is not None and report.drop.metric == "mean IoU lost"
    assert report.drop.value <= 0.3 and report.macs.ratio > 0.2


@pytest.mark.parametrize(
    ("stated", "told"), [(None, "--max-drop 0.05"), (0.01, "--max-drop 0.01"), (0.2, "--max-drop 0.2")]
)
def test_of_outputs_that_are_no_scores_more_error_is_allowed_unless_told(stated: float | None, told: str) -> None:
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.conv(sketch.input("x", ["n", 3, 6, 6]), 3, 32, 3))
    sketch.output(sketch.conv(hidden, 32, 4), ["n", 4, 6, 6])
    # Half of the channels repeat the other half, so that something can go whatever is allowed.
    model = sketch.model()
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if len(array) == 32:
            array[16:] = array[:16]
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    data = [{"x": row} for row in GENERATOR.normal(size=(40, 3, 6, 6)).astype(np.float32)]
    report = onnxprune.prune(model, data, max_drop=stated, select="obs", round_to=1).report
    assert report.settings["budget"] == told
    assert report.drop is not None and report.drop.value <= float(told.split()[1])
    assert report.macs.ratio < 0.95


@pytest.mark.parametrize(
    ("length", "kept", "metric"),
    [(64, 64, metrics.ERROR), ("t", 60, metrics.ERROR), (64, 60, metrics.CHANGED)],
)
def test_waveforms_are_no_class_scores(length: int | str, kept: int, metric: str) -> None:
    """A row is one where it is as long as what is fed, or grows with it; of one length, nothing tells it from scores."""
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.conv(sketch.input("x", [1, 1, 1, length]), 1, 8))
    wave = sketch.op("Squeeze", sketch.conv(hidden, 8, 1), sketch.array([1, 2]))
    end = sketch.array([kept - 64 or 64])
    sketch.output(sketch.op("Slice", wave, sketch.array([0]), end, sketch.array([1])), [1, "u"])
    made = [{"x": GENERATOR.normal(size=(1, 1, 64)).astype(np.float32)} for _ in range(12)]
    report = onnxprune.prune(sketch.model(), made, macs=0.7, effort="fast").report
    assert report.drop is not None and report.drop.metric == metric
    compared = onnxprune.compare(sketch.model(), sketch.model(), made).drop
    assert compared is not None and compared.metric == metric


def test_a_model_that_answers_nan_cannot_be_measured() -> None:
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.conv(sketch.input("x", ["n", 3, 6, 6]), 3, 16, 3, name="first"))
    sketch.output(sketch.op("Log", sketch.conv(hidden, 16, 4, name="second"), name="log"), ["n", 4, 6, 6])
    with pytest.raises(DataError, match=r"returns NaN at 'log.*' on held-out samples.* give --data"):
        onnxprune.prune(sketch.model(), macs=0.6, samples=8, effort="fast")


@pytest.mark.parametrize(
    ("first", "said"), [(0, None), (1, "labels go up to 4"), (519, "labels go up to 522"), (-1, "start at -1")]
)
def test_labels_that_are_no_classes_are_not_counted_as_wrong(first: int, said: str | None) -> None:
    labels = first + np.arange(16) % 4
    if said is None:
        assert metrics.accuracy([SCORES[:, :4]], labels) is not None
        return
    with pytest.raises(DataError, match=f"{said}, but the model scores 4 classes, 0 to 3: number the classes"):
        metrics.accuracy([SCORES[:, :4]], labels)


def classifier() -> onnx.ModelProto:
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.op("MatMul", sketch.input("x", ["n", 6]), sketch.weight(6, 12)))
    sketch.output(sketch.op("MatMul", hidden, sketch.weight(12, 3)), ["n", 3])
    return sketch.model()


def test_labels_out_of_range_are_refused_where_asked_for_and_else_told() -> None:
    model, values = classifier(), GENERATOR.normal(size=(40, 6)).astype(np.float32)
    wrong = {"x": values, "labels": np.arange(40) % 3 + 2020}
    with pytest.raises(DataError, match=r"labels go up to 2022, but the model scores 3 classes"):
        onnxprune.prune(model, values, macs=0.7, test=wrong, effort="fast")
    with pytest.raises(DataError, match=r"labels go up to 2022"):
        onnxprune.compare(model, model, wrong)
    report = onnxprune.prune(model, wrong, macs=0.7, effort="fast").report
    assert report.accuracy is None
    assert any(note.startswith("no accuracy is measured: labels go up to 2022") for note in report.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.float32("inf"), np.asarray([np.nan])])
def test_a_metric_that_returns_no_number_is_refused(value: object) -> None:
    def f1(run: object) -> object:
        return value

    with pytest.raises(DataError, match=r"the metric f1 returned -?(nan|inf)"):
        onnxprune.prune(classifier(), evaluate=f1, samples=8, effort="fast")


def _log_of_what_is_left(within: float) -> Callable[[SessionRunner], float]:
    """The log of the room that is left to a relative error of ``within``; the first model asked about is the measure."""
    feeds = {"x": np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)}
    first: list[np.ndarray] = []

    def score(runner: SessionRunner) -> float:
        (found,) = runner(feeds).values()
        first.append(found)
        left = within - np.linalg.norm(found - first[0]) / np.linalg.norm(first[0])
        return float(np.log(left)) if left > 0 else float("-inf")

    return score


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_a_candidate_of_minus_infinity_by_the_own_metric_is_the_worst(effort: str) -> None:
    data = [{"x": row} for row in np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)]
    report = onnxprune.prune(
        classifier(), data, evaluate=_log_of_what_is_left(0.5), max_drop=2.0, effort=effort, round_to=1
    ).report
    assert any(np.isinf(step.drop) for step in report.search)
    assert report.drop is not None and report.drop.value <= 2.0
    assert report.macs.ratio < 1


def test_a_size_is_met_even_where_the_own_metric_falls_to_minus_infinity() -> None:
    data = [{"x": row} for row in GENERATOR.normal(size=(96, 6)).astype(np.float32)]
    report = onnxprune.prune(
        classifier(), data, evaluate=_log_of_what_is_left(1e-9), macs=0.4, effort="fast", round_to=1
    ).report
    assert report.drop is not None and report.drop.value == np.inf
    assert "own metric falls to minus infinity" in verdict(report)
    assert json.loads(to_text(of_report(report)))["drop"]["value"] is None
    steps = tuple(SearchStep(share, np.inf) for share in (0.8, 0.6, 0.4))
    assert "<svg" in render(replace(report, search=steps), "{}", "onnxprune")


def test_what_a_metric_may_return_of_either_model_in_a_comparison() -> None:
    answers = {"good": 1.0, "bad": float("-inf"), "none": float("nan")}

    def compared(first: str, second: str) -> float:
        given = iter((answers[first], answers[second]))
        return own_drop(lambda run: next(given), classifier(), classifier(), 8, Engine()).value

    assert compared("good", "bad") == np.inf
    with pytest.raises(DataError, match=r"returned -inf for the original model"):
        compared("bad", "good")
    with pytest.raises(DataError, match=r"returned nan"):
        compared("good", "none")
