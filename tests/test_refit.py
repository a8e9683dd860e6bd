"""Refit: what it is fitted to, where a constant goes, and that it never makes things worse unnoticed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import Sketch, in_layouts, random_keep, run
from onnx import TensorProto
from workbench import OPTIONS, Bench, bench, correlated

import onnxprune
from onnxprune import metrics
from onnxprune.calibration.outputs import outputs_of
from onnxprune.coupling.open import couple
from onnxprune.engine.session import open_session
from onnxprune.graph.view import view
from onnxprune.linear.form import Layer, layers
from onnxprune.linear.gram import CHUNK, Gram
from onnxprune.linear.solve import Ridges
from onnxprune.pipeline import compute
from onnxprune.pipeline.allocation import Allocation
from onnxprune.pipeline.candidate import Conditions, attempt
from onnxprune.pipeline.evaluator import Evaluator, evaluator_for
from onnxprune.pipeline.own_metric import SessionRunner
from onnxprune.pipeline.pricing import price
from onnxprune.progress import Silent
from onnxprune.refit.fit import Rows, _beyond, fit, predict
from onnxprune.refit.job import jobs_of
from onnxprune.refit.sequential import Refit, refit
from onnxprune.refit.shared import fit_together, shared, together
from onnxprune.refit.solution import Solution
from onnxprune.refit.targets import target_of
from onnxprune.result import Drop
from onnxprune.surgery.cut import cut


def dense(tail: str) -> onnx.ModelProto:
    """Three MatMul layers; ``tail``: what stands behind each of them."""
    sketch = Sketch()
    x = sketch.input("x", ["n", 24])
    for into, out in ((24, 32), (32, 28), (28, 12)):
        x = sketch.op("MatMul", x, sketch.weight(into, out))
        if tail in ("add", "flat add"):
            x = sketch.op("Add", x, sketch.weight(out) if tail == "add" else sketch.weight(1, out))
        if out != 12:
            x = sketch.op("Relu", x)
    sketch.output(x, ["n", 12])
    return sketch.model()


def convolutions(kind: str) -> onnx.ModelProto:
    """A residual block between two convolutions; ``kind``: where its layers keep their constants."""
    sketch = Sketch()

    def layer(x: str, into: int, out: int, group: int = 1) -> str:
        weight = sketch.weight(out, into // group, 3, 3)
        attrs = {"group": group, "pads": [1, 1, 1, 1]}
        if kind == "bias":
            return sketch.op("Conv", x, weight, sketch.weight(out), attrs=attrs)
        y = sketch.op("Conv", x, weight, attrs=attrs)
        if kind == "norm":
            return sketch.norm(y, out)
        return sketch.op("Add", y, sketch.weight(1, out, 1, 1)) if kind == "add" else y

    stem = sketch.op("Relu", layer(sketch.input("x", ["n", 6, 8, 8]), 6, 16))
    inner = sketch.op("Relu", layer(stem, 16, 16))
    deep = sketch.op("Relu", layer(inner, 16, 16, group=16))
    stream = sketch.op("Relu", sketch.op("Add", layer(deep, 16, 16), stem))
    pooled = sketch.op("Flatten", sketch.op("GlobalAveragePool", stream))
    y = sketch.op("Gemm", pooled, sketch.weight(10, 16), sketch.weight(10), attrs={"transB": 1})
    sketch.output(y, ["n", 10])
    return sketch.model()


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    **{f"dense-{tail}": ((lambda tail=tail: dense(tail)), (160, 24)) for tail in ("nothing", "add", "flat add")},
    **{
        f"conv-{kind}": ((lambda kind=kind: convolutions(kind)), (96, 6, 8, 8))
        for kind in ("bias", "norm", "add", "nothing")
    },
}


def table(name: str) -> Bench:
    make, shape = CASES[name]
    return bench(make(), correlated(shape, rank=5))


def refitted(on: Bench, keep: np.ndarray) -> Refit:
    return refit(on.calibrated, keep, view(cut(on.coupling, keep)), 2, Silent())


def error(on: Bench, model: onnx.ModelProto) -> float:
    """Relative L2 error of the outputs on the samples that nothing is fitted to."""
    names = list(on.coupling.graph.outputs)
    wanted, got = (
        outputs_of(open_session(m, on.work.engine), on.work.holdout, names, 16)
        for m in (on.coupling.graph.model, model)
    )
    return metrics.relative_error(wanted, got)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [0.6, 0.3])
def test_the_refit_brings_the_outputs_nearer(name: str, share: float) -> None:
    on = table(name)
    keep = on.narrowed(share)
    found = refitted(on, keep)
    assert found.layers
    for layer in found.layers:
        assert layer.after <= layer.before
    assert error(on, cut(on.coupling, keep, found.weights)) < error(on, cut(on.coupling, keep))


def test_layers_without_a_bias_are_fitted_without_a_constant() -> None:
    """What a layer cannot hold must not be fitted: the error that is reported is that of the weights alone."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 1, 6)).astype(np.float32) + 2
    wanted = (x[:, 0] @ generator.standard_normal((6, 3)) + 5).astype(np.float32)
    none = np.zeros_like(wanted)
    start = np.zeros((1, 7, 3))
    for window in ((-np.inf, np.inf), (0.0, np.inf)):
        fits = {}
        for constant in (0.0, 1.0):
            parts = (slice(300), slice(300, None))
            train, test = (Rows([(x[p], wanted[p], none[p])], np.ones(3, np.float32), constant) for p in parts)
            fits[constant] = fit(train, test, start, start, window)
        assert fits[0.0].accepted
        np.testing.assert_array_equal(fits[0.0].weights[:, -1], 0)
        assert fits[1.0].after < fits[0.0].after < fits[0.0].before
        alone = np.clip(x[300:, 0] @ fits[0.0].weights[0, :-1], *window)
        goal = np.clip(wanted[300:], *window)
        assert np.linalg.norm(alone - goal) / np.linalg.norm(goal) == pytest.approx(fits[0.0].after, rel=0.1)


@pytest.mark.parametrize("name", ["dense-add", "dense-flat add", "conv-add", "conv-norm"])
def test_a_constant_goes_where_the_layer_already_has_one(name: str) -> None:
    on = table(name)
    found = refitted(on, on.narrowed(0.5))
    nodes = on.coupling.graph.nodes
    moved = {nodes[index].op for index, slot in found.weights if nodes[index].op in ("Add", "BatchNormalization")}
    assert moved == {"BatchNormalization" if name == "conv-norm" else "Add"}
    assert not any(nodes[index].op == "Conv" and slot == 2 for index, slot in found.weights)


def layer_of(on: Bench, op: str, number: int) -> Layer:
    return [layer for layer in on.work.layers if layer.node.op == op][number]


def test_targets_lie_behind_the_affine_tail() -> None:
    """scale·y + shift is what the original computes there, with the residual sum's other operand taken off."""
    for name in CASES:
        on = table(name)
        graph = on.coupling.graph
        feeds = next(on.work.holdout.batches(8))
        for layer in on.work.layers:
            channels = on.coupling.facts.shapes[layer.output][-1 if layer.kind == "matmul" else 1]
            target = target_of(on.coupling, layer, channels)
            values = [layer.output, target.value, *([target.other] if target.other else [])]
            tapped = onnx.ModelProto()
            tapped.CopyFrom(graph.model)
            del tapped.graph.output[:]
            tapped.graph.output.extend(onnx.ValueInfoProto(name=v) for v in dict.fromkeys(values))
            found = dict(zip(dict.fromkeys(values), open_session(tapped, on.work.engine).run(None, feeds), strict=True))
            wide = (1, -1) if layer.kind == "matmul" else (1, -1, 1, 1)
            made = found[layer.output] * target.scale.reshape(wide) + target.shift.reshape(wide)
            if target.other:
                made = made + found[target.other]
            np.testing.assert_allclose(made, found[target.value], rtol=1e-3, atol=1e-4)


def test_the_last_layer_of_a_branch_is_fitted_to_the_sum() -> None:
    on = table("conv-norm")
    branch = layer_of(on, "Conv", 3)
    target = target_of(on.coupling, branch, 16)
    producer = on.coupling.graph.producer
    assert on.coupling.graph.nodes[producer[target.value]].op == "Add"
    assert target.other is not None
    assert target.window == (0.0, np.inf)
    first = target_of(on.coupling, layer_of(on, "Conv", 0), 16)
    assert first.other is None


@pytest.mark.parametrize("op", ["Abs", "Acosh", "Neg", "Relu", "Tanh", "Softmax"])
@pytest.mark.parametrize("passed", ["", "Identity", "Dropout"])
def test_a_target_ends_in_front_of_what_is_not_affine(op: str, passed: str) -> None:
    s = Sketch()
    made = s.op("MatMul", s.input("x", [4, 6]), s.weight(6, 8))
    # The mask of a Dropout is another output, which nobody reads.
    made = s.op(passed, made, outputs=2 if passed == "Dropout" else 1) if passed else made
    behind = s.op("Add", made, s.weight(8))
    s.output(s.op("MatMul", s.op(op, behind), s.weight(8, 3)), [4, 3])
    coupling = couple(s.model(), {}, None)
    target = target_of(coupling, layers(coupling)[0], 8)
    assert (target.value, target.other) == (behind, None)
    assert target.until == coupling.graph.producer[behind]


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
@pytest.mark.parametrize("affine", [True, False])
def test_a_target_has_the_window_of_each_channel(kind: str, affine: bool) -> None:
    s, size = Sketch(), [4, 8, 5, 6]
    if kind == "MatMul":
        value, axis = s.op("MatMul", s.input("x", [4, 8, 5, 3]), s.weight(3, 6)), 3
    else:
        value, axis = s.op("Conv", s.input("x", [4, 3, 5, 6]), s.weight(8, 3, 1, 1)), 1
    value = s.op("Add", value, s.weight(*([6] if kind == "MatMul" else [8, 1, 1]))) if affine else value
    first, second = s.split("Split", value, s.array([2, size[axis] - 2]), outputs=2, attrs={"axis": axis})
    for made, count in ((s.op("Relu", first), 2), (second, size[axis] - 2)):
        end = [count if a == axis else length for a, length in enumerate(size)]
        s.output(s.op("Identity", made), end)
    coupling = couple(s.model(), {}, None)
    (layer,) = layers(coupling)
    low, high = target_of(coupling, layer, size[axis]).window
    np.testing.assert_array_equal(low, [0.0] * 2 + [-np.inf] * (size[axis] - 2))
    np.testing.assert_array_equal(high, np.inf)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_channel_is_divided_by_its_scale_unless_that_is_tiny_beside_the_largest(unit: float) -> None:
    on = table("conv-norm")
    layer = layer_of(on, "Conv", 0)
    keep = np.ones(on.coupling.unit_count, dtype=np.bool_)
    job = jobs_of(on.coupling, keep, [layer], on.coupling.graph)[layer.index]
    scale = unit * np.array([1.0, -1.0, 2e-4, -2e-4, 5e-5, -5e-5, 0.0, 0.5] * 2)
    job = replace(job, target=replace(job.target, scale=scale))
    assert job.usable.tolist() == [True, True, True, True, False, False, False, True] * 2
    np.testing.assert_array_equal(job.scale, np.where(job.usable, scale, 1.0))
    nothing = replace(job, target=replace(job.target, scale=0 * scale))
    assert not nothing.usable.any()


@pytest.mark.parametrize("name", ["conv-bias", "conv-norm", "dense-nothing", "shared"])
def test_nothing_upstream_changed_means_nothing_is_refitted(name: str) -> None:
    on = bench(siamese("MatMul", 1), correlated((160, 6), rank=5)) if name == "shared" else table(name)
    keep = np.ones(on.coupling.unit_count, dtype=np.bool_)
    found = refitted(on, keep)
    assert not found.weights
    assert not found.layers


def test_the_same_refit_twice() -> None:
    on = table("conv-norm")
    keep = on.narrowed(0.5)
    first, second = (cut(on.coupling, keep, refitted(on, keep).weights) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_fit_that_held_out_rows_do_not_confirm_is_rejected() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((300, 1, 8)).astype(np.float32)
    weights = np.append(generator.standard_normal((8, 4)), np.zeros((1, 4)), axis=0)[None]
    true = x[:, 0] @ weights[0, :-1]
    noise = 3 * generator.standard_normal(true.shape)
    for window in ((-np.inf, np.inf), (0.0, np.inf)):
        train, test = (
            Rows([(part, wanted.astype(np.float32), np.zeros(4, np.float32))], np.ones(4, np.float32))
            for part, wanted in ((x[:60], noise[:60]), (x[60:], true[60:] + 0.01 * noise[60:]))
        )
        found = fit(train, test, weights, weights, window)
        assert not found.accepted
        assert found.weights is weights
        assert found.after == found.before > 0


def test_a_refit_that_hurts_on_the_holdout_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    on = table("conv-bias")
    counts = np.asarray([max(1, len(g) // 2) for g in on.coupling.groups])
    (pricing,) = price(on.work, OPTIONS, {"qr": on.rankings}, on.grams, Silent())
    allocation = Allocation(pricing, counts)
    feeds = next(on.work.holdout.batches(16))
    (wanted,) = run(on.coupling.graph.model, feeds)

    def nearness(runner: SessionRunner) -> float:
        (got,) = runner(feeds).values()
        return -float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))

    fair = evaluator_for(on.work, replace(OPTIONS, evaluate=nearness))
    sound = attempt(Conditions(on.work, fair, OPTIONS), allocation, Silent())
    assert sound.refits
    assert not sound.notes
    plain = attempt(Conditions(on.work, fair, replace(OPTIONS, refit="none")), allocation, Silent())
    assert not plain.refits
    assert 0 < sound.drop.value < plain.drop.value

    def hurting(*arguments: object) -> Refit:
        found = refit(*arguments)  # type: ignore[arg-type]
        return Refit({use: -array for use, array in found.weights.items()}, found.layers)

    monkeypatch.setattr(compute, "refit", hurting)
    hurt = attempt(Conditions(on.work, fair, OPTIONS), allocation, Silent())
    assert "was worse than the plain cut" in hurt.notes[0]
    assert hurt.refits == ()
    assert hurt.drop == plain.drop
    assert hurt.model == plain.model


@pytest.mark.parametrize(("left_alone", "step_size"), [((), 24 * 24), (("left_stem",), 17 * 17)])
def test_layers_that_share_a_matrix_are_fitted_together_and_still_share_it(
    left_alone: tuple[str, ...], step_size: int
) -> None:
    """Two branches, each with a norm of its own, and a step that is taken twice: none of them gets a copy."""
    s = Sketch()
    kernel, step = s.weight(24, 16, 3, 3, name="kernel"), s.weight(24, 24, 1, 1, name="step")
    branches = []
    for name in ("left", "right"):
        h = s.op("Relu", s.conv(s.input(name, [2, 3, 8, 8]), 3, 16, 3, name=f"{name}_stem"))
        h = s.op("Relu", s.norm(s.op("Conv", h, kernel, name=f"{name}_conv", attrs={"pads": [1] * 4}), 24))
        for turn in (1, 2):
            h = s.op("Relu", s.op("Conv", h, step, s.weight(24), name=f"{name}_{turn}"))
        branches.append(h)
    s.output(s.conv(s.op("Concat", *branches, attrs={"axis": 1}), 48, 4), [2, 4, 8, 8])
    result = onnxprune.prune(s.model(), params=0.65, samples=32, round_to=1, exclude=left_alone)
    sizes = {t.name: math.prod(t.dims) for t in result.model.graph.initializer}
    assert result.report.params.ratio <= 0.66 and len(sizes) == len(s.initializers)
    assert sizes["kernel"] < 24 * 16 * 9 and sizes["step"] <= step_size
    fits = {fit.node: fit for fit in result.report.refits}
    assert all(fit.after <= fit.before for fit in fits.values())
    assert {f"{side}_{what}" for side in ("left", "right") for what in ("conv", "1", "2")} <= set(fits)


def siamese(kind: str, group: int) -> onnx.ModelProto:
    """Two branches with a layer of one matrix in each, between layers of their own; ``kind`` is that of the layer."""
    s = Sketch()
    taps = 0 if kind == "MatMul" else int(kind[-1])
    shape, kernel = (["n", 6, 5, 5], (taps, taps)) if taps else (["n", 6], ())
    x, attrs = s.input("x", shape), {"group": group, "pads": [taps // 2] * 4}
    into, out = 12 // group, 8
    common = s.weight(out, into, *kernel, name="common") if taps else s.weight(into, out, name="common")
    ends = []
    for _ in range(2):
        if taps:
            h = s.op("Relu", s.conv(x, 6, 12))
            h = s.op("Conv", h, common, s.weight(out), attrs=attrs)
        else:
            h = s.op("Relu", s.op("MatMul", x, s.weight(6, 12)))
            h = s.op("Add", s.op("MatMul", h, common), s.weight(out))
        ends.append(s.op("Relu", h))
    y = s.op("Concat", *ends, attrs={"axis": 1})
    y = s.conv(y, 16, 3) if taps else s.op("MatMul", y, s.weight(16, 3))
    s.output(y, [shape[0], 3, *shape[2:]])
    return s.model()


SIAMESE = [("MatMul", 1), ("Conv 1", 1), ("Conv 3", 1), ("Conv 3", 2)]


@pytest.mark.parametrize("free", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(("kind", "group"), SIAMESE)
def test_a_common_matrix_is_least_squares_for_all_its_layers(kind: str, group: int, free: tuple[bool, bool]) -> None:
    """On the original's inputs; a bias that may change takes the mean of what is missing."""
    coupling = couple(siamese(kind, group), {}, None)
    keep = random_keep(coupling, 0)
    jobs = jobs_of(coupling, keep, layers(coupling), view(cut(coupling, keep)))
    members = max(shared(coupling, layers(coupling)).values(), key=len)
    parts = [jobs[layer.index].part for layer in members]
    assert len(parts) == 2
    whole = [part.full() for part in parts]
    (groups, count, _), draw = whole[0].shape, np.random.default_rng(0)
    grams, rows = [], []
    for _ in parts:
        mixed = draw.standard_normal((400, groups, count)) @ draw.standard_normal((count, count - 1))
        rows.append((mixed + 3 * draw.standard_normal(count - 1)).astype(np.float32))
        grams.append(Gram.empty(groups, count - 1, 0))
        grams[-1].update(rows[-1][:, :, :, None], None)
    found = together(parts, grams, free, 0.0)
    taps = (count - 1) // len(parts[0].kept_inputs)
    alive, outs = np.repeat(parts[0].kept_inputs, taps), parts[0].kept_outputs.reshape(groups, -1)
    assert 0 < alive.sum() < len(alive)
    for g in range(groups):
        means = [x[:, g].mean(axis=0, dtype=np.float64) * bias for x, bias in zip(rows, free, strict=True)]
        inputs = np.concatenate([x[:, g] - mean for x, mean in zip(rows, means, strict=True)])
        matrix = whole[0][g, :-1, outs[g]].T
        best = np.linalg.lstsq(inputs[:, alive], inputs @ matrix, rcond=None)[0]
        for own, one, mean in zip(whole, found, means, strict=True):
            np.testing.assert_allclose(one[g, :-1], best, atol=1e-3 * np.abs(best).max())
            missing = mean @ matrix - mean[alive] @ best
            np.testing.assert_allclose(
                one[g, -1], own[g, -1, outs[g]] + missing, atol=1e-3 * np.abs(missing).max() + 1e-9
            )


def test_a_common_matrix_stays_as_it_is_unless_the_moments_of_all_its_layers_are_known() -> None:
    on = bench(siamese("MatMul", 1), correlated((160, 6), rank=5))
    keep = on.narrowed(0.5)
    jobs = jobs_of(on.coupling, keep, on.work.layers, view(cut(on.coupling, keep)))
    alike = shared(on.coupling, on.work.layers)
    members = [jobs[index] for index in alike]
    for known, changes in ((members, True), (members[:1], False), ([], False)):
        solution = Solution(alike, alike)
        fit_together(members, {job.index: on.grams[job.index] for job in known}, solution)
        assert bool(solution.constants) == bool(solution.weights) == changes


@pytest.mark.parametrize(("kind", "group"), SIAMESE)
def test_a_common_matrix_is_refitted_and_stays_common(kind: str, group: int) -> None:
    on = bench(siamese(kind, group), correlated((96, 6, 5, 5) if "Conv" in kind else (160, 6), rank=5))
    keep = on.narrowed(0.6)
    found = refitted(on, keep)
    uses = [use for use in on.coupling.units if isinstance(use, tuple) and on.coupling.value_of(use) == "common"]
    assert len(uses) == 2
    first, second = (found.weights[use] for use in uses)
    np.testing.assert_array_equal(first, second)
    assert {on.coupling.graph.nodes[index].label for index, _ in uses} <= {
        one.node for one in found.layers if one.accepted
    }
    assert error(on, cut(on.coupling, keep, found.weights)) < error(on, cut(on.coupling, keep))


def test_a_table_that_also_gives_the_scores_stays_one() -> None:
    s = Sketch()
    s.weight(40, 24, name="table")
    h = s.op("Gather", "table", s.input("ids", ["n"], TensorProto.INT64))
    h = s.op("Relu", s.op("MatMul", h, s.weight(24, 64), name="wide"))
    h = s.op("MatMul", h, s.weight(64, 24), name="back")
    s.output(s.op("MatMul", h, s.op("Transpose", "table", attrs={"perm": [1, 0]}), name="scores"), ["n", 40])
    result = onnxprune.prune(s.model(), params=0.7, samples=64)
    assert result.report.params.ratio <= 0.71 and result.report.verify.passed
    assert [t.dims[0] for t in result.model.graph.initializer].count(40) == 1


@pytest.mark.parametrize("layouts", [("", "T"), ("T", "T"), ("T", ""), ("", "IT"), ("", "TT", "T"), ("CT", "C")])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_one_array_in_several_layouts_is_cut_once(layouts: tuple[str, ...], multiple: int) -> None:
    result = onnxprune.prune(in_layouts(layouts), params=0.7, samples=64, round_to=multiple)
    assert result.report.params.ratio <= 0.71 and result.report.verify.passed
    tables = [t.dims for t in result.model.graph.initializer if len(t.dims) == 2 and not {5, 7}.intersection(t.dims)]
    assert len(tables) == 1 and tables[0][0] * tables[0][1] < 32 * 32


def test_the_chosen_fit_is_made_once_more_on_all_rows() -> None:
    """Its weights solve the normal equations of both halves, not of the one that the strength was chosen on."""
    draw = np.random.default_rng(3)

    def rows(count: int) -> Rows:
        x = draw.standard_normal((count, 1, 6)).astype(np.float32)
        wanted = (x[:, 0] @ np.ones((6, 3), np.float32) + draw.standard_normal((count, 3))).astype(np.float32)
        return Rows([(x, wanted, np.zeros((count, 3), np.float32))], np.ones(3, np.float32))

    train, test = rows(40), rows(40)
    prior = np.zeros((1, 7, 3))
    found = fit(train, test, prior, prior, (-np.inf, np.inf))
    assert found.strengths
    both = train.gram().merge(test.gram())
    wanted = Ridges(both.xx, found.strengths[0]).solve(both.xy, prior)
    alone = Ridges(train.gram().xx, found.strengths[0]).solve(train.gram().xy, prior)
    np.testing.assert_allclose(found.weights, wanted, rtol=1e-6)
    assert np.abs(found.weights - alone).max() > 1e-3


@pytest.mark.parametrize("shape", [[4, 8], [2, 5, 8], [2, 3, 5, 8], [2, 8, 4, 4], [2, 8, 6]])
@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
def test_a_target_keeps_all_channels_of_the_original(kind: str, shape: list[int]) -> None:
    """The refit itself takes the channels that stay; only other axes lose positions before."""
    if kind == "Conv" and (len(shape) < 3 or shape[1] != 8):
        pytest.skip("channels are on axis 1")
    s, taps = Sketch(), [1] * (len(shape) - 2)
    value, outs = s.input("x", shape), (16, 12)
    for into, out in zip((shape[-1] if kind == "MatMul" else 8, *outs), (*outs, 3), strict=True):
        weight = s.weight(into, out) if kind == "MatMul" else s.weight(out, into, *taps)
        value = s.op("Relu", s.op(kind, value, weight))
    s.output(value, [*shape[:-1], 3] if kind == "MatMul" else [shape[0], 3, *shape[2:]])
    coupling = couple(s.model(), {}, None)
    keep = np.arange(coupling.unit_count) % 3 > 0
    jobs = jobs_of(coupling, keep, layers(coupling), view(cut(coupling, keep)))
    assert len(jobs) == 3
    for job, channels in zip(jobs.values(), (*outs, 3), strict=True):
        activation = np.zeros(coupling.facts.shapes[job.layer.output])
        assert activation.shape[job.axis] == channels
        assert job.still_there(activation).shape == activation.shape


@pytest.mark.parametrize("window", [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 0.5), (-1.5, 1.5)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fit_finds_the_layer_that_made_its_targets(window: tuple[float, float], groups: int, bias: bool) -> None:
    """Whatever scale and offset lie between the layer and the activation that its readers clip."""
    draw = np.random.default_rng(5)
    truth = draw.standard_normal((groups, 6, 4))
    truth[:, -1] *= bias
    scale = (draw.uniform(0.5, 2, 4 * groups) * draw.choice([-1, 1], 4 * groups)).astype(np.float32)
    shift = draw.standard_normal(4 * groups).astype(np.float32)

    def rows(count: int) -> Rows:
        x = draw.standard_normal((count, groups, 5)).astype(np.float32)
        return Rows([(x, predict(x, truth) * scale + shift, shift)], scale, float(bias))

    train, test = rows(600), rows(300)
    near = truth + 0.3 * draw.standard_normal(truth.shape) * (truth != 0)
    found = fit(train, test, near, near, window)
    assert found.accepted and found.before > 0.1
    if np.isinf(window).all():
        assert found.after < 1e-3
        np.testing.assert_allclose(found.weights, truth, atol=2e-3)
    else:
        # A few rounds only, each of them nearer.
        assert found.after < found.before / 2
        assert np.abs(found.weights - truth).mean() < np.abs(near - truth).mean() / 2


@pytest.mark.parametrize("sizes", [[1], [CHUNK], [CHUNK + 1, 7], [5, 2 * CHUNK + 3]])
@pytest.mark.parametrize("wide", [True, False])
def test_chunks_hold_each_row_once_beside_its_own_offset(sizes: list[int], wide: bool) -> None:
    parts = []
    for size in sizes:
        x = np.random.default_rng(size).standard_normal((size, 1, 2)).astype(np.float32)
        parts.append((x, x[:, 0] + 1, x[:, 0] - 1 if wide else np.float32([3, 4])))
    rows = Rows(parts, np.ones(2, np.float32))
    chunks = list(rows.chunks())
    assert max(len(x) for x, _, _ in chunks) <= CHUNK
    whole = np.concatenate([x for x, _, _ in parts])
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in chunks]), whole)
    for x, wanted, offset in chunks:
        np.testing.assert_array_equal(wanted, x[:, 0] + 1)
        np.testing.assert_array_equal(offset, x[:, 0] - 1 if wide else [3, 4])


def test_targets_beyond_the_window_only_count_where_a_reader_would_see_them() -> None:
    """Both edges: on the far side of an edge the target is the prediction, or the edge where that is nearer."""
    wanted = np.array([-3.0, -3.0, 0.5, 0.5, 9.0, 9.0, 9.0], np.float32)
    got = np.array([-5.0, 0.5, -4.0, 8.0, 11.0, 2.0, -7.0], np.float32)
    goal = np.array([-5.0, 0.0, 0.5, 0.5, 11.0, 6.0, 6.0])
    np.testing.assert_allclose(_beyond(wanted, got, (np.zeros(7), np.full(7, 6.0))), goal, rtol=1e-6)
    np.testing.assert_allclose(_beyond(wanted, got, (np.full(7, -np.inf), np.full(7, np.inf))), wanted)
    only_low = np.where(wanted < 0, goal, wanted)
    np.testing.assert_allclose(_beyond(wanted, got, (np.zeros(7), np.full(7, np.inf))), only_low, rtol=1e-6)
    only_high = np.where(wanted > 6, goal, wanted)
    np.testing.assert_allclose(_beyond(wanted, got, (np.full(7, -np.inf), np.full(7, 6.0))), only_high, rtol=1e-6)


def test_a_refit_with_less_output_loss_stays_where_a_few_answers_speak_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on = table("conv-bias")
    counts = np.asarray([max(1, len(g) // 2) for g in on.coupling.groups])
    (pricing,) = price(on.work, OPTIONS, {"qr": on.rankings}, on.grams, Silent())
    allocation = Allocation(pricing, counts)
    fair = evaluator_for(on.work, OPTIONS)
    plain = attempt(Conditions(on.work, fair, replace(OPTIONS, refit="none")), allocation, Silent())

    def unlucky(self: Evaluator, model: onnx.ModelProto) -> Drop:
        return Drop("top-1 changed", 0.1 if model == plain.model else 0.2, 10)

    monkeypatch.setattr(Evaluator, "drop", unlucky)
    kept = attempt(Conditions(on.work, fair, OPTIONS), allocation, Silent())
    assert kept.refits
    assert fair.output_loss(kept.model) < fair.output_loss(plain.model)
