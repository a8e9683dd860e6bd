"""Selection: pivoted QR of the moments is pivoted QR of the contributions themselves, joint over all readers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import scipy.linalg
from graphs import Sketch
from workbench import Bench, bench, correlated

from onnxprune.calibration.moments import layer_geometry
from onnxprune.coupling.groups import Group
from onnxprune.effort import EFFORTS
from onnxprune.engine.loadable import with_outputs
from onnxprune.engine.session import open_session, run
from onnxprune.linear.form import Layer, sample_rows, to_normal
from onnxprune.linear.gram import Gram
from onnxprune.options import AUTO
from onnxprune.options import SELECTORS as NAMES
from onnxprune.selection.base import Evidence, Reading, channel_gram, covariance, evidence, readers_of
from onnxprune.selection.qr import pivoted_cholesky
from onnxprune.selection.table import SELECTORS
from onnxprune.surgery.cut import constant_of


def stream() -> onnx.ModelProto:
    """A residual stream that four layers read: 3x3, strided 1x1, depthwise and grouped behind it, a classifier."""
    sketch = Sketch(seed=4)
    stem = sketch.op("Relu", sketch.conv(sketch.input("x", ["n", 4, 8, 8]), 4, 12, 3, name="stem"))
    inner = sketch.op("Relu", sketch.conv(stem, 12, 10, 3, name="inner"))
    total = sketch.op("Relu", sketch.op("Add", sketch.conv(inner, 10, 12, name="branch"), stem))
    attrs = {"strides": [2, 2]}
    side = sketch.op("Conv", total, sketch.weight(6, 12, 1, 1), name="side", attrs=attrs)
    deep = sketch.conv(total, 12, 12, 3, group=12, name="depthwise")
    mixed = sketch.conv(sketch.op("Relu", deep), 12, 8, name="mixed")
    both = [sketch.op("Flatten", sketch.op("GlobalAveragePool", v)) for v in (side, mixed, total)]
    y = sketch.op("MatMul", sketch.op("Concat", *both, attrs={"axis": 1}), sketch.weight(26, 5), name="head")
    sketch.output(y, ["n", 5])
    return sketch.model()


def flat() -> onnx.ModelProto:
    """Channels that a Flatten spreads over many inputs of a Gemm."""
    sketch = Sketch(seed=2)
    hidden = sketch.op("Relu", sketch.conv(sketch.input("x", ["n", 4, 4, 4]), 4, 9, 3, name="stem"))
    y = sketch.op("Gemm", sketch.op("Flatten", hidden), sketch.weight(6, 144), sketch.weight(6), name="head",
                  attrs={"transB": 1})  # fmt: skip
    sketch.output(y, ["n", 6])
    return sketch.model()


MODELS = {"stream": (stream, (40, 4, 8, 8)), "flat": (flat, (200, 4, 4, 4))}


@pytest.fixture(scope="module", params=MODELS)
def on(request: pytest.FixtureRequest) -> Bench:
    make, shape = MODELS[request.param]
    return bench(make(), correlated(shape, rank=3, seed=1))


def contributions(on: Bench, group: Group, layer: Layer) -> np.ndarray:
    """Z (rows · outputs, units) of one reader: what each unit adds to its output, centred, in its energy's unit."""
    work, coupling = on.work, on.coupling
    columns: list[np.ndarray] = []
    session = open_session(with_outputs(coupling.graph.model, [layer.data]), work.engine)
    weight = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
    for feeds in work.fit.batches(16):
        (x,) = run(session, feeds)
        space = coupling.facts.shapes[layer.output][2:]
        geo = layer_geometry(coupling, layer, x.shape[2:], space)
        picks = np.arange(len(x) if geo is None else geo.positions)
        rows = sample_rows(layer, x, geo, picks, layer.groups()).astype(np.float64)
        columns.append(np.einsum("rgit,goit->rgoi", rows, weight))
    z = np.concatenate(columns)
    z -= z.mean(axis=0)
    z = z.reshape(-1, z.shape[-1])
    z /= np.linalg.norm(z.sum(axis=1))
    units = coupling.units[layer.index, layer.weight_slot][layer.reading_axis] - int(group.units[0])
    owned = np.zeros((len(z), len(group)))
    for channel, unit in enumerate(units):
        if 0 <= unit < len(group):
            owned[:, unit] += z[:, channel]
    return owned


def stacked(on: Bench, group: Group) -> np.ndarray:
    return np.concatenate([contributions(on, group, layer) for layer in readers_of(on.coupling, group, on.work.layers)])


def found(on: Bench, group: Group) -> Evidence:
    return evidence(on.coupling, group, on.work.layers, on.grams)


READERS = {
    "stream": {
        "stem": {"inner", "side", "mixed", "head"},
        "inner": {"branch"},
        "side": {"head"},
        "mixed": {"head"},
    },
    "flat": {"stem": {"head"}},
}


@pytest.mark.parametrize("name", MODELS)
def test_readers_are_all_layers_that_sum_over_the_group(name: str) -> None:
    make, shape = MODELS[name]
    on = bench(make(), correlated(shape, rank=3))
    found = {g.name: {r.node.label for r in readers_of(on.coupling, g, on.work.layers)} for g in on.coupling.groups}
    assert found == READERS[name]


def test_evidence_is_the_gram_matrix_of_the_contributions(on: Bench) -> None:
    for group in on.coupling.groups:
        z = stacked(on, group)
        exact = z.T @ z
        np.testing.assert_allclose(found(on, group).contributions, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("many", (1, 1000))
def test_qr_pivots_and_errors_are_those_of_the_contributions(
    on: Bench, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.selection.qr.MANY", many)
    for group in on.coupling.groups:
        ranking = SELECTORS["qr"](found(on, group), 0)
        triangle, pivots = scipy.linalg.qr(stacked(on, group), mode="r", pivoting=True)
        rows = np.square(triangle[: len(group)]).sum(axis=1)
        error = np.append(np.cumsum(rows[::-1])[::-1], 0.0) / rows.sum()
        np.testing.assert_allclose(ranking.error, error, atol=1e-4)
        # Below the moments' own rounding the order is anyone's.
        told = int((error > 1e-5).sum())
        np.testing.assert_array_equal(ranking.order[:told], pivots[:told])


def test_where_nothing_is_known_of_what_units_share_the_largest_stay() -> None:
    energies = np.asarray([1.0, 4.0, 0.0, 5.0])
    ranking = SELECTORS["qr"](Evidence(lambda: energies, np.sqrt(energies)), 0)
    assert ranking.order.tolist() == [3, 1, 0, 2]
    np.testing.assert_allclose(ranking.error, [1.0, 0.5, 0.1, 0.0, 0.0])


def lost(on: Bench, group: Group, kept: np.ndarray) -> float:
    """Σ over readers of the damped squared error of the best fit on ``kept`` units, as shares of the outputs' energies."""
    total = 0.0
    for reading in found(on, group).readings:
        alive = np.setdiff1d(np.arange(reading.weight.shape[2]), np.delete(reading.features, kept, axis=0).ravel())
        errors, energy = 0.0, 0.0
        for g, weight in enumerate(reading.weight.astype(np.float64)):
            moments = covariance(reading.gram, g) / reading.gram.rows
            variances = np.diagonal(moments)
            weight[:, variances <= 1e-10 * variances.max()] = 0
            energy += float(np.sum(weight @ moments * weight))
            damped = moments + np.trace(moments) / len(moments) * np.eye(len(moments))
            errors += float(np.sum(weight @ damped * weight))
            cross = damped[alive] @ weight.T
            errors -= float(np.sum(cross * np.linalg.solve(damped[np.ix_(alive, alive)], cross)))
        total += errors / energy
    return total


@pytest.mark.parametrize("batch", [4, 16])
def test_elimination_takes_the_unit_whose_loss_adds_least(
    on: Bench, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.selection.elimination.BATCH", batch)
    for group in on.coupling.groups:
        ranking = SELECTORS["obs"](found(on, group), 0)
        size = len(group)
        errors = np.asarray([lost(on, group, ranking.order[:k]) for k in range(size + 1)])
        np.testing.assert_allclose(ranking.error, errors / errors[0], atol=1e-6)
        for k in range(1, size):
            kept = ranking.order[: k + 1]
            least = min(lost(on, group, np.delete(kept, u)) for u in range(len(kept)))
            # Of a batch the first are the cheapest of all, later ones of the candidates.
            assert errors[k] <= least * (1 + (1e-6 if batch > size else 0.2))


def test_rows_of_r_behind_the_rank_are_zero() -> None:
    z = np.random.default_rng(0).standard_normal((3, 6))
    rows, pivots = pivoted_cholesky(z.T @ z)
    triangle, expected = scipy.linalg.qr(z, mode="r", pivoting=True)
    np.testing.assert_allclose(rows[:3], np.square(triangle).sum(axis=1))
    assert pivots[:3].tolist() == expected[:3].tolist() and sorted(pivots) == list(range(6))
    assert not rows[3:].any()


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_ranks_all_units_and_falls_from_one_to_zero(on: Bench, name: str) -> None:
    for group in on.coupling.groups:
        ranking = SELECTORS[name](found(on, group), 3)
        again = SELECTORS[name](found(on, group), 3)
        np.testing.assert_array_equal(ranking.order, again.order)
        np.testing.assert_array_equal(ranking.error, again.error)
        assert sorted(ranking.order) == list(range(len(group)))
        assert len(ranking.error) == len(group) + 1
        assert ranking.error[0] == pytest.approx(1.0)
        assert ranking.error[-1] == 0.0
        assert (np.diff(ranking.error) <= 1e-12).all()


def test_the_table_holds_what_the_options_offer() -> None:
    assert {*SELECTORS, AUTO} == set(NAMES)
    assert {name for effort in EFFORTS.values() for name in effort.orders} <= set(SELECTORS)


def test_random_depends_on_its_seed_and_nothing_else(on: Bench) -> None:
    group = max(on.coupling.groups, key=len)
    orders = {tuple(SELECTORS["random"](found(on, group), seed).order) for seed in range(8)}
    assert len(orders) == 8
    blank = Evidence(lambda: np.eye(len(group)), np.zeros(len(group)))
    assert tuple(SELECTORS["random"](blank, 5).order) in orders


def test_magnitude_orders_by_all_weights_that_a_unit_owns(on: Bench) -> None:
    for group in on.coupling.groups:
        norms = np.zeros(len(group))
        for (index, slot), lines in ((k, v) for k, v in on.coupling.units.items() if isinstance(k, tuple)):
            array = constant_of(on.coupling, (index, slot)).astype(np.float64)
            if array.ndim < 2:
                continue
            for axis, line in enumerate(lines):
                for position, unit in enumerate(line - int(group.units[0])):
                    if 0 <= unit < len(group):
                        norms[unit] += np.square(np.take(array, position, axis=axis)).sum()
        np.testing.assert_array_equal(SELECTORS["magnitude"](found(on, group), 0).order, np.argsort(-norms))


def test_a_group_that_no_layer_reads_is_ranked_by_magnitude() -> None:
    sketch = Sketch()
    x = sketch.input("x", ["n", 6, 5])
    query, key = (sketch.op("MatMul", x, sketch.weight(5, 8)) for _ in range(2))
    turned = sketch.op("Transpose", key, attrs={"perm": [0, 2, 1]})
    sketch.output(sketch.op("MatMul", query, turned), ["n", 6, 6])
    on = bench(sketch.model(), correlated((24, 6, 5), rank=2))
    (group,) = on.coupling.groups
    assert len(group) == 8
    assert not readers_of(on.coupling, group, on.work.layers)
    weights = np.concatenate([constant_of(on.coupling, (node, 1)) for node in (0, 1)])
    np.testing.assert_array_equal(on.rankings[0].order, np.argsort(-np.linalg.norm(weights, axis=0)))


@pytest.mark.parametrize("name", ["qr", "obs"])
def test_units_that_never_vary_leave_first_and_for_nothing(name: str) -> None:
    generator = np.random.default_rng(3)
    rows = np.maximum(generator.standard_normal((400, 12)), 0)
    dead = [2, 5, 11]
    rows[:, dead] = 0.7
    ones = np.concatenate([rows, np.ones((400, 1))], axis=1)
    gram = Gram((ones.T @ ones)[None], np.zeros((1, 13, 0)), 400)
    weight = generator.standard_normal((1, 6, 12)).astype(np.float32)
    weight[:, :, dead] *= 10
    reading = Reading(weight, gram, np.arange(12)[:, None])
    ranking = SELECTORS[name](Evidence(lambda: channel_gram(reading), np.ones(12), (reading,)), 0)
    assert sorted(ranking.order[9:].tolist()) == dead
    assert ranking.error[9] <= 1e-9 < ranking.error[8]
