"""How often things are done in a run: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Sketch
from PIL import Image
from scipy.sparse import csr_array
from workbench import OPTIONS, Bench, bench, correlated

from onnxprune.budget.allocate import _narrower, allocate
from onnxprune.budget.cost import Cost
from onnxprune.budget.curve import Curve
from onnxprune.budget.lengths import Lengths
from onnxprune.calibration import images, moments
from onnxprune.calibration.dataset import InputSpec
from onnxprune.calibration.kept import kept
from onnxprune.calibration.moments import blocks, measure_moments
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.row_rule import RowRule
from onnxprune.coupling.open import couple
from onnxprune.engine.session import Engine
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.linear.form import Layer, layers
from onnxprune.linear.gram import Gram, column_sums
from onnxprune.pipeline.allocation import Allocation
from onnxprune.pipeline.candidate import Conditions, attempt, trial
from onnxprune.pipeline.evaluator import Evaluator, evaluator_for
from onnxprune.pipeline.pricing import Pricing, price
from onnxprune.pipeline.setup import specs_of
from onnxprune.progress import Silent
from onnxprune.refit import sampled, sampling
from onnxprune.refit.sequential import refit
from onnxprune.surgery.cut import cut
from onnxprune.tasks import answers

Array = np.ndarray
SAMPLES = 40


def net(batch: int | str) -> onnx.ModelProto:
    """Three convolutions, two of them in front of a Relu."""
    sketch = Sketch()
    x = sketch.input("x", [batch, 6, 8, 8])
    for into, out in ((6, 16), (16, 12), (12, 5)):
        x = sketch.op("Conv", x, sketch.weight(out, into, 3, 3), sketch.weight(out), attrs={"pads": [1, 1, 1, 1]})
        x = sketch.op("Relu", x) if out != 5 else x
    sketch.output(x, [batch, 5, 8, 8])
    return sketch.model()


@pytest.fixture(scope="module")
def on() -> Bench:
    return bench(net("n"), correlated((SAMPLES, 6, 8, 8), rank=3))


@pytest.fixture(scope="module")
def pricing(on: Bench) -> Pricing:
    return price(on.work, replace(OPTIONS, round_to=1), {"qr": on.rankings}, on.grams, Silent())[0]


def counting(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    """Every call of ``module.name`` from now on, by its first argument."""
    found: list[object] = []
    usual: Callable[..., object] = getattr(module, name)

    def called(*arguments: object, **named: object) -> object:
        found.append(arguments[0])
        return usual(*arguments, **named)

    monkeypatch.setattr(module, name, called)
    return found


# -- passes over the holdout -------------------------------------------------------------------------------------


@pytest.fixture
def evaluator(on: Bench) -> Evaluator:
    return evaluator_for(on.work, OPTIONS)


def test_whatever_is_asked_about_a_model_it_runs_over_the_holdout_once(
    on: Bench, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = counting(monkeypatch, answers, "run")
    model, other = (cut(on.coupling, on.narrowed(share)) for share in (0.5, 0.8))
    drop = evaluator.drop(model)
    passes = len(runs)
    loss = evaluator.output_loss(model)
    again = evaluator.with_interval(drop, model)
    assert (again.value, len(runs)) == (drop.value, passes)
    # Answers are of the model that is asked about, not of the last one.
    assert evaluator.drop(other).value != drop.value
    assert len(runs) == 2 * passes
    assert (evaluator.drop(model), evaluator.output_loss(model)) == (drop, loss)


def test_answers_that_are_large_are_not_kept(
    on: Bench, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.pipeline.evaluator.MAX_KEPT", 100)
    runs = counting(monkeypatch, answers, "run")
    model = cut(on.coupling, on.narrowed(0.5))
    drop = evaluator.drop(model)
    passes = len(runs)
    evaluator.output_loss(model)
    assert len(runs) == 2 * passes
    assert evaluator.drop(model) == drop


@pytest.mark.parametrize(("made", "passes"), [(trial, 1), (attempt, 2)])
def test_a_trial_costs_one_pass_over_the_holdout_and_an_attempt_two(
    on: Bench,
    pricing: Pricing,
    evaluator: Evaluator,
    made: Callable[..., object],
    passes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = np.asarray([max(1, len(g) // 2) for g in on.coupling.groups])
    runs = counting(monkeypatch, answers, "run")
    made(Conditions(on.work, evaluator, OPTIONS), Allocation(pricing, counts), Silent())
    assert len(runs) == passes * len(list(on.work.holdout.rows(answers.BATCH)))


# -- rows --------------------------------------------------------------------------------------------------------


def test_a_model_that_takes_one_sample_at_a_time_is_sampled_as_if_it_took_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls, found = correlated((SAMPLES, 6, 8, 8), rank=3), [], []
    for batch in ("n", 1):
        model = net(batch)
        coupling = couple(model, {}, {"x": (1, 6, 8, 8)})
        dataset = open_dataset(data, specs_of(load(model)), None, None, 0)
        taken = counting(monkeypatch, moments, "sample_rows")
        found.append(measure_moments(coupling, list(layers(coupling)), dataset, Engine(threads=1), 0, Silent()))
        calls.append(len(taken))
        monkeypatch.undo()
    assert calls[0] == calls[1]
    for index, one in found[0].items():
        np.testing.assert_allclose(one.of(0), found[1][index].of(0), rtol=1e-4, atol=1e-3)


def test_so_does_the_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, weights = [], []
    for batch in ("n", 1):
        one = bench(net(batch), correlated((SAMPLES, 6, 8, 8), rank=3))
        keep = one.narrowed(0.6)
        taken = counting(monkeypatch, sampled, "sample_rows")
        found = refit(one.calibrated, keep, view(cut(one.coupling, keep)), 0, Silent())
        calls.append(len(taken))
        weights.append(found.weights)
        monkeypatch.undo()
    assert calls[0] == calls[1]
    assert weights[0].keys() == weights[1].keys()
    for use, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][use], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("count", [1, 4, 5, 17, 500])
@pytest.mark.parametrize("times", [0, 1, 2, 3, 50])
def test_a_share_of_the_blocks_is_sampled_where_rows_are_plenty(count: int, times: int) -> None:
    found = list(sampled.sampled_blocks(count, times))
    sides = [sum(sampled.side_of(block) == side for block in found) for side in (0, 1)]
    assert found == sorted(set(found)) and set(found) <= set(range(count))
    assert len(found) == count if times < 2 else len(found) <= count / times + sampled.HOLD_EVERY
    assert sides[0] > 0 and sides[1] == len(found) // sampled.HOLD_EVERY


@pytest.mark.parametrize("wanted", [4, 8, 1000])
def test_samples_beyond_the_rows_wanted_take_no_memory(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, rows = bench(net("n"), correlated((SAMPLES, 6, 8, 8), rank=3)), []
    keep, usual = one.narrowed(0.6), sampled.sample_rows

    def noted(layer: Layer, *rest: Any) -> Array:
        found = usual(layer, *rest)
        rows.append((layer.index, len(found)))
        return found

    monkeypatch.setattr(sampled, "sample_rows", noted)
    monkeypatch.setattr(RowRule, "rows", lambda self, groups, unknowns: wanted)
    monkeypatch.setattr(sampling, "batch_size", lambda *arguments: 1)
    refit(one.calibrated, keep, view(cut(one.coupling, keep)), 0, Silent())
    taken = {index: sum(count for layer, count in rows if layer == index) for index, _ in rows}
    assert taken and all(wanted <= count <= max(2 * wanted, 2 * sampled.HOLD_EVERY) for count in taken.values())


@pytest.mark.parametrize("limit", [None, 1, 3, 16])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_hold_every_batch_once_and_no_more_samples_than_asked(limit: int | None, size: int) -> None:
    spec = InputSpec("x", np.dtype(np.float32), (limit, 2))
    dataset = open_dataset(np.zeros((SAMPLES, 2), np.float32), (spec,), None, None, 0)
    found, rows = blocks(dataset, size), list(dataset.rows(size))
    assert [batch for block in found for batch in block] == list(range(len(rows)))
    assert max(sum(len(rows[batch]) for batch in block) for block in found) <= max(size, limit or 1)


@pytest.mark.parametrize("shape", [(1, 3), (63, 2, 5), (64, 4), (1000, 2, 3), (70_000, 2)])
def test_float32_sums_are_those_of_float64(shape: tuple[int, ...]) -> None:
    rows = (np.random.default_rng(0).standard_normal(shape) + 100).astype(np.float32)
    np.testing.assert_allclose(column_sums(rows), rows.sum(axis=0, dtype=np.float64), rtol=4e-6)


def test_float32_products_are_those_of_float64() -> None:
    """With a mean of ten deviations: what is left of the moments once it is taken off must still be right."""
    x = (np.random.default_rng(0).standard_normal((30_000, 1, 12, 1)) + 10).astype(np.float32)
    gram = Gram.empty(1, 12, 0)
    gram.update(x, None)
    full, wide = gram.of(0), x[:, 0, :, 0].astype(np.float64)
    centred = full[:-1, :-1] - np.outer(full[-1, :-1], full[-1, :-1]) / full[-1, -1]
    true = (wide - wide.mean(axis=0)).T @ (wide - wide.mean(axis=0))
    np.testing.assert_allclose(centred, true, atol=2e-3 * true.diagonal().mean())


# -- pictures ----------------------------------------------------------------------------------------------------


def test_a_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        Image.new("RGB", (20, 20), (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
    opened = counting(monkeypatch, images.Image, "open")
    dataset = open_dataset(tmp_path, (InputSpec("x", np.dtype(np.float32), (None, 3, 16, 16)),), None, None, 0)
    first = [feeds["x"] for feeds in dataset.batches(2)]
    again = [feeds["x"] for feeds in dataset.take(range(5)).batches(2)]
    assert len(opened) == 5
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pictures_beyond_the_limit_are_decoded_again() -> None:
    decoded: list[int] = []

    def decode(row: int) -> np.ndarray:
        decoded.append(row)
        return np.full((2, 2), row, np.uint8)

    found = kept(decode, most=9)
    for _ in range(2):
        assert [int(found(row)[0, 0]) for row in range(4)] == [0, 1, 2, 3]
    assert decoded == [0, 1, 2, 3, 2, 3]


# -- allocation --------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Counted:
    """A cost that counts the widths it is asked for."""

    cost: Cost
    asked: list[int] = field(default_factory=list)

    def __call__(self, kept: Array) -> float:
        return self.cost(kept)

    def many(self, kept: Array) -> Array:
        self.asked.append(len(kept))
        return self.cost.many(kept)

    def linked(self) -> csr_array:
        return self.cost.linked()


def in_a_row(count: int) -> tuple[Counted, list[Curve]]:
    """Layers one behind the other, each between two of ``count`` groups."""
    pairs = [(g, k) for g in range(count - 1) for k in (g, g + 1)]
    slope = csr_array((np.ones(len(pairs)), (np.arange(len(pairs)), [k for _, k in pairs])), (len(pairs), count))
    lengths = Lengths(np.zeros(len(pairs)), slope, np.arange(len(pairs)), (count - 1, 2))
    draw = np.random.default_rng(0)
    falls = np.linspace(1, 0, 9)
    curves = [Curve(falls ** draw.uniform(0.5, 4) * draw.uniform(0.1, 1), np.arange(1, 9)) for _ in range(count)]
    return Counted(Cost(np.ones(count - 1), lengths, tuple(range(count - 1)))), curves


def test_an_allocation_prices_twice_as_many_steps_for_twice_the_groups() -> None:
    asked = []
    for count in (40, 80):
        cost, curves = in_a_row(count)
        allocate(cost, curves, 0.5 * cost(np.full(count, 8.0)))
        asked.append(sum(cost.asked))
    assert asked[1] <= 2.3 * asked[0]


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_steps_that_share_no_term_are_not_priced_again_and_nothing_changes(share: float) -> None:
    """The same widths as when every group counts as linked with every other."""
    cost, curves = in_a_row(12)
    near = allocate(cost, curves, share * cost(np.full(12, 8.0)))

    class Dense(Counted):
        def linked(self) -> csr_array:
            return csr_array(np.ones((12, 12)))

    np.testing.assert_array_equal(near, allocate(Dense(cost.cost), curves, share * cost(np.full(12, 8.0))))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 40, 1000])
def test_an_allocation_prices_each_narrower_width_once(count: int) -> None:
    widths = 4 * np.arange(1, count + 1)
    for now in widths[:: max(1, count // 7)]:
        found = _narrower(widths, float(now))
        below = widths[widths < now]
        assert len(np.unique(found)) == len(found) <= 32
        assert set(found) <= set(below)
        # Near ones and the narrowest are always among them.
        assert set(below[-4:-1]) | set(below[:1]) <= set(found)


# -- refinement ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "samples"), [(1, (4, 4)), (200, (8, 4)), (100_000, (28, 4))])
def test_a_refinement_uses_as_many_samples_as_its_rows_ask_for(on: Bench, rows: int, samples: tuple[int, int]) -> None:
    """64 rows per sample, batches of 4."""
    keep = on.narrowed(0.6)
    given = replace(on.calibrated, rows=RowRule(0, rows, 0, 1e15))
    found: list[tuple[int, int]] = []

    def noted(self: sampled.Sampler, *arguments: object) -> object:
        sides = usual(self, *arguments)  # type: ignore[arg-type]
        found.append(tuple(sum(len(maps.x) for maps in side) for side in sides))  # type: ignore[arg-type]
        return sides

    usual = sampled.Sampler.maps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled.Sampler, "maps", noted)
        refit(given, keep, view(cut(on.coupling, keep)), 1, Silent())
    assert found
    assert set(found) == {samples}
