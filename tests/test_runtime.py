"""Running piece by piece: the same values as one run, each node once, and memory that the limit bounds."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import Sketch, run
from hostile import plain
from random_graphs import random_model
from workbench import correlated

from onnxprune.calibration import moments
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.moments import batch_size, measure_moments
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.outputs import outputs_of
from onnxprune.calibration.row_rule import QUICK
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.engine import segment
from onnxprune.engine.probe import plausible_feeds
from onnxprune.engine.segment import Runner
from onnxprune.engine.session import Engine, open_session
from onnxprune.engine.session import run as run_session
from onnxprune.engine.store import Store
from onnxprune.errors import ModelError
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.latency import stopwatch as latency
from onnxprune.latency.stopwatch import notch
from onnxprune.linear.form import layers
from onnxprune.options import Options
from onnxprune.pipeline.holdout import divide, held_out
from onnxprune.pipeline.setup import MAP_BYTES, calibrated, refining_bytes, set_up, specs_of
from onnxprune.progress import Silent
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sequential import refit
from onnxprune.surgery.cut import cut

ENGINE = Engine(threads=1)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


# -- store ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1000, 10_000, 1 << 20])
def test_a_store_gives_back_what_it_was_given_within_its_limit(scratch: Path, limit: int) -> None:
    generator = np.random.default_rng(0)
    arrays = {(f"v{k % 5}", k // 5): generator.standard_normal(int(generator.integers(1, 400))) for k in range(40)}
    arrays["v0", 0] = np.asarray(3.5)
    with Store(limit) as store:
        for (value, batch), array in arrays.items():
            store.put(value, batch, array)
            in_memory = sum(a.nbytes for a in store._memory.values())
            assert in_memory <= limit
            assert store._used == in_memory
        assert store.values() == {f"v{k}" for k in range(5)}
        for (value, batch), array in arrays.items():
            found = store.get(value, batch)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        on_disk = list(scratch.rglob("*.npy"))
        assert bool(on_disk) == (limit < sum(a.nbytes for a in arrays.values()))
        for k in range(5):
            store.drop(f"v{k}")
            assert not store.has(f"v{k}")
        assert store._used == 0
        assert list(scratch.rglob("*.npy")) == []


def test_an_interrupted_store_leaves_nothing(scratch: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Store(0) as store:
        store.put("v", 0, np.ones(10))
        assert list(scratch.rglob("*.npy"))
        raise KeyboardInterrupt


# -- runner --------------------------------------------------------------------------------------------------------


def runner_of(coupling: Coupling, store: Store, batches: list[dict[str, np.ndarray]]) -> Runner:
    return Runner(coupling.graph, coupling.facts, store, "o:", batches, ENGINE)


@pytest.mark.parametrize("seed", range(12))
def test_pieces_compute_what_the_whole_computes(seed: int) -> None:
    model = random_model(seed)
    coupling = couple(model, {}, None)
    shapes = {name: coupling.facts.shapes[name] for name in coupling.graph.inputs}
    batches = [plausible_feeds(coupling.graph, shapes), {"image": np.ones(shapes["image"], np.float32)}]
    stops = np.random.default_rng(seed).permutation(len(coupling.graph.nodes))[:6]
    with Store(1 << 24) as store:
        runner = runner_of(coupling, store, batches)
        runner.held = set(coupling.graph.outputs)
        for stop in [*sorted(stops), len(coupling.graph.nodes)]:
            runner.advance(int(stop))
        for batch, feeds in enumerate(batches):
            for name, wanted in zip(coupling.graph.outputs, run(model, feeds), strict=True):
                np.testing.assert_allclose(runner.get(name, batch), wanted, rtol=1e-3, atol=1e-4)


def chain(length: int) -> onnx.ModelProto:
    sketch = Sketch()
    x = sketch.input("x", ["n", 8, 16, 16])
    for _ in range(length):
        x = sketch.op("Relu", sketch.conv(x, 8, 8))
    sketch.output(x, ["n", 8, 16, 16])
    return sketch.model()


def test_a_runner_forgets_what_nobody_will_read() -> None:
    """However deep the network, only the values at the cursor and those that are held are kept."""
    coupling = couple(chain(12), {}, None)
    batches = [{"x": np.ones((4, 8, 16, 16), np.float32)} for _ in range(3)]
    one = batches[0]["x"].nbytes * len(batches)
    with Store(1 << 30) as store:
        runner = runner_of(coupling, store, batches)
        runner.held = {coupling.graph.nodes[3].outputs[0] or ""}
        for node in coupling.graph.nodes:
            runner.advance(node.index + 1)
            assert store._used <= 2 * one
        assert runner.has(next(iter(runner.held)))
        assert not runner.has("x")


def test_weights_decided_on_the_way_are_used_and_nodes_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    coupling = couple(chain(2), {}, None)
    runs: list[str] = []

    def counting(model: onnx.ModelProto, engine: Engine) -> object:
        runs.extend(node.output[0] for node in model.graph.node)
        return open_session(model, engine)

    monkeypatch.setattr(segment, "open_session", counting)
    with Store(1 << 24) as store:
        runner = runner_of(coupling, store, [{"x": np.ones((1, 8, 16, 16), np.float32)}])
        last = coupling.graph.outputs[0]
        runner.held = {last}
        runner.advance(2)
        runner.replaced = {(2, 1): np.zeros((8, 8, 1, 1), np.float32), (2, 2): np.full(8, 3, np.float32)}
        runner.advance(4)
        np.testing.assert_array_equal(runner.get(last, 0), np.full((1, 8, 16, 16), 3, np.float32))
    assert sorted(runs) == sorted(set(runs)), "a node ran twice"


# -- datasets in batches -------------------------------------------------------------------------------------------


def counted(dataset: Dataset, seen: list[int]) -> Dataset:

    def fetch(rows: object) -> dict[str, np.ndarray]:
        seen.append(len(rows))  # type: ignore[arg-type]
        return dataset.fetch(rows)  # type: ignore[arg-type]

    return replace(dataset, fetch=fetch)


def data_for(model: onnx.ModelProto, array: np.ndarray) -> Dataset:
    return open_dataset(array, specs_of(load(model)), None, None, 0)


def test_calibration_streams_and_its_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(3)
    coupling = couple(model, {}, {"x": (1, 8, 16, 16)})
    found, seen = [], []
    for taps in (1 << 28, 5 * 8 * 16 * 16 * 4 * 2):
        monkeypatch.setattr(moments, "batch_size", partial(batch_size, budget=taps))
        fetched: list[int] = []
        data = counted(data_for(model, correlated((30, 8, 16, 16), rank=3)), fetched)
        found.append(measure_moments(coupling, list(layers(coupling)), data, ENGINE, 0, Silent()))
        assert sum(fetched) == 30, "one pass"
        seen.append(max(fetched))
    assert seen == [30, 5]
    for index, gram in found[0].items():
        # Positions are drawn per batch; what they measure is the same.
        one, other = gram.of(0), found[1][index].of(0)
        assert one[-1, -1] == other[-1, -1]
        scale = np.abs(one).max()
        np.testing.assert_allclose(one / scale, other / scale, atol=0.05)


def test_a_batch_is_as_large_as_memory_allows() -> None:
    coupling = couple(chain(2), {}, {"x": (1, 8, 16, 16)})
    values = ["x", coupling.graph.outputs[0]]
    one = 2 * 4 * 8 * 16 * 16
    for samples in (1, 3, 20):
        assert batch_size(coupling, values, samples * one) == samples
    assert batch_size(coupling, values, 0) == 1
    assert batch_size(coupling, values, 1 << 40) <= 64


@pytest.mark.parametrize("sharing", [False, True])
def test_a_refit_streams_its_samples(scratch: Path, sharing: bool) -> None:
    """Beyond the store's limit, samples wait on disk.  A list of all batches once stood beside it."""
    context = set_up(load(plain()), None, Options(threads=1, samples=8))
    given = calibrated(context, {}, context.fit, Options(threads=1), QUICK)
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def fetch(rows: Sequence[int]) -> dict[str, np.ndarray]:
        nonlocal most
        batch = np.random.default_rng(list(rows)).standard_normal((len(rows), 3, 8, 8)).astype(np.float32)
        made.append(weakref.ref(batch))
        most = max(most, sum(one() is not None for one in made))
        return {"input": batch}

    given = replace(given, dataset=replace(given.dataset, count=40, fetch=fetch), memory=0)
    keep = np.ones(context.coupling.unit_count, np.bool_)
    keep[context.coupling.groups[0].units[:4]] = False
    with KeptTargets() as kept:
        for _ in range(2):
            pruned = view(cut(context.coupling, keep))
            assert refit(given, keep, pruned, 1, Silent(), kept if sharing else None).weights
    assert 0 < most <= 3


def test_memory_bounds_what_a_refinement_holds() -> None:
    assert refining_bytes(Options()) == MAP_BYTES
    assert refining_bytes(Options(memory=320 << 20)) == 10 << 20
    assert refining_bytes(Options(memory=1 << 40)) == MAP_BYTES


def test_outputs_are_those_of_single_samples_whatever_the_batch() -> None:
    model = chain(1)
    data = data_for(model, correlated((11, 8, 16, 16), rank=3))
    session = open_session(model, ENGINE)
    names = [o.name for o in model.graph.output]
    one, four, all_ = (outputs_of(session, data, names, size)[0] for size in (1, 4, 64))
    assert len(one) == 11
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one, all_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 40, 1000])
def test_fit_and_holdout_share_nothing(count: int, told: bool) -> None:
    values = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 8, 2, 2), np.float32)
    data = data_for(chain(1), np.zeros((1, 8, 16, 16), np.float32))

    data = replace(data, count=count, fetch=lambda rows: {"x": values[list(rows)]})
    fit, holdout = divide(data, held_out(count, 3, information=np.sin(np.arange(count)) if told else None))
    parts = [{int(v) for feeds in part.batches(7) for v in feeds["x"][:, 0, 0, 0]} for part in (fit, holdout)]
    if count == 1:
        assert parts == [{0}, {0}]
        return
    assert parts[0] | parts[1] == set(range(count))
    assert not parts[0] & parts[1]
    assert 1 <= len(parts[1]) <= count // 2


@pytest.mark.parametrize("loud", [2, 7, 20])
def test_half_of_the_samples_that_say_something_are_held_out(loud: int) -> None:
    count = 100
    speaks = np.random.default_rng(loud).permutation(count)[:loud]
    said = np.zeros(count)
    said[speaks] = np.arange(1, loud + 1)
    held = held_out(count, 0, information=said)
    both = set(held) & set(speaks.tolist())
    assert len(held) == count // 5
    assert len(both) == -(-loud // 2)
    assert [said[position] for position in held[: len(both)]] == sorted(said[list(both)], reverse=True)
    # Those that say nothing are held out by chance, not in their order.
    assert set(held) != set(held_out(count, 1, information=said)) or loud >= 2 * len(held)


# -- latency -------------------------------------------------------------------------------------------------------


def test_the_notch_covers_the_median_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.4, (2000, 30))
    inside = [abs(np.median(row) - 1) <= notch(row) for row in samples]
    assert 0.85 <= np.mean(inside) <= 0.95
    assert notch(np.full(7, 3.0)) == 0.0


def test_latency_is_told_in_milliseconds_by_the_paired_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down while it measures changes every run, and no ratio."""
    clock = {"runs": 0}

    def fastest(session: object, feeds: object, runs: int, clock_: object) -> float:
        clock["runs"] += 1
        return (0.010 if session == "a" else 0.008) * (1 + (clock["runs"] - 1) // 2 / 10)

    monkeypatch.setattr(latency, "_fastest", fastest)
    monkeypatch.setattr(latency, "open_timing_session", lambda model, engine: model)
    monkeypatch.setattr(latency, "run", lambda session, feeds: [])
    change, (alone, paired) = latency.compare_latency("a", "b", {}, ENGINE)  # type: ignore[arg-type]
    assert change.ratio == pytest.approx(0.8)
    assert change.before > 10
    assert alone > 1
    assert paired == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("tapped", [True, False])
def test_hidden_values_that_a_fusion_loses_are_computed_without_it(
    tapped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that onnxruntime itself refuses stays refused."""
    s = Sketch()
    hidden = s.op("Relu", s.input("x", ["n", 4]))
    s.output(s.op("Neg", hidden), ["n", 4])
    real, levels = ort.InferenceSession, []

    def strict(source: object, options: ort.SessionOptions, **rest: object) -> ort.InferenceSession:
        levels.append(options.graph_optimization_level)
        if options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL:
            raise RuntimeError(f"Failed to find node output {hidden}")
        return real(source, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", strict)
    if not tapped:
        with pytest.raises(ModelError, match="Failed to find node output"):
            open_session(s.model(), Engine(threads=1))
        assert len(levels) == 1
        return
    session = open_session(s.model(), Engine(threads=1), [hidden])
    [found] = run_session(session, {"x": np.array([[-1, 0, 2, 3]], np.float32)}, [hidden])
    assert found.tolist() == [[0, 0, 2, 3]] and len(levels) == 2
    assert capsys.readouterr().out == ""


def test_a_model_that_cannot_be_loaded_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    s = Sketch()
    s.output(s.op("Relu", s.op("MatMul", s.input("x", ["n", 4]), s.weight(5, 4))), ["n", 4])
    with pytest.raises(ModelError):
        open_session(s.model(), Engine(threads=1))
    assert capsys.readouterr().out == ""
