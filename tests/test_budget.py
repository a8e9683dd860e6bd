"""Budget: costs by formula are costs of the model that is really cut, and every target is met from below."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch, random_keep
from onnx import numpy_helper
from random_graphs import random_model
from scipy.sparse import csr_array

from onnxprune import prune
from onnxprune.budget.allocate import allocate, allowed_widths, uniform
from onnxprune.budget.cost import Cost, count_parameters, file_size, macs, parameters, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.interpolate import TINY, interpolate
from onnxprune.budget.lengths import Lengths
from onnxprune.budget.rounding import Blocks, check_multiple, multiple_for
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.engine.loadable import with_outputs
from onnxprune.engine.probe import plausible_feeds
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.errors import BudgetError
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep

DEMO = Path(__file__).parents[1] / "models" / "demo.onnx"
#: Elements of shape arithmetic that a cut may make needless, or split, in one of these graphs.
SHAPES = 32


# -- costs -----------------------------------------------------------------------------------------------------------


def shapes_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shape of every value of the main graph, from a run."""
    names = [o for node in model.graph.node for o in node.output if o]
    arrays = run(open_session(with_outputs(model, names), Engine(threads=1)), feeds)
    found = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    found |= {t.name: tuple(t.dims) for t in model.graph.initializer}
    return found | {name: array.shape for name, array in feeds.items()}


def counted_macs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> int:
    """Multiply-accumulates, operator by operator, from the shapes at hand."""
    shapes = shapes_of(model, feeds)
    total = 0
    for node in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        ins = [shapes.get(name, ()) for name in node.input]
        out = shapes[node.output[0]] if node.output[0] else ()
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(ins[1][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(ins[0]) * math.prod(ins[1][1:])
        elif node.op_type == "Gemm":
            total += math.prod(out) * ins[0][0 if attrs.get("transA") else 1]
        elif node.op_type == "MatMul":
            total += math.prod(out) * ins[0][-1]
        elif node.op_type == "Einsum":
            terms = attrs["equation"].decode().split("->")[0].split(",")
            letters = {c: d for term, dims in zip(terms, ins, strict=True) for c, d in zip(term, dims, strict=True)}
            total += math.prod(letters.values())
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            (t, b, i), (directions, gates, hidden) = ins[0], ins[2]
            total += t * b * directions * gates * (i + hidden)
    return total


def mixed() -> onnx.ModelProto:
    """Grouped, depthwise, transposed and flattened readers of the same channels."""
    sketch = Sketch(seed=8)
    stem = sketch.op("Relu", sketch.norm(sketch.conv(sketch.input("x", ["n", 3, 8, 8]), 3, 12, 3), 12))
    grouped = sketch.conv(stem, 12, 18, 3, group=3)
    deep = sketch.conv(stem, 12, 12, 3, group=12)
    up = sketch.op("ConvTranspose", deep, sketch.weight(12, 6, 2, 2), attrs={"strides": [2, 2]})
    parts = [sketch.op("Flatten", v) for v in (sketch.op("GlobalAveragePool", grouped), up)]
    y = sketch.op("Gemm", sketch.op("Concat", *parts, attrs={"axis": 1}), sketch.weight(5, 18 + 6 * 256),
                  attrs={"transB": 1})  # fmt: skip
    sketch.output(y, ["n", 5])
    return sketch.model()


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "demo": lambda: onnx.load(DEMO),
    "mixed": mixed,
    **{f"random {seed}": (lambda seed=seed: random_model(seed)) for seed in range(24)},
}


def kept_per_group(coupling: Coupling, keep: np.ndarray) -> np.ndarray:
    return np.asarray([keep[group.units].sum() for group in coupling.groups], dtype=np.float64)


@pytest.mark.parametrize("name", MODELS)
def test_costs_by_formula_are_those_of_the_cut_model(name: str) -> None:
    model = MODELS[name]()
    coupling = couple(model, {}, None)
    feeds = plausible_feeds(coupling.graph, {n: coupling.facts.shapes[n] for n in coupling.graph.inputs})
    formulas = macs(coupling), parameters(coupling), file_size(coupling, model.ByteSize())
    keeps = [np.ones(coupling.unit_count, dtype=np.bool_)]
    keeps += [random_keep(coupling, seed, share) for seed, share in ((0, 0.2), (1, 0.5), (2, 0.9))]
    for keep in keeps:
        small = model if keep.all() else sweep(cut(coupling, keep), model)
        kept = kept_per_group(coupling, keep)
        multiplications, elements, size = (cost(kept) for cost in formulas)
        assert multiplications == pytest.approx(counted_macs(small, feeds), rel=1e-9)
        if keep.all():
            # Arrays that a cut would split are still one; axes of what is computed from constants are still there.
            assert elements >= count_parameters(small) - SHAPES
            assert size >= small.ByteSize() - 8 * SHAPES
            continue
        assert elements == pytest.approx(count_parameters(small), abs=SHAPES), "more than a few shape constants"
        # Names and the lengths in front of fields are counted as they were.
        assert size == pytest.approx(small.ByteSize(), abs=64 * len(small.graph.node))
    for cost in formulas:
        many = cost.many(np.stack([kept_per_group(coupling, keep) for keep in keeps]))
        np.testing.assert_allclose(many, [cost(kept_per_group(coupling, keep)) for keep in keeps])


def test_weights_computed_from_the_data_count_in_the_convolution_that_reads_them() -> None:
    """One kernel per sample, and the samples as groups of one convolution."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [2, 3, 8, 8]), 3, 12))
    pooled = s.op("Flatten", s.op("GlobalAveragePool", x))
    mixed = s.op("MatMul", pooled, s.weight(12, 10 * 12 * 9), name="kernels")
    kernels = s.op("Reshape", mixed, s.array([20, 12, 3, 3]))
    joined = s.op("Reshape", x, s.array([1, 24, 8, 8]))
    y = s.op("Reshape", s.op("Conv", joined, kernels, attrs={"group": 2}), s.array([2, 10, 6, 6]))
    s.output(s.op("Gemm", s.op("Flatten", s.op("GlobalAveragePool", y)), s.weight(10, 5)), [2, 5])
    coupling = couple(s.model(), {}, None)
    cost = macs(coupling)
    assert cost.fixed == 0.0
    convolved = 2 * 10 * 12 * 9 * 36
    assert sorted(cost.terms(sizes(coupling)).tolist())[-1] == convolved
    largest = int(np.argmax(cost.factor * cost.lengths(sizes(coupling)).prod(axis=-1)))
    assert cost.lengths.vary()[largest]


def test_every_stored_array_counts_once() -> None:
    sketch = Sketch()
    x = sketch.input("x", [1, 6])
    weight = sketch.weight(6, 6)
    y = sketch.op("MatMul", sketch.op("Relu", sketch.op("MatMul", x, weight)), weight)
    sketch.output(sketch.op("Add", y, sketch.op("Constant", attrs={"value": numpy_helper.from_array(np.ones(6, np.float32))})), [1, 6])  # fmt: skip
    model = sketch.model()
    coupling = couple(model, {}, None)
    assert parameters(coupling)(sizes(coupling).astype(np.float64)) == 42 == count_parameters(model)


# -- allocation ------------------------------------------------------------------------------------------------------


def linear(base: np.ndarray, slope: np.ndarray) -> Lengths:
    """Lengths of ``base`` (n, m) and a dense ``slope`` (n, m, groups)."""
    rows, axes, groups = slope.shape
    coefficients = csr_array(slope.reshape(-1, groups).astype(np.float64))
    return Lengths(base.ravel().astype(np.float64), coefficients, np.arange(rows * axes), (rows, axes))


def invented(seed: int, multiple: int = 1) -> tuple[Cost, list[Curve]]:
    """A cost of coupled widths with a fixed part, and error curves from convex to nearly flat."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 9))
    widths = generator.integers(1, 65, count)
    terms = int(generator.integers(count, 3 * count + 1))
    slope = np.zeros((terms, 2, count))
    for t in range(terms):
        for a in range(2):
            if generator.random() < 0.8:
                slope[t, a, generator.integers(count)] = generator.integers(1, 4)
    for g in range(count):
        slope[g % terms, 0, g] += 1
    base = np.where(slope.any(axis=-1), generator.integers(0, 3, (terms, 2)), 1 + generator.integers(0, 9, (terms, 2)))
    cost = Cost(generator.integers(1, 100, terms).astype(np.float64), linear(base, slope),
                tuple(range(terms)), float(generator.integers(0, 50)))  # fmt: skip
    curves = []
    for width in widths:
        falls = np.linspace(1, 0, width + 1) ** generator.uniform(0.3, 6)
        curves.append(Curve(falls * np.exp(generator.uniform(-3, 3)), allowed_widths(int(width), multiple)))
    return cost, curves


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_target_is_met_from_below_and_within_one_step(seed: int, multiple: int) -> None:
    cost, curves = invented(seed, multiple)
    full = np.asarray([c.widths[-1] for c in curves], dtype=np.float64)
    least = cost(np.asarray([c.widths[0] for c in curves], dtype=np.float64))
    for share in (1.0, 0.9, 0.6, 0.3, 0.1, 0.0):
        target = least + share * (cost(full) - least)
        for kept in (allocate(cost, curves, target), uniform(cost, curves, target)):
            assert cost(kept) <= target * (1 + 1e-12)
            for g, curve in enumerate(curves):
                assert kept[g] in curve.widths
                assert kept[g] >= 1
                wider = curve.widths[curve.widths > kept[g]]
                if len(wider):
                    trial = kept.astype(np.float64)
                    trial[g] = wider[0]
                    assert cost(trial) > target, "room was left for one more step"
    assert (allocate(cost, curves, cost(full)) == full).all()


@pytest.mark.parametrize("seed", range(20))
def test_an_impossible_target_is_refused_with_what_is_possible(seed: int) -> None:
    cost, curves = invented(seed)
    least = cost(np.asarray([c.widths[0] for c in curves], dtype=np.float64))
    full = cost(np.asarray([c.widths[-1] for c in curves], dtype=np.float64))
    if least == full:
        pytest.skip("one channel per group")
    with pytest.raises(BudgetError, match=r"narrowest model keeps \d\.\d+ of") as refused:
        allocate(cost, curves, 0.999 * least)
    told = float(str(refused.value).split("model keeps ")[1].split()[0])
    allocate(cost, curves, told * full)


def test_what_costs_nothing_leaves_first() -> None:
    """Two groups of the same price: the output loss of a unit decides."""
    cost = Cost(np.ones(2), linear(np.zeros((2, 1)), np.eye(2)[:, None]), (0, 1))
    harmless, harmful = (Curve(scale * np.linspace(1, 0, 11), np.arange(1, 11)) for scale in (0.01, 1.0))
    np.testing.assert_array_equal(allocate(cost, [harmless, harmful], 15), [5, 10])
    np.testing.assert_array_equal(allocate(cost, [harmful, harmless], 11), [10, 1])
    dead = Curve(np.where(np.arange(11) < 4, 1.0, 0.0), np.arange(1, 11))
    np.testing.assert_array_equal(allocate(cost, [dead, harmless], 14), [4, 10])


def test_a_steep_start_does_not_hide_a_cheap_stretch() -> None:
    cost = Cost(np.ones(2), linear(np.zeros((2, 1)), np.eye(2)[:, None]), (0, 1))
    step = Curve(np.append(np.full(10, 1.0), 0.0), np.arange(1, 11))
    line = Curve(4 * np.linspace(1, 0, 11), np.arange(1, 11))
    np.testing.assert_array_equal(allocate(cost, [step, line], 12), [2, 10])


def test_allocation_on_the_demo_model_for_every_unit_of_cost() -> None:
    model = onnx.load(DEMO)
    coupling = couple(model, {}, None)
    curves = [
        Curve(np.linspace(1, 0, len(g) + 1) ** 2, allowed_widths(len(g), multiple_for(len(g), Blocks(16, 4))))
        for g in coupling.groups
    ]
    whole = sizes(coupling).astype(np.float64)
    for cost, share in itertools.product(
        (macs(coupling), parameters(coupling), file_size(coupling, model.ByteSize())), (0.85, 0.5, 0.3)
    ):
        target = share * cost(whole)
        kept = allocate(cost, curves, target)
        assert cost(kept.astype(np.float64)) <= target
        assert (kept >= 1).all()
        steps = []
        for g, curve in enumerate(curves):
            wider = kept.astype(np.float64)
            wider[g] = next((w for w in curve.widths if w > kept[g]), kept[g])
            steps.append(cost(wider))
        assert all(step > target for step, n, size in zip(steps, kept, whole, strict=True) if n < size)


# -- widths ----------------------------------------------------------------------------------------------------------


def test_widths_are_multiples_or_the_whole() -> None:
    for size, multiple in itertools.product((1, 2, 7, 16, 50), (0, 1, 3, 8, 64)):
        widths = allowed_widths(size, multiple)
        assert widths[-1] == size
        assert (np.diff(widths) > 0).all()
        assert widths[0] >= 1
        assert all(w % max(multiple, 1) == 0 or w == size for w in widths)


def test_a_multiple_that_narrows_no_group_is_refused() -> None:
    check_multiple(None, [16, 48])
    check_multiple(47, [16, 48])
    check_multiple(64, [])
    with pytest.raises(BudgetError, match=r"--round 48 leaves nothing to cut: the widest prunable group has 48"):
        check_multiple(48, [16, 48])


@pytest.mark.parametrize("budget", [{"max_drop": 0.01}, {"macs": 0.5}, {"latency": 0.5}])
def test_too_coarse_a_multiple_is_refused_before_the_search(budget: dict[str, float]) -> None:
    with pytest.raises(BudgetError, match=r"--round 4096 leaves nothing to cut.*give a multiple below \d+, or auto"):
        prune(DEMO, round_to=4096, samples=8, **budget)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match=r"--round 16 leaves nothing to cut: .* has 16 channels"):
        prune(DEMO, round_to=16, only=("/stem/conv/Conv",), samples=8, **budget)  # type: ignore[arg-type]


# -- loss between measurements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_interpolation_meets_its_measurements_and_never_rises_with_width(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(generator.integers(4, 100))
    error = np.append(np.sort(generator.random(size))[::-1] + 1e-3, 0.0)
    counts = sorted({max(1, round(size * s)) for s in (0.875, 0.75, 0.5, 0.25)})
    measured = [(k, float(error[k] ** 1.7 * 3)) for k in counts]
    line = interpolate(error, measured)
    assert len(line) == size + 1
    assert (np.diff(line) <= 0).all()
    assert line[-1] == 0.0
    for count, value in measured:
        assert line[count] == pytest.approx(value, rel=1e-6)


def test_interpolation_calls_dead_units_free_and_stands_noise() -> None:
    dead = np.asarray([1.0, 0.4, 0.1, TINY / 2, 0.0, 0.0])
    assert (interpolate(dead, [(1, 0.3), (2, 0.05)])[3:] == 0).all()
    noisy = interpolate(np.linspace(1, 0, 9), [(2, 0.2), (4, 0.5), (6, 1e-12)])
    assert np.isfinite(noisy).all()
    assert (np.diff(noisy) <= 0).all()
    flat = interpolate(np.append(np.ones(4), 0.0), [(1, 0.1), (2, 0.1)])
    assert np.isfinite(flat).all()
