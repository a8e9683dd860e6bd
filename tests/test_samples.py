"""How many calibration samples a run takes where nothing is said of it, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphs import Sketch

import onnxprune
from onnxprune.effort import EFFORTS, MAX_SAMPLES, REFINED, SAMPLES, refinements
from onnxprune.graph.load import load
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context, set_up

WIDE, MANY = 6, MAX_SAMPLES + 100


def opened(data: object, options: Options) -> Context:
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.op("MatMul", sketch.input("x", ["n", WIDE]), sketch.weight(WIDE, 12)))
    sketch.output(sketch.op("MatMul", hidden, sketch.weight(12, 3)), ["n", 3])
    return set_up(load(sketch.model()), data, options)


def taken(data: object, options: Options) -> int:
    work = opened(data, options)
    return work.fit.count + work.holdout.count


def samples_like(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, WIDE)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (Options(), MAX_SAMPLES),
        (Options(effort="fast"), SAMPLES),
        (Options(samples=30), 30),
        (Options(samples=MANY + 1), MANY),
    ],
)
def test_a_small_model_takes_more_samples_than_a_large_one_unless_told(options: Options, count: int) -> None:
    assert taken(samples_like(MANY), options) == count


def test_what_can_be_read_only_once_is_not_read_again() -> None:
    data = samples_like(MANY)
    read = []

    def stream() -> Iterator[dict[str, np.ndarray]]:
        for number, sample in enumerate(data):
            read.append(number)
            yield {"x": sample[None]}

    assert taken(stream(), Options()) == SAMPLES
    assert len(read) <= SAMPLES + 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_sample_that_serves_twice_is_told(count: int) -> None:
    work = opened(samples_like(count), Options())
    assert (work.fit.count, work.holdout.count) == (1, 1)
    assert any("only one sample" in note for note in work.notes) == (count == 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_are_enough_to_run(count: int) -> None:
    """Behind a pooling layer a sample is one row: what varies over one or two is rounding errors only."""
    model = Path(__file__).parents[1] / "models" / "demo.onnx"
    data = np.random.default_rng(0).random((count, 1, 28, 28)).astype(np.float32)
    assert onnxprune.prune(model, data, macs=0.8, select="obs", effort="fast").report.verify.passed


@pytest.mark.parametrize(("asked", "told"), [(None, False), (5, False), (9, True)])
def test_fewer_samples_than_asked_for_are_told(asked: int | None, told: bool) -> None:
    notes = opened(samples_like(5), Options(samples=asked)).notes
    assert ("the data has only 5 samples, fewer than --samples 9" in notes) == told


@pytest.mark.parametrize("macs", [1e6, 4.1e7, 1.3e8, 2.1e8, 2.2e8, 4e8, 4e9])
@pytest.mark.parametrize("level", list(EFFORTS))
def test_more_samples_never_cost_a_model_its_refinement(level: str, macs: float) -> None:
    """With 2,048 pictures a small network was not refined, though it was with 512."""
    effort = EFFORTS[level]
    made = [refinements(effort, macs, count) for count in (SAMPLES, 512, 1024, 2048, 10**5)]
    rounds, used = zip(*made, strict=True)
    assert len(set(rounds)) == 1 and list(used) == sorted(used)
    if rounds[0]:
        assert all(count * rounds[0] * REFINED * macs <= effort.refining for count in used)
    else:
        assert list(used) == [SAMPLES, 512, 1024, 2048, 10**5]
