"""Widths of an allocation are measured before it is believed, and held-out samples say something."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import onnx
import pytest
from graphs import Sketch
from workbench import OPTIONS, Bench, bench

import onnxprune
from onnxprune.budget import probe
from onnxprune.budget.cost import macs, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.probe import KeptMeasure
from onnxprune.calibration.open import open_dataset
from onnxprune.coupling.open import couple
from onnxprune.engine.session import Engine
from onnxprune.graph.load import load
from onnxprune.measure.information import sample_information
from onnxprune.measure.loss import output_loss
from onnxprune.pipeline.allocation import within
from onnxprune.pipeline.evaluator import evaluator_for
from onnxprune.pipeline.pricing import Pricing, price, sharpened
from onnxprune.pipeline.search.trials import Trials
from onnxprune.pipeline.setup import specs_of
from onnxprune.progress import Silent

SIDE, WIDE, LOUD = 12, 24, 4


def detector(seed: int, scale: float = 640.0) -> onnx.ModelProto:
    """Boxes in pixels and class probabilities behind one stem; both branches are alike but for what is behind them."""
    generator = np.random.default_rng(seed)
    sketch = Sketch()

    def conv(x: str, into: int, out: int, name: str) -> str:
        weight = generator.standard_normal((out, into, 3, 3)) * np.sqrt(2 / into / 9)
        return sketch.op("Conv", x, sketch.array(weight, np.float32), name=name, attrs={"pads": [1, 1, 1, 1]})

    x = sketch.input("x", ["n", 3, SIDE, SIDE])
    stem = sketch.op("Relu", conv(x, 3, WIDE, "stem"))
    boxes, scores = (conv(sketch.op("Relu", conv(stem, WIDE, WIDE, name)), WIDE, 4, f"{name}.out") for name in ("box", "class"))
    made = [
        sketch.op("Mul", boxes, sketch.array(scale, np.float32)),
        sketch.op("Sigmoid", sketch.op("Sub", sketch.op("Mul", scores, sketch.array(2.0, np.float32)), sketch.array(6.0, np.float32))),
    ]
    sketch.output(sketch.op("Concat", *made, attrs={"axis": 1}), ["n", 8, SIDE, SIDE])
    return sketch.model()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Noise; in one of ``LOUD`` pictures a patch of a strong pattern."""
    generator = np.random.default_rng(seed)
    found = generator.standard_normal((count, 3, SIDE, SIDE)).astype(np.float32) * 0.1
    for sample in range(0, count, LOUD):
        top, left = generator.integers(SIDE - 4, size=2)
        found[sample, :, top : top + 4, left : left + 4] += generator.standard_normal((3, 4, 4)) * 2
    return found


@pytest.fixture(scope="module")
def on() -> Bench:
    return bench(detector(0), pictures(64))


@pytest.fixture(scope="module")
def pricing(on: Bench) -> Pricing:
    return price(on.work, replace(OPTIONS, round_to=1), {"qr": on.rankings}, on.grams, Silent())[0]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_the_curves_hold_what_was_measured_at_the_widths_of_an_allocation(
    on: Bench, pricing: Pricing, share: float
) -> None:
    cost = macs(on.coupling)
    counts = within(pricing, cost, share * cost(sizes(on.coupling)))
    better = sharpened(on.work, OPTIONS, pricing, counts, Silent())
    whole = sizes(on.coupling)
    assert (counts < whole).any()
    for (_, group), losses in zip(better.survey.groups, better.losses, strict=True):
        measured = dict(losses["qr"])
        if counts[group] == whole[group]:
            continue
        least = max(loss for width, loss in measured.items() if width >= counts[group])
        assert better.curves[group].loss[int(counts[group])] == pytest.approx(max(least, 1e-9))
    # Everything is known now.
    assert sharpened(on.work, OPTIONS, better, counts, Silent()) is better


def test_surveys_of_one_run_compute_the_answers_of_the_original_once(on: Bench) -> None:
    options, measures = replace(OPTIONS, round_to=1), []
    with mock.patch.object(probe, "output_loss", side_effect=lambda *given: measures.append(output_loss(*given)) or measures[-1]):
        first = price(on.work, options, {"qr": on.rankings}, on.grams, Silent())[0]
        counts = np.maximum(sizes(on.coupling) - 1, 1)
        better = sharpened(on.work, options, first, counts, Silent())
        assert len(measures) == 1
        alone = sharpened(on.work, options, replace(first, kept=KeptMeasure()), counts, Silent())
    assert len(measures) == 2 and better.losses == alone.losses != first.losses


def test_answers_of_many_bytes_are_not_kept(on: Bench, pricing: Pricing, monkeypatch) -> None:
    monkeypatch.setattr(probe, "MAX_BYTES", pricing.kept.get(None).reference[0].nbytes - 1)
    kept, made = KeptMeasure(), []
    for _ in range(2):
        kept.get(lambda: made.append(0) or pricing.kept.get(None))
    assert len(made) == 2


def test_a_curve_that_promises_too_much_is_found_out(on: Bench, pricing: Pricing) -> None:
    """One group seems to cost nothing down to a few channels; after its width was measured it keeps more."""
    cost = macs(on.coupling)
    target = 0.6 * cost(sizes(on.coupling))
    free = max(group for _, group in pricing.survey.groups)
    tiers = tuple(
        tuple(Curve(np.zeros(len(c.loss)), c.widths) if g == free else c for g, c in enumerate(tier))
        for tier in pricing.tiers
    )
    wrong = replace(pricing, tiers=tiers)
    believed = within(wrong, cost, target)[free]
    assert believed < 6
    trials = Trials(on.work, [wrong], evaluator_for(on.work, OPTIONS), replace(OPTIONS, round_to=1), Silent())
    best = trials.best((1.0,), cost, target)
    assert best.counts[free] > 2 * believed
    assert best.pricing.curves[free].loss[believed] > 0


@pytest.mark.parametrize("scale", [1.0, 640.0])
@pytest.mark.parametrize("seed", range(3))
def test_of_two_branches_alike_none_is_cut_to_a_stump(seed: int, scale: float) -> None:
    result = onnxprune.prune(
        detector(seed, scale), pictures(64, seed), macs=0.6, samples=64, effort="fast", round_to=1, threads=1, task="regress"
    )
    kept = {cut.group: len(cut.kept) / cut.before for cut in result.plan.cuts}
    box, scores = (kept.get(name, 1.0) for name in ("box", "class"))
    assert min(box, scores) > 0.1
    assert max(box, scores) < 4 * min(box, scores)


def test_samples_with_something_on_them_say_more() -> None:
    model, data = load(detector(1)), pictures(40)
    dataset = open_dataset(data, specs_of(model), None, None, 0)
    found = sample_information(couple(model.proto, {}, {"x": (1, 3, SIDE, SIDE)}), Engine(), dataset)
    assert found is not None and found.shape == (40,)
    loud = np.arange(40) % LOUD == 0
    assert found[loud].min() > found[~loud].max()


def test_class_scores_and_plain_numbers_say_nothing_of_samples() -> None:
    for squash in ("Softmax", "Identity"):
        sketch = Sketch()
        x = sketch.op("MatMul", sketch.input("x", ["n", 6]), sketch.weight(6, 4))
        sketch.output(sketch.op(squash, x), ["n", 4])
        model = load(sketch.model())
        data = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
        dataset = open_dataset(data, specs_of(model), None, None, 0)
        assert sample_information(couple(model.proto, {}, {"x": (1, 6)}), Engine(), dataset) is None
