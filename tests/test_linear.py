"""Linear layers in normal form: rows times weights is what the operator computes, and moments are those of the rows."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import onnx
import pytest
import scipy.linalg
from graphs import Attribute, Sketch, run
from threadpoolctl import threadpool_info, threadpool_limits

from onnxprune.calibration.moments import layer_geometry, row_picks
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.linear.form import Layer, from_normal, layers, sample_outputs, sample_rows, to_normal
from onnxprune.linear.gram import CHUNK, FewRows, Gram, InputMoments, cross, with_constant
from onnxprune.linear.solve import LIGHT, Ridge, Ridges, fold, ridge
from onnxprune.linear.system import FewEquations, fold_onto, system_of
from onnxprune.linear.threads import LARGE, blas_threads
from onnxprune.surgery.cut import constant_of

SPACE = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}

Built = tuple[onnx.ModelProto, Coupling, Layer]


def one_layer(op: str, shape: tuple[int, ...], weight: tuple[int, ...], attrs: dict[str, Attribute]) -> Built:
    sketch = Sketch(seed=sum(shape))
    y = sketch.op(op, sketch.input("x", list(shape)), sketch.weight(*weight), attrs=attrs)
    sketch.output(y, [None] * len(shape))
    model = sketch.model()
    coupling = couple(model, {}, None)
    (layer,) = layers(coupling)
    return model, coupling, layer


def convolution(op: str, rank: int, group: int, stride: int, dilation: int, padding: str) -> Built:
    attrs: dict[str, Attribute] = {"group": group, "strides": [stride] * rank, "dilations": [dilation] * rank}
    if padding == "uneven":
        attrs["pads"] = [*range(rank), *[1] * rank]
    elif padding != "none":
        attrs["auto_pad"] = padding
    into, out = (6, 4) if group == 1 else (6, 2 * group)
    weight = (out, into // group) if op == "Conv" else (into, out // group)
    return one_layer(op, (2, into, *SPACE[rank]), (*weight, *KERNEL[rank]), attrs)


def explicit(built: Built, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows (r, g, i, t), weights (g, o, i, t), what the operator computes (r, g·o)), at every output position."""
    model, coupling, layer = built
    x = np.random.default_rng(seed).standard_normal(coupling.facts.shapes[layer.data]).astype(np.float32)
    (y,) = run(model, {"x": x})
    groups = layer.groups()
    if layer.kind == "matmul":
        geo, picks = None, np.arange(math.prod(x.shape[:-1]))
    else:
        geo = layer_geometry(coupling, layer, x.shape[2:], y.shape[2:])
        picks = np.arange(geo.positions)
    weight = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), groups)
    return sample_rows(layer, x, geo, picks, groups), weight, sample_outputs(layer, y, geo, picks)


def check(built: Built) -> None:
    rows, weight, wanted = explicit(built)
    made = np.einsum("rgit,goit->rgo", rows, weight).reshape(len(rows), -1)
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)
    _, coupling, layer = built
    stored = constant_of(coupling, (layer.index, layer.weight_slot))
    np.testing.assert_array_equal(from_normal(layer, weight, stored), stored)


PRODUCT = list(itertools.product((1, 2, 3), (1, 2, 6), (1, 2), (1, 2)))


@pytest.mark.parametrize("padding", ["none", "uneven", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_convolution_is_rows_times_weights(padding: str) -> None:
    for rank, group, stride, dilation in PRODUCT:
        if padding.startswith("SAME") and dilation > 1:
            continue  # onnxruntime refuses it
        check(convolution("Conv", rank, group, stride, dilation, padding))


@pytest.mark.parametrize("padding", ["none", "uneven", "SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolution_is_rows_times_weights(padding: str) -> None:
    for rank, group, stride, dilation in PRODUCT:
        if padding.startswith("SAME") and dilation > 1:
            continue  # as above
        check(convolution("ConvTranspose", rank, group, stride, dilation, padding))


@pytest.mark.parametrize(
    ("op", "shape", "weight", "attrs"),
    [
        ("Gemm", (5, 7), (7, 4), {}),
        ("Gemm", (5, 7), (4, 7), {"transB": 1}),
        ("MatMul", (5, 7), (7, 4), {}),
        ("MatMul", (2, 5, 7), (7, 4), {}),
        ("MatMul", (2, 3, 5, 7), (7, 4), {}),
    ],
)
def test_matrix_product_is_rows_times_weights(
    op: str, shape: tuple[int, ...], weight: tuple[int, ...], attrs: dict[str, Attribute]
) -> None:
    check(one_layer(op, shape, weight, attrs))


def test_sampled_rows_are_rows_of_the_whole() -> None:
    for built in (convolution("Conv", 2, 2, 2, 1, "uneven"), one_layer("MatMul", (3, 900, 7), (7, 4), {})):
        model, coupling, layer = built
        shape = coupling.facts.shapes[layer.data]
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        (y,) = run(model, {"x": x})
        picks, geo = row_picks(coupling, layer, x, y.shape, 16_384, 4000, seed=3)
        again, _ = row_picks(coupling, layer, x, y.shape, 16_384, 4000, seed=3)
        np.testing.assert_array_equal(picks, again)
        assert len(np.unique(picks)) == len(picks) < (900 * 3 if geo is None else geo.positions)
        rows = sample_rows(layer, x, geo, picks, layer.groups())
        weight = to_normal(layer, constant_of(coupling, (layer.index, layer.weight_slot)), layer.groups())
        made = np.einsum("rgit,goit->rgo", rows, weight).reshape(len(rows), -1)
        np.testing.assert_allclose(made, sample_outputs(layer, y, geo, picks), rtol=1e-4, atol=1e-5)


# -- moments -------------------------------------------------------------------------------------------------------


def explicit_moments(x: np.ndarray) -> np.ndarray:
    """(rows, g, i, t) -> (g, n+1, n+1), the constant last, in float64."""
    flat = x.reshape(*x.shape[:2], -1).astype(np.float64)
    wide = np.concatenate([flat, np.ones((*x.shape[:2], 1))], axis=2)
    return np.einsum("rga,rgb->gab", wide, wide)


@pytest.mark.parametrize(("groups", "features", "taps", "outs"), [(1, 5, 1, 3), (2, 4, 9, 2), (3, 1, 4, 1)])
@pytest.mark.parametrize("rows", [7, CHUNK + 13])
def test_moments_are_those_of_all_rows(groups: int, features: int, taps: int, outs: int, rows: int) -> None:
    generator = np.random.default_rng(rows)
    x = (generator.standard_normal((rows, groups, features, taps)) + 1).astype(np.float32)
    y = generator.standard_normal((rows, groups * outs)).astype(np.float32)
    whole = Gram.empty(groups, features * taps, outs)
    whole.update(x, y)
    exact = explicit_moments(x)
    np.testing.assert_allclose(whole.xx, exact, rtol=1e-4, atol=1e-4 * rows)
    wide = np.concatenate([x.reshape(rows, groups, -1), np.ones((rows, groups, 1), np.float32)], axis=2)
    targets = y.reshape(rows, groups, outs).astype(np.float64)
    np.testing.assert_allclose(whole.xy, np.einsum("rga,rgo->gao", wide, targets), atol=1e-4 * rows)
    assert whole.rows == rows
    # Streamed in parts, and merged from shards: the same moments.
    parts = [Gram.empty(groups, features * taps, outs) for _ in range(2)]
    for number, (a, b) in enumerate(itertools.pairwise((0, rows // 3, rows // 2, rows))):
        parts[number % 2].update(x[a:b], y[a:b])
    merged = parts[0].merge(parts[1])
    for name in ("xx", "xy", "rows"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-4, atol=1e-4 * rows)


@pytest.mark.parametrize("batches", [(), (3,), (3, 4), (3, 4, 5), (8, 1, 9)])
def test_moments_of_a_wide_input_are_its_rows_until_these_take_more(batches: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(batches))
    groups, channels, taps = 2, 8, 2
    parts = [rng.standard_normal((rows, groups, channels, taps)).astype(np.float32) for rows in batches]
    collected = InputMoments(groups, channels * taps)
    for part in parts:
        collected.update(part)
    found, rows = collected.moments(), sum(batches)
    assert found.rows == rows
    assert isinstance(found, FewRows) == (rows <= channels * taps / 2)
    whole = np.concatenate([np.zeros((0, groups, channels, taps)), *parts]).reshape(rows, groups, channels * taps)
    for g in range(groups):
        x = np.append(whole[:, g], np.ones((rows, 1)), axis=1)
        np.testing.assert_allclose(found.of(g), x.T @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batches", [(30,), (300, 41), (700,)])
def test_moments_of_one_group_are_symmetric_and_the_same_in_float32(batches: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(batches))
    collected, rows = InputMoments(1, 270), []
    for count in batches:
        rows.append((rng.standard_normal((count, 1, 270, 1)) + 0.5).astype(np.float32))
        collected.update(rows[-1])
    found = collected.moments()
    x = np.append(np.concatenate(rows).reshape(-1, 270), np.ones((sum(batches), 1)), axis=1).astype(np.float64)
    size = float(np.diagonal(x.T @ x).max())
    assert (found.light(0).dtype, found.of(0).dtype) == (np.float32, np.float64)
    for one in (found.light(0), found.of(0)):
        np.testing.assert_array_equal(one, one.T)
        np.testing.assert_allclose(one, x.T @ x, atol=1e-5 * size)
    # More may be added to what was asked before.
    whole = InputMoments(1, 270)
    whole.absorb(found)
    whole.absorb(found)
    np.testing.assert_allclose(whole.moments().of(0), 2 * (x.T @ x), atol=2e-5 * size)


@pytest.mark.parametrize(("groups", "features", "outs"), [(1, 7, 3), (1, 7, 1), (5, 9, 1), (5, 9, 2)])
def test_products_of_rows_with_outputs(groups: int, features: int, outs: int) -> None:
    rng = np.random.default_rng(groups)
    x = rng.standard_normal((400, groups, features)).astype(np.float32)
    y = rng.standard_normal((400, groups * outs)).astype(np.float32)
    wanted = np.einsum("rgn,rgo->gno", x.astype(np.float64), y.reshape(400, groups, outs))
    np.testing.assert_allclose(cross(x, y), wanted, atol=1e-4)


def test_another_value_of_the_constant_feature() -> None:
    x = np.random.default_rng(0).standard_normal((50, 4)) + 3
    for value in (0.0, 0.5, 1.0):
        (wanted,), (one,) = (
            np.einsum("rga,rgb->gab", wide, wide)
            for wide in (np.append(x, np.full((50, 1), c), axis=1)[:, None] for c in (value, 1.0))
        )
        np.testing.assert_allclose(with_constant(one, value), wanted)


# -- solving -------------------------------------------------------------------------------------------------------


def problem(rows: int, features: int, outs: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X with a constant column, Y, prior weights), float64, features on different scales and with a mean."""
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.uniform(-2, 2, features))
    x = (generator.standard_normal((rows, features)) + 0.5) * scale
    wide = np.append(x, np.ones((rows, 1)), axis=1)
    return wide, generator.standard_normal((rows, outs)), generator.standard_normal((features + 1, outs))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "features", "outs"), [(40, 5, 1), (60, 12, 7), (300, 30, 4)])
def test_ridge_is_least_squares_of_the_stacked_system(rows: int, features: int, outs: int, seed: int) -> None:
    x, y, prior = problem(rows, features, outs, seed)
    moments = x.T @ x
    for strength in (0.0, 1e-3, 1.0):
        pull = np.sqrt(strength * np.diagonal(moments))
        pull[-1] = 0.0  # the constant is free
        stacked = np.concatenate([x, np.diag(pull)])
        wanted, *_ = np.linalg.lstsq(stacked, np.concatenate([y, pull[:, None] * prior]), rcond=None)
        found = ridge(moments, x.T @ y, prior, strength)
        np.testing.assert_allclose(x @ found, x @ wanted, atol=1e-5)


def test_ridge_without_evidence_stays_at_the_prior() -> None:
    prior = np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(ridge(np.zeros((4, 4)), np.zeros((4, 2)), prior, 1e-2), prior, rtol=1e-6)


def test_dead_and_doubled_features_are_harmless() -> None:
    x, y, _ = problem(80, 6, 3, 5)
    doubled = np.concatenate([np.zeros((80, 2)), x[:, :1], x], axis=1)
    found = ridge(doubled.T @ doubled, doubled.T @ y, np.zeros((10, 3)), 0.0)
    wanted, *_ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(doubled @ found, x @ wanted, atol=1e-3)
    assert np.isfinite(Ridge(np.zeros((3, 3)), 1e-3).solve(np.ones((3, 1)), np.zeros((3, 1)))).all()


@pytest.mark.parametrize("seed", range(3))
def test_fold_is_least_squares_against_the_layers_own_output(seed: int) -> None:
    x, _, weights = problem(200, 10, 4, seed)
    # Columns that depend on each other, or there would be nothing to fold.
    x[:, 5:10] = x[:, :5] @ np.random.default_rng(seed).standard_normal((5, 5)) + 0.3 * x[:, 5:10]
    kept = np.array([0, 2, 3, 6, 9, 10])
    wanted, *_ = np.linalg.lstsq(x[:, kept], x @ weights, rcond=None)
    found = fold(x.T @ x, weights, kept, 0.0)
    np.testing.assert_allclose(x[:, kept] @ found, x[:, kept] @ wanted, atol=1e-4)
    sliced = np.linalg.norm(x[:, kept] @ weights[kept] - x @ weights)
    assert np.linalg.norm(x[:, kept] @ found - x @ weights) < sliced


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1.0])
def test_a_system_in_float32_has_nearly_the_solution_of_float64(strength: float, mean: float) -> None:
    """Features of rank 20, on scales from 1 to 50, with a mean of up to three deviations."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((900, 20)) @ generator.standard_normal((20, 600))
    x = (x / x.std() + 0.05 * generator.standard_normal((900, 600)) + mean) * np.geomspace(1, 50, 600)
    x = np.append(x, np.ones((900, 1)), axis=1)
    y, prior = x @ generator.standard_normal((601, 3)), np.zeros((601, 3))
    moments, right = x.T @ x, x.T @ y
    wanted = ridge(moments, right, prior, strength)
    found = ridge(moments.astype(np.float32), right, prior, strength)
    assert found.dtype == np.float64
    error, light = (float(np.square(x @ weights - y).sum()) for weights in (wanted, found))
    assert np.linalg.norm(x @ found - x @ wanted) < 1e-3 * np.linalg.norm(x @ wanted)
    assert light < 1.01 * error
    np.testing.assert_allclose(Ridges(moments[None], strength).solve(right[None], prior[None])[0], found if strength >= LIGHT else wanted)


def test_a_system_that_float32_cannot_factor_is_solved_in_float64() -> None:
    x, y, prior = problem(700, 600, 2, 0)
    x[:, 1:600] = x[:, :1] + 1e-4 * x[:, 1:600]
    light = (x.T @ x).astype(np.float32)
    system = light.copy()
    system[np.diag_indices(601)] += 1e-8 * np.diagonal(light)[:-1].mean()
    with pytest.raises(scipy.linalg.LinAlgError):
        scipy.linalg.cho_factor(system, lower=True)
    found = ridge(light, x.T @ y, prior, 0.0)
    assert np.isfinite(found).all()
    assert np.linalg.norm(x @ found - y) < np.linalg.norm(y)


def wide(rows: int, features: int, constant: float) -> tuple[np.ndarray, np.ndarray]:
    """((r, 1, n) float32 rows with a mean and a dead feature, (r, n+1) float64 with the constant)."""
    x = np.random.default_rng(rows).standard_normal((rows, 1, features)).astype(np.float32) * 0.1 + 0.5
    x[:, :, 1] = 0.0
    return x, np.append(x[:, 0].astype(np.float64), np.full((rows, 1), constant), axis=1)


@pytest.mark.parametrize("constant", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("rows", "more", "features"), [(1, 1, 40), (12, 6, 40), (20, 20, 40), (20, 40, 40), (40, 6, 40)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 10.0])
def test_few_rows_give_the_solution_of_their_moments(
    strength: float, rows: int, more: int, features: int, constant: float
) -> None:
    generator = np.random.default_rng(1)
    first, whole = wide(rows, features, constant)
    second, beside = wide(more, features, constant)
    prior = generator.standard_normal((1, features + 1, 3))
    system, other = system_of([first], constant), system_of([second], constant)
    assert isinstance(system, FewEquations) == (2 * rows <= features)
    for x, made in [(whole, system), (np.concatenate([whole, beside]), system.plus(other))]:
        y = x @ generator.standard_normal((features + 1, 3)) + generator.standard_normal((len(x), 3))
        np.testing.assert_allclose(made.moments()[0], x.T @ x, rtol=1e-5, atol=1e-6)
        found = made.ridges(strength).solve((x.T @ y)[None], prior)[0]
        wanted = Ridges((x.T @ x)[None], strength).solve((x.T @ y)[None], prior)[0]
        # The moments are float32 products.
        assert np.linalg.norm(x @ (found - wanted)) < (1e-6 if isinstance(made, FewEquations) else 1e-3) * np.linalg.norm(x @ wanted)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_folds_from_rows_are_those_from_moments(constant: float) -> None:
    x, whole = wide(12, 40, constant)
    weights = np.random.default_rng(2).standard_normal((41, 3))
    kept = np.array([0, 1, 2, 5, 9, 30, 40])
    wanted = fold(whole.T @ whole, weights, kept, 1e-3)
    found = fold_onto(FewRows(x), 0, constant, weights, kept, 1e-3)
    np.testing.assert_allclose(whole[:, kept] @ found, whole[:, kept] @ wanted, rtol=1e-4, atol=1e-4)
    none = fold_onto(FewRows(x[:0]), 0, constant, weights, kept, 1e-3)
    np.testing.assert_allclose(none, weights[kept], rtol=1e-5)


def test_dead_rows_of_a_wide_layer_leave_the_prior() -> None:
    rows, prior = np.zeros((4, 1, 30), np.float32), np.ones((1, 31, 2))
    made = system_of([rows], 1.0).ridges(1e-2).solve(np.zeros((1, 31, 2)), prior)
    np.testing.assert_allclose(made[0, :-1], prior[0, :-1])


def test_a_wide_layer_with_few_rows_needs_no_square_of_its_width() -> None:
    x, width = wide(8, 3000, 1.0)[0], 3000
    tracemalloc.start()
    right = np.ones((1, width + 1, 2))
    system_of([x], 1.0).ridges(1e-2).solve(right, right)
    fold_onto(FewRows(x), 0, 1.0, right[0], np.arange(1, width + 1), 1e-3)
    assert tracemalloc.get_traced_memory()[1] < width * width
    tracemalloc.stop()


def test_small_systems_get_one_thread_and_the_rest_is_as_before() -> None:
    def threads() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with blas_threads(10):
            assert set(threads()) <= {1}
        assert threads() == before
        with blas_threads(LARGE):
            assert threads() == before
        with pytest.raises(KeyboardInterrupt), blas_threads(10):
            raise KeyboardInterrupt
        assert threads() == before


@pytest.mark.parametrize("dead", [False, True])
def test_all_groups_at_once_are_solved_as_each_by_itself(dead: bool) -> None:
    generator = np.random.default_rng(int(dead))
    rows = generator.standard_normal((6, 50, 4))
    if dead:
        rows[2, :, 1] = 0.0
    rows[:, :, -1] = 1.0
    xx, xy = rows.transpose(0, 2, 1) @ rows, generator.standard_normal((6, 4, 3))
    prior = generator.standard_normal((6, 4, 3))
    for strength in (1e-4, 0.1):
        together = Ridges(xx, strength).solve(xy, prior)
        for g in range(6):
            np.testing.assert_allclose(together[g], ridge(xx[g], xy[g], prior[g], strength), rtol=1e-6, atol=1e-9)
    singular = np.zeros_like(xx)
    assert np.isfinite(Ridges(singular, 1e-4).solve(xy, prior)).all()
