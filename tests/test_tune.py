"""Tuning: a damaged model learns the original's answers, deterministically, and only where that helps."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import onnx
import pytest
from graphs import Sketch, run

import onnxprune
from onnxprune.calibration.open import open_dataset
from onnxprune.cli import main
from onnxprune.engine.session import Engine
from onnxprune.errors import DataError, ModelError, OptionError
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.options import Options
from onnxprune.pipeline import tuned as tuned_module
from onnxprune.pipeline.setup import set_up, specs_for
from onnxprune.report import wording
from onnxprune.surgery.constants import with_constants
from onnxprune.tuning_length import parse_length

torch = pytest.importorskip("torch")

from onnxprune.progress import Silent  # noqa: E402
from onnxprune.tuning import loop as loop_module  # noqa: E402
from onnxprune.tuning import pace as pace_module  # noqa: E402
from onnxprune.tuning import pair as pair_module  # noqa: E402
from onnxprune.tuning import tune as tune_module  # noqa: E402
from onnxprune.tuning.chance import better, lower  # noqa: E402
from onnxprune.tuning.hidden import HiddenValue, matched  # noqa: E402
from onnxprune.tuning.pace import FAST, FASTEST, SLOWEST, careful, pace, scaled  # noqa: E402
from onnxprune.tuning.recipe import SMALLEST, Schedule  # noqa: E402
from onnxprune.tuning.samples import Samples, endless  # noqa: E402
from onnxprune.tuning.target import hidden_error, output_error, output_terms  # noqa: E402


def net(seed: int = 0) -> onnx.ModelProto:
    """Pictures of 8 by 8 to five scores, through a residual block."""
    s = Sketch(seed=seed)
    x = s.input("x", ["n", 3, 8, 8])
    y = s.op("Relu", s.norm(s.conv(x, 3, 8, 3), 8))
    y = s.op("Relu", s.op("Add", y, s.conv(s.op("Relu", s.conv(y, 8, 12, 3)), 12, 8, 3)))
    y = s.op("Flatten", s.op("GlobalAveragePool", y))
    s.output(s.op("Gemm", y, s.weight(8, 5), s.weight(5)), ["n", 5])
    return s.model()


def damaged(model: onnx.ModelProto, share: float = 0.3) -> onnx.ModelProto:
    """The same net with noise in its weights."""
    generator = np.random.default_rng(3)
    weights = {n: a for n, a in view(model).constants.items() if n.startswith("w") and a.dtype == np.float32}
    return with_constants(
        model, {n: a + share * a.std() * generator.standard_normal(a.shape) for n, a in weights.items()}
    )


def pictures(count: int = 96) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def tuned(student, teacher, data=None, length="4x", **more):
    return onnxprune.tune(student, teacher, pictures() if data is None else data, length=length, threads=1, **more)


def mask_net() -> onnx.ModelProto:
    """Pictures of 8 by 8 to a mask of the same size, sure of nearly every place."""
    s = Sketch()
    y = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 8, 3))
    s.output(s.op("Sigmoid", s.op("Mul", s.conv(y, 8, 1, 3), s.array(20.0, np.float32))), ["n", 1, 8, 8])
    return s.model()


@pytest.mark.parametrize("count", [40, 800])
@pytest.mark.parametrize("made", [net, mask_net])
def test_tuning_holds_out_what_a_refit_did_not_see(made: Callable[[], onnx.ModelProto], count: int) -> None:
    """On samples that the refit saw, its model looks better than it is."""
    model, data = made(), pictures(count)
    context = set_up(load(model), data, Options(samples=count))
    with mock.patch.object(tuned_module, "_tune", side_effect=InterruptedError) as tune, pytest.raises(InterruptedError):
        tuned(model, model, data)
    fit, held = (
        {picture.tobytes() for feeds in part.batches(8) for picture in feeds["x"]} for part in tune.call_args.args[2:4]
    )
    unseen = {picture.tobytes() for feeds in context.holdout.batches(8) for picture in feeds["x"]}
    assert len(held) == count // 5
    assert unseen <= held
    assert not fit & held


def test_a_damaged_model_comes_back() -> None:
    model = net()
    found = tuned(damaged(model), model, length="12x").tuning
    assert found.gained and found.after < 0.5 * found.before
    assert found.curve[0].seconds == 0 and [p.samples for p in found.curve] == sorted(p.samples for p in found.curve)
    assert found.curve[-1].samples >= 12 * found.samples - 32
    assert {stage.name for stage in found.stages} == {"original", "before", "tuned"}


def test_nothing_but_weights_changes() -> None:
    model = net()
    student = damaged(model)
    after = tuned(student, model).model
    blank = [
        with_constants(m, {n: np.zeros_like(a) for n, a in view(m).constants.items() if a.dtype == np.float32})
        for m in (student, after)
    ]
    assert blank[0].SerializeToString(deterministic=True) == blank[1].SerializeToString(deterministic=True)
    assert student.SerializeToString(deterministic=True) == damaged(model).SerializeToString(deterministic=True)


def test_same_inputs_same_bytes_and_another_seed_others() -> None:
    model = net()
    first, again, other = (
        tuned(damaged(model), model, seed=seed).model.SerializeToString(deterministic=True) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_where_nothing_is_to_be_gained_the_weights_stay() -> None:
    model = net()
    found = tuned(model, model)
    assert not found.tuning.gained
    assert found.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert any("gained nothing on the held-out" in note for note in found.tuning.notes)


def test_too_few_held_out_samples_are_told() -> None:
    model = net()
    found = tuned(damaged(model), model, pictures(10))
    assert not found.tuning.gained and any("too few" in note for note in found.tuning.notes)
    with pytest.raises(DataError, match="more than one"):
        tuned(damaged(model), model, pictures(1))


def lp(wide_before: bool) -> onnx.ModelProto:
    """With an operator that tuning knows nothing of, most weights before it or after it."""
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    width = 16 if wide_before else 4
    y = s.conv(s.op("Relu", s.conv(x, 3, width, 3)), width, 6, 3, name="last")
    y = s.op("Flatten", s.op("GlobalLpPool", y, name="odd"))
    inner = 3 if wide_before else 64
    y = s.op("Relu", s.op("Gemm", y, s.weight(6, inner, name="wide"), s.weight(inner)))
    s.output(s.op("Gemm", y, s.weight(inner, 4), s.weight(4)), ["n", 4])
    return s.model()


@pytest.mark.parametrize("before", [True, False])
def test_an_operator_without_entry_is_named_and_the_larger_part_is_tuned(before: bool) -> None:
    model = lp(before)
    student = damaged(model)
    found = tuned(student, model, length="10x")
    told = " ".join(found.tuning.notes)
    assert "GlobalLpPool 'odd'" in told and ("before it" if before else "after it") in told
    assert found.tuning.gained and found.tuning.after < 0.8 * found.tuning.before
    changed = {n for n, a in view(found.model).constants.items() if not np.array_equal(a, view(student).constants[n])}
    convolutions = {i for node in found.model.graph.node if node.op_type == "Conv" for i in node.input[1:]}
    assert changed and (changed <= convolutions if before else not changed & convolutions)


def test_all_weights_before_an_operator_without_entry_are_called_all() -> None:
    s = Sketch()
    y = s.conv(s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 16, 3)), 16, 6, 3)
    s.output(s.op("GlobalLpPool", y, name="odd"), ["n", 6, 1, 1])
    [told] = [note for note in tuned(damaged(s.model()), s.model()).tuning.notes if "odd" in note]
    assert told.endswith("all 4 weights lie before it and are tuned")


def test_where_no_output_can_be_compared_a_cut_model_is_tuned_by_hidden_values() -> None:
    """In front of an operator without gradient, where the cut model has fewer channels."""
    model = lp(True)
    small = damaged(without_last_channel(model))
    found = tuned(small, model, length="10x").tuning
    assert found.gained and found.after < 0.8 * found.before


def without_last_channel(model: onnx.ModelProto) -> onnx.ModelProto:
    """The net of :func:`lp` with one channel less before the operator that tuning does not know."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    last = next(node for node in found.graph.node if node.name == "last")
    axes = {last.input[1]: 0, last.input[2]: 0, "wide": 0}
    for tensor in found.graph.initializer:
        if tensor.name in axes:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array[:-1].copy(), tensor.name))
    return found


def test_nothing_that_can_be_tuned_is_one_line() -> None:
    s = Sketch()
    s.output(s.op("GlobalLpPool", s.input("x", ["n", 3, 8, 8]), name="odd"), ["n", 3, 1, 1])
    with pytest.raises(ModelError, match="nothing can be tuned: torch cannot compute GlobalLpPool 'odd'"):
        tuned(s.model(), s.model())
    s = Sketch()
    s.output(s.op("Relu", s.input("x", ["n", 3, 8, 8])), ["n", 3, 8, 8])
    with pytest.raises(ModelError, match="no floating-point weight"):
        tuned(s.model(), s.model())


def detector() -> onnx.ModelProto:
    """Boxes and scores, and behind them a suppression that lists as many as it likes."""
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    y = s.op("Relu", s.conv(x, 3, 8, 3))
    boxes = s.op("Reshape", s.conv(y, 8, 4, 1, name="boxes"), s.array([1, 4, 64]))
    scores = s.op("Sigmoid", s.op("Reshape", s.conv(y, 8, 2, 1, name="scores"), s.array([1, 2, 64])))
    boxes = s.op("Transpose", boxes, attrs={"perm": [0, 2, 1]})
    limits = [s.array(5), s.array(0.5, np.float32), s.array(0.5, np.float32)]
    s.output(s.op("NonMaxSuppression", boxes, scores, *limits), [None, 3], onnx.TensorProto.INT64)
    return s.model()


def test_behind_a_choice_nothing_is_compared_but_what_is_chosen_by() -> None:
    model = detector()
    found = tuned(damaged(model), model, {"x": pictures(40)["x"]}, length="20x")
    assert found.tuning.gained and found.tuning.after < 0.7 * found.tuning.before


def test_half_precision_is_rounded_at_the_end() -> None:
    s = Sketch(dtype=onnx.TensorProto.FLOAT16)
    x = s.input("x", ["n", 12])
    y = s.op("Relu", s.op("MatMul", x, s.weight(12, 16)))
    s.output(s.op("MatMul", y, s.weight(16, 6)), ["n", 6])
    model = s.model()
    wide = dict(view(model).constants.items())
    noise = np.random.default_rng(1)
    student = with_constants(
        model, {n: a + (0.05 * noise.standard_normal(a.shape)).astype(np.float16) for n, a in wide.items()}
    )
    data = {"x": np.random.default_rng(0).standard_normal((64, 12)).astype(np.float16)}
    found = tuned(student, model, data, length="60x")
    assert found.tuning.gained
    assert {a.dtype for a in view(found.model).constants.values()} == {np.dtype(np.float16)}


def test_a_cut_model_is_matched_by_its_channels() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.standard_normal((20, 7, 4, 4)).astype(np.float32)
    kept = [0, 2, 3, 6]
    mine = theirs[:, kept] + 0.1 * generator.standard_normal((20, 4, 4, 4)).astype(np.float32)
    found = matched("y", mine, theirs)
    assert found is not None and found.theirs.tolist() == kept and found.mine.tolist() == [0, 1, 2, 3]
    other = generator.standard_normal((20, 2, 4, 4)).astype(np.float32)
    assert matched("y", other, theirs) is None


@pytest.mark.parametrize("cut", [[0, 1, 2, 3, 4, 5, 6], [0, 2, 3, 6]])
def test_a_channel_that_differs_by_more_than_it_varies_teaches_nothing(cut: list[int]) -> None:
    """A channel that hardly varies in the original would outweigh all others."""
    generator = np.random.default_rng(0)
    theirs = generator.standard_normal((20, 7, 4, 4)).astype(np.float32)
    theirs[:, 2] *= 1e-4
    mine = theirs[:, cut] + 0.1 * generator.standard_normal((20, len(cut), 4, 4)).astype(np.float32)
    mine[:, cut.index(2)] = 1000 * theirs[:, 2]
    found = matched("y", mine, theirs)
    assert found is not None and found.theirs.tolist() == [k for k in cut if k != 2]
    assert [cut[k] for k in found.mine] == found.theirs.tolist()
    error = hidden_error(found, torch.tensor(mine), torch.tensor(theirs), 20)
    assert float(error.mean()) == pytest.approx(0.01, rel=0.2)


def test_values_that_differ_in_all_channels_teach_nothing() -> None:
    theirs = np.random.default_rng(0).standard_normal((20, 7, 4, 4)).astype(np.float32)
    assert matched("y", 3 * theirs, theirs) is None
    assert matched("y", 3 * theirs[:, :4], theirs) is None


def test_values_of_other_shapes_are_not_compared() -> None:
    theirs = np.zeros((20, 7, 4, 4), np.float32)
    assert matched("y", theirs[:, :, :2], theirs[:, :3]) is None


def test_pruning_with_tuning_tells_every_stage(tmp_path: Path) -> None:
    result = onnxprune.prune(net(), pictures(), macs=0.6, tune="6x", effort="fast", round_to=1, threads=1, refit="none")
    told = result.report.tuning
    assert [stage.name for stage in told.stages] == ["original", "cut", "refitted", "tuned"]
    assert told.gained and result.report.drop == told.stages[-1].drop
    assert "tune" in result.report.seconds and result.report.verify.passed
    assert result.report.macs.ratio <= 0.6


# -- what is measured -------------------------------------------------------------------------------------------


def test_every_kind_of_output_is_told_apart() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((16, 5)).astype(np.float32)
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    boxes = np.concatenate([100 * generator.random((16, 4, 9)), generator.random((16, 3, 9))], 1).astype(np.float32)
    assert [t.kind for t in output_terms(["y"], {"y": logits}, [])] == ["logits"]
    assert [t.kind for t in output_terms(["y"], {"y": rows}, [])] == ["probabilities"]
    assert [t.kind for t in output_terms(["y"], {"y": boxes}, ["y"])] == ["answers", "values"]
    assert [t.kind for t in output_terms(["y"], {"y": boxes}, [])] == ["values"]


@pytest.mark.parametrize("kind", ["logits", "probabilities", "boxes"])
def test_the_error_is_zero_at_the_original_and_grows(kind: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((16, 5)).astype(np.float32)
    if kind == "probabilities":
        values = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    if kind == "boxes":
        values = np.concatenate([90 * generator.random((16, 4, 9)), generator.random((16, 3, 9))], 1).astype(np.float32)
    terms = output_terms(["y"], {"y": values}, ["y"])
    right = torch.as_tensor(values)
    errors = []
    for noise in (0.0, 0.1, 0.3):
        wrong = right * (1 - noise) + noise * right.flip(0)
        errors.append(output_error(terms, {"y": wrong}, {"y": right}, 16))
    assert errors[0].shape == (16,) and float(errors[0].abs().max()) < 1e-5
    assert float(errors[0].mean()) < float(errors[1].mean()) < float(errors[2].mean())


def test_a_channel_counts_in_its_own_scale_and_a_kind_as_much_as_another() -> None:
    generator = np.random.default_rng(1)
    scale = np.asarray([1000, 1, 0.01, 10], np.float32)[:, None]
    values = (generator.standard_normal((32, 4, 6)) * scale).astype(np.float32)
    terms, right = output_terms(["y"], {"y": values}, ["y"]), torch.as_tensor(values)
    alone = []
    for channel in range(4):
        wrong = right.clone()
        wrong[:, channel] = 0
        alone.append(float(output_error(terms, {"y": wrong}, {"y": right}, 32).mean()))
    assert max(alone) < 1.3 * min(alone)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 6, 5), (4, 5, 3, 3), (8, 5, 3)])
@pytest.mark.parametrize("kept", [None, [0, 2, 3], [0, 1, 2, 3, 4]])
def test_hidden_errors_and_their_gradients_are_those_of_the_formula(shape, kept) -> None:
    axis = shape.index(5)
    torch.manual_seed(0)
    theirs = torch.randn(shape, dtype=torch.float64)
    places = None if kept is None else np.asarray(kept)
    scale = np.linspace(0.5, 2, 5 if kept is None else len(kept))
    hidden = HiddenValue("y", axis, places, places, scale)

    def plainly(x):
        a, b = (v if kept is None else v.index_select(axis, torch.as_tensor(kept)) for v in (x, theirs))
        unit = torch.as_tensor(scale).reshape([-1 if k == axis else 1 for k in range(a.dim())])
        return ((a - b) / unit).square().reshape(4, -1).mean(1)

    for size in (0.3, 3.0):
        mine = (theirs + size * torch.randn(shape, dtype=torch.float64)).requires_grad_()
        got, plain = hidden_error(hidden, mine, theirs, 4), plainly(mine)
        wanted = torch.where(plain > 1, 1 + plain.log(), plain)
        assert (plain > 1).any() == (size > 1) and torch.allclose(got, wanted)
        share = torch.arange(1.0, 5, dtype=torch.float64)
        gradients = [torch.autograd.grad(f @ share, mine)[0] for f in (got, wanted)]
        assert torch.allclose(*gradients)


def test_scores_that_differ_by_rounding_alone_are_equal() -> None:
    values = 1e-14 * np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32)
    [term] = output_terms(["y"], {"y": values}, [])
    assert term.kind == "logits" and float(term.of(-torch.as_tensor(values), torch.as_tensor(values), 16).max()) < 1e-12


def test_a_box_counts_where_something_is() -> None:
    values = np.random.default_rng(0).random((16, 5, 50)).astype(np.float32)
    values[:, :4] *= 100
    values[:, 4] = 0.01
    values[:, 4, 7] = 0.9
    terms, right = output_terms(["y"], {"y": values}, ["y"]), torch.as_tensor(values)

    def moved(place: int) -> float:
        wrong = right.clone()
        wrong[:, :4, place] += 20
        return float(output_error(terms, {"y": wrong}, {"y": right}, 16).mean())

    assert moved(7) > 10 * moved(8)


def test_infinities_that_mask_values_have_no_error_and_no_gradient() -> None:
    """A mask writes -inf where nothing is; one model may mask where the other does not."""
    values = np.random.default_rng(0).standard_normal((8, 5, 20)).astype(np.float32)
    values[:, 1, ::3] = -np.inf
    [term] = output_terms(["y"], {"y": values}, [])
    right = torch.as_tensor(values)
    tuned = (right + 0.1).clone()
    tuned[:, 2, 0] = -np.inf
    tuned.requires_grad_()
    errors = term.of(tuned, right, 8)
    [gradient] = torch.autograd.grad(errors.sum(), tuned)
    assert torch.isfinite(errors).all() and (errors > 0).all() and torch.isfinite(gradient).all()
    assert not gradient[:, 1, ::3].any() and not gradient[:, 2, 0].any() and gradient[:, 0].all()
    assert not term.of(right, right, 8).any()


def test_a_start_without_a_finite_error_is_one_line(monkeypatch) -> None:
    look = tune_module.HeldOut.look

    def lost(self, weights):
        errors, same = look(self, weights)
        errors[:3] = np.nan
        return errors, same

    monkeypatch.setattr(tune_module.HeldOut, "look", lost)
    model = net()
    with pytest.raises(ModelError, match=r"the error on 3 of \d+ held-out samples is infinite or not a number"):
        tuned(damaged(model), model)


def test_chance() -> None:
    generator = np.random.default_rng(0)
    base = generator.random(64)
    assert better(base - 0.1, base) and not better(base, base - 0.1)
    assert not better(base + 0.001 * generator.standard_normal(64), base)
    assert not better(base[:4] - 1, base[:4]) and not better(np.full(64, np.nan), base)


def test_a_lower_error_is_kept_and_told_to_be_chance_where_it_may_be() -> None:
    generator = np.random.default_rng(0)
    base = generator.exponential(size=64)
    likely = base - 0.01 + 0.2 * generator.standard_normal(64)
    assert lower(likely, base) and not better(likely, base) and not better(base, likely)
    assert not lower(base, likely) and not lower(base, base) and not lower(base[:4] - 1, base[:4])
    assert not lower(np.full(64, np.nan), base) and lower(base, np.full(64, np.nan))
    model = net()
    with mock.patch.object(tune_module, "better", lambda first, second: False):
        found = tuned(damaged(model), model, length="8x")
    told = found.tuning
    assert told.after < told.before and not told.gained and "may be chance" in told.notes[-1]
    assert found.model != damaged(model) and wording.gain(told).endswith("which may be chance")


def test_a_refitted_model_takes_careful_steps_and_a_damaged_one_fast_steps() -> None:
    assert [careful(steps, 32) for steps in (1, 1e9)] == [SLOWEST, FASTEST]
    assert careful(100, 32) < careful(400, 32) < careful(1600, 32)
    model = net()
    near, far = paced(model, model), paced(damaged(model, 1.0), model)
    assert near.fast is None and near.schedule(400).full == careful(400, near.batch)
    assert far.fast in {scaled(fast, far.batch) for fast in FAST}
    assert far.later().schedule(400).full == careful(400, far.batch)


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_the_same_samples_in_smaller_batches_take_smaller_steps(batch: int) -> None:
    """As much noise in all: the rate times the square root of the steps, each with noise like 1 / sqrt(batch)."""
    whole = careful(400, 32)
    assert careful(400 * 32 / batch, batch) == pytest.approx(whole * math.sqrt(batch / 32))


@pytest.mark.parametrize(
    ("errors", "share"), [([9, 9, 4], 1.0), ([9, 9, 9, 2], 0.25), ([9, 9, np.nan, 2], 0.25), ([9, 9, 9, 9, 9], 0.06)]
)
def test_a_rate_that_spoils_the_start_is_eased(errors: list[float], share: float) -> None:
    """Outputs that hardly differ between samples have large relative errors after any step."""
    model = net()
    with mock.patch.object(pace_module._Trials, "error", side_effect=[1.0, *errors]):
        found = paced(damaged(model), model)
    assert found.fast is None and found.schedule(400).full == found.later().schedule(400).full
    assert found.schedule(400).full == share * careful(400, found.batch)


@pytest.mark.parametrize(("growth", "fast", "eased"), [(0.9, True, 1.0), (1.5, False, 1.0), (3.0, False, min(pace_module.EASED))])
def test_a_rate_at_which_the_training_loss_rises_is_not_taken(growth: float, fast: bool, eased: float) -> None:
    """Though the outputs improve, hidden values may run away: by 100 times in a transformer with tiny layer scales."""
    model, starts, real = net(), list[torch.Tensor](), pace_module.one_step

    def growing(setting, rows, generator):
        weights = torch.cat([w.detach().reshape(-1) for w in setting.pair.function.parameters.values()])
        starts.append(weights)
        real(setting, rows, generator)
        return 1.0 if torch.equal(weights, starts[0]) else growth

    with mock.patch.object(pace_module, "one_step", side_effect=growing):
        found = paced(damaged(model, 1.0), model)
    assert (found.fast is not None) == fast and found.eased == eased


def paced(student: onnx.ModelProto, teacher: onnx.ModelProto):
    with mock.patch("onnxprune.tuning.tune.pace", side_effect=pace) as asked:
        found = []
        asked.side_effect = lambda *given: found.append(pace(*given)) or found[-1]
        tuned(student, teacher, length="2x")
    return found[0]


def test_the_time_starts_with_the_preparation_and_includes_the_last_look(monkeypatch) -> None:
    """By a clock that only the preparation and each look move on."""
    clock, cycles = [0.0], []

    def later(function, seconds):
        def slow(*given):
            clock[0] += seconds
            return function(*given)

        return slow

    def cycle(setting, start, clock, *rest):
        cycles.append(clock.seconds)
        return start

    monkeypatch.setattr(tune_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(tune_module, "pair", later(tune_module.pair, 20.0))
    monkeypatch.setattr(tune_module, "initial", later(tune_module.initial, 5.0))
    monkeypatch.setattr(tune_module, "cycle", cycle)
    model = net()
    tuned(damaged(model), model, length="60s")
    tuned(damaged(model), model, length="22s")
    assert cycles == [60 - 20 - 5 - 5, 1.0]


@pytest.mark.parametrize(("gains", "turns"), [([0.9, 0.8, 0.7], 3), ([0.9, 0.95], 2), ([1.1], 1)])
def test_without_a_length_it_goes_on_while_held_out_samples_gain(gains, turns, monkeypatch) -> None:
    """Each turn from where the last one ended; a turn that gains nothing is undone."""
    begun, left, first = [], list(gains), []
    initial = tune_module.initial

    def cycle(setting, start, clock, *rest):
        begun.append((float(start.errors.mean()), clock.seconds))
        return replace(start, errors=first[0].errors * left.pop(0))

    monkeypatch.setattr(tune_module, "initial", lambda setting: first.append(initial(setting)) or first[0])
    monkeypatch.setattr(tune_module, "cycle", cycle)
    model = net()
    found = tuned(damaged(model), model, length="auto").tuning
    whole = float(first[0].errors.mean())
    assert len(begun) == turns and not left
    assert [start for start, _ in begun] == pytest.approx([whole * share for share in [1.0, *gains][:turns]])
    assert [seconds for _, seconds in begun] == sorted(seconds for _, seconds in begun)
    assert found.after == pytest.approx(whole * min([1.0, *gains]))


@pytest.mark.parametrize(("valley", "share"), [(0.45, 0.5), (0.2, 0.25), (0.1, 0.125), (0.0, 0.0), (-0.3, 0.0)])
def test_weights_that_end_worse_go_part_of_the_way(valley: float, share: float, monkeypatch) -> None:
    def look(setting, weights):
        return loop_module.State(weights, (weights["w"].double().numpy() - valley) ** 2 + 1, None)

    monkeypatch.setattr(loop_module, "_look", look)
    start = look(None, {"w": torch.zeros(3)})
    found = loop_module._part_way(None, start, {"w": torch.ones(3)})
    assert torch.equal(found.weights["w"], torch.full((3,), share))
    assert (found is start) == (share == 0.0)


def test_a_run_that_ends_worse_gives_weights_between(monkeypatch) -> None:
    """The error is lowest after a quarter of the way that the run went; the curve ends there."""
    looked: list[dict] = []

    def look(setting, weights):
        looked.append(weights)
        first = torch.cat([w.flatten() for w in looked[0].values()])
        far = float((torch.cat([w.flatten() for w in weights.values()]) - first).norm())
        ways.append(far)
        return loop_module.State(weights, np.full(19, (far / (max(ways) or 1.0) - 0.25) ** 2 + 1), None)

    ways: list[float] = []
    monkeypatch.setattr(loop_module, "_look", look)
    model = net()
    found = tuned(damaged(model), model, length="8x").tuning
    assert found.before == pytest.approx(1 + 0.25**2) and found.after == found.curve[-1].held == pytest.approx(1)
    assert found.curve[-2].samples == found.curve[-1].samples


def test_a_tuning_without_length_ends(monkeypatch) -> None:
    monkeypatch.setattr(tune_module, "LONGEST", 6.0)
    model = net()
    found = tuned(damaged(model), model, length="auto").tuning
    assert found.after < found.before and len(found.curve) > 2


def test_the_original_answers_held_out_samples_once() -> None:
    model, asked = net(), []
    runtime = pair_module.original_answers

    def counted(original, names, *rest):
        answers = runtime(original, names, *rest)
        return lambda feeds: asked.append(tuple(names)) or answers(feeds)

    with mock.patch.object(pair_module, "original_answers", counted):
        found = tuned(damaged(model), model, length="4x").tuning
    judged = min(set(asked), key=len)
    # 19 held-out samples are one batch; the trials of the rate ask for two, three times at most.
    assert len(found.curve) > 5 and asked.count(judged) <= 1 + 3 * 2


def test_every_sample_comes_once_per_pass_and_rates_follow_a_cosine() -> None:
    rows = endless(10, 4, np.random.default_rng(0))
    first = [row for _ in range(5) for row in next(rows)]
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    for steps, top in ((10_000, 1), (80, 2), (2, 8)):
        rates = [Schedule(0.01, steps).rate(share / 20) for share in range(21)]
        assert rates[0] == 0 and rates[-1] < 1e-9 and max(rates) == rates[top]
        assert max(rates) == pytest.approx(0.01)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_biases_of_zero_move_by_the_size_of_the_values_they_are_added_to(size: float) -> None:
    """A fixed step would drown the values of a network with small activations."""
    model = net()
    weights = {n: a for n, a in view(model).constants.items() if a.dtype == np.float32}
    zero = [n.inputs[2] for n in view(model).nodes if n.op in ("Conv", "Gemm")]
    first = next(n.inputs[1] for n in view(model).nodes if n.op == "Conv")
    model = with_constants(model, {**{n: np.zeros_like(weights[n]) for n in zero}, first: size * weights[first]})
    samples = Samples(open_dataset(pictures(8), specs_for(load(model), None, Options()), None, 8, 0))
    both = pair_module.pair(model, model, samples, Engine(threads=1), torch.device("cpu"))
    parameters = both.function.parameters
    optimizer = both.optimizer()
    for weight in optimizer.weights:
        weight.grad = torch.ones_like(weight)
    optimizer.move(0.01)
    for name in zero:
        assert 0 < float(parameters[name].detach().abs().max()) <= 0.01 * SMALLEST * both.effects[name]


def test_statistics_stay_where_a_bias_shares_them() -> None:
    """Exporters merge equal constants: the mean of a normalization that was never trained is its bias."""
    s = Sketch()
    y = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 8, 3)
    zeros, ones = s.keep("zeros", np.zeros(8, np.float32)), s.keep("ones", np.ones(8, np.float32))
    y = s.op("Relu", s.op("BatchNormalization", y, ones, zeros, zeros, ones))
    s.output(s.op("Flatten", s.op("GlobalAveragePool", y)), ["n", 8])
    model = s.model()
    student = damaged(model)
    found = tuned(student, model, length="8x")
    assert found.tuning.gained and not any("torch cannot" in note for note in found.tuning.notes)
    after, before = view(found.model).constants, view(student).constants
    assert all(np.array_equal(after[n], before[n]) for n in (zeros, ones))


@pytest.mark.parametrize("text", ["", "10", "x", "0x", "ten", "-5m", "10 min"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="give a time such as"):
        parse_length(text)


# -- the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    teacher, student, data = tmp_path / "net.onnx", tmp_path / "small.onnx", tmp_path / "calib.npz"
    onnx.save(net(), teacher)
    onnx.save(damaged(net()), student)
    np.savez(data, **pictures())
    return teacher, student, data


def command(files: tuple[Path, Path, Path], *more: str) -> list[str]:
    teacher, student, data = files
    return ["tune", str(student), "--teacher", str(teacher), "--data", str(data), "--threads", "1", *more]


def test_the_report_of_a_tuning_draws_its_curve(files, tmp_path: Path, capsys) -> None:
    page = tmp_path / "tuned.html"
    assert main(command(files, "--for", "2x", "--report", str(page))) == 0
    out = capsys.readouterr().out
    text = page.read_text()
    assert str(page) in out and "<polyline" in text and "--for 2x" in text and "<script" not in text
    assert all(f"<td>{stage}</td>" in text for stage in ("original", "before", "tuned"))
    shown = onnxprune.tune(files[1], files[0], files[2], length="1x", threads=1)
    assert "polyline" in shown._repr_html_() and repr(shown).startswith("<onnxprune.Tuned ")
    assert main(command(files, "--for", "1x", "--report", str(tmp_path / "tuned.pdf"))) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("report", ["page.html", "/dev/full"])
def test_what_cannot_be_written_is_told_after_the_rest(files, tmp_path: Path, report: str) -> None:
    """Neither a lost stdout nor a lost report costs the model, and the error names it."""
    asked = command(files, "--for", "1x", "--quiet", "--report", str(tmp_path / report))
    with open("/dev/full" if report == "page.html" else os.devnull, "w") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "onnxprune", *asked], stdout=sink, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    if report == "page.html":
        assert f"(the model itself is in {files[1].with_name('small.tuned.onnx')})" in done.stderr
        assert "<polyline" in (tmp_path / report).read_text()


def test_the_command_writes_a_model_and_tells_in_json(files, capsys) -> None:
    assert main(command(files, "--for", "6x", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gained"] and told["held_out_error"]["after"] < told["held_out_error"]["before"]
    assert all(0 <= point["same_top1"] <= 1 for point in told["curve"])
    assert told["curve"][0]["loss"] is None and told["output"] == str(files[1].with_name("small.tuned.onnx"))
    written = onnx.load(told["output"])
    onnx.checker.check_model(written)
    feeds = {"x": pictures()["x"][:4]}
    before, after = (np.abs(run(m, feeds)[0] - run(net(), feeds)[0]).mean() for m in (onnx.load(files[1]), written))
    assert after < before


def test_prune_with_a_bare_switch_or_a_length(files, capsys) -> None:
    teacher, _, data = files
    line = [str(teacher), "--data", str(data), "--macs", "0.7", "--effort", "fast", "--round", "1", "--threads", "1"]
    assert main([*line, "--tune", "2x", "--augment", "none", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "refitted" in out and "tuned" in out and "passes over" in out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--for", "10"), "give a time such as"),
        (("--augment", "mirrors"), "did you mean 'mirror'"),
        (("--device", "gpu"), "unknown value 'gpu'"),
        (("--device", "cuda"), "torch sees no GPU"),
    ],
)
def test_refusals_are_one_line_before_anything_is_pruned(files, tmp_path, capsys, more, told) -> None:
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("a GPU is there")
    assert main(command(files, *more)) == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert told in complaint[-1] and not files[1].with_name("small.tuned.onnx").exists()
    more = [{"--for": "--tune"}.get(word, word) for word in more]
    more = more if "--tune" in more else ["--tune", "1x", *more]
    assert main([str(files[0]), "--data", str(files[2]), *more, "-o", str(tmp_path / "small.tuned.onnx")]) == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert told in complaint[-1] and not files[1].with_name("small.tuned.onnx").exists()


def test_without_torch_one_line_says_what_to_install_before_anything_runs(files, capsys, monkeypatch) -> None:
    monkeypatch.setattr("onnxprune.tuning.need.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torch")
    for line in (command(files), [str(files[0]), "--tune", "1x", "--data", "nothing.npz"]):
        assert main(line) == 2
        assert capsys.readouterr().err.strip().endswith("pip install 'onnxprune[tune]'")


def test_the_core_never_loads_torch() -> None:
    code = "import sys, onnxprune.api, onnxprune.cli, onnxprune.pipeline.tuned; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Interrupter(Silent):
    """Presses Ctrl-C as soon as a step was made."""

    def __init__(self, times: int) -> None:
        self.left = times

    def advance(self, steps: int = 1) -> None:
        for _ in range(self.left):
            os.kill(os.getpid(), signal.SIGINT)
        self.left = 0


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_one_interrupt_keeps_the_best_and_a_second_ends_the_run() -> None:
    model = net()
    found = tuned(damaged(model), model, length="500x", progress=Interrupter(1)).tuning
    assert found.curve[-1].samples < 100 * found.samples
    with pytest.raises(KeyboardInterrupt):
        tuned(damaged(model), model, length="500x", progress=Interrupter(2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_is_killed_while_it_tunes_leaves_the_refitted_model(files, tmp_path: Path) -> None:
    teacher, _, data = files
    output = tmp_path / "out" / "net.onnx"
    output.parent.mkdir()
    line = [sys.executable, "-m", "onnxprune", str(teacher), "--data", str(data), "--macs", "0.7", "--effort", "fast"]
    running = subprocess.Popen([*line, "--round", "1", "--threads", "1", "--tune", "2h", "-q", "-o", str(output)])
    try:
        while running.poll() is None and not output.exists():
            time.sleep(0.05)
        assert running.poll() is None, "the model is not there before the tuning ends"
    finally:
        running.kill()
        running.wait()
    assert [path.name for path in output.parent.iterdir()] == ["net.onnx"]
    left = onnx.load(output)
    onnx.checker.check_model(left)
    assert sum(a.size for a in view(left).constants.values()) < sum(a.size for a in view(net()).constants.values())
    # It can go on from there.
    again = main(["tune", str(output), "--teacher", str(teacher), "--data", str(data), "--for", "1x", "-q"])
    assert again == 0 and output.with_name("net.tuned.onnx").exists()


def test_a_model_of_which_nothing_can_be_tuned_is_pruned_all_the_same(tmp_path: Path, monkeypatch) -> None:
    from onnxprune.pipeline import tuned as stage

    def hopeless(*given):
        raise ModelError("nothing can be tuned: torch cannot compute Odd 'odd'")

    monkeypatch.setattr(stage, "_tune", hopeless)
    found = onnxprune.prune(net(), pictures(), macs=0.7, tune="1x", effort="fast", round_to=1, threads=1)
    assert found.report.tuning is None and found.report.macs.ratio <= 0.7
    assert any("Odd 'odd'; the model stays" in note for note in found.report.notes)


def test_a_tuned_model_that_is_not_sound_leaves_the_refitted_one(files, tmp_path: Path, monkeypatch, capsys) -> None:
    from onnxprune.pipeline import tuned as stage

    def unsound(*given):
        return replace(soundness(*given), onnxruntime=False, complaints=("outputs that are not finite",))

    soundness = stage.soundness
    monkeypatch.setattr(stage, "soundness", unsound)
    teacher, student, data = files
    output = tmp_path / "small.onnx"
    line = [str(teacher), "--data", str(data), "--macs", "0.7", "--effort", "fast", "--round", "1", "--threads", "1"]
    assert main([*line, "--tune", "1x", "--json", "-o", str(output)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tuning"] is None and any("outputs that are not finite; the model stays" in n for n in told["notes"])
    onnx.checker.check_model(onnx.load(output))
    # On its own there is nothing to fall back on.
    assert main(command(files, "--for", "1x")) == 1
    assert "outputs that are not finite" in capsys.readouterr().err
    assert not student.with_name("small.tuned.onnx").exists()


def test_two_processes_give_what_one_gives_to_rounding(files, tmp_path: Path) -> None:
    outputs = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "onnxprune",
    ]
    for start, output in zip(([sys.executable, "-m", "onnxprune"], launch), outputs, strict=True):
        line = [*start, *command(files, "--for", "2x", "-q", "-o", str(output))]
        done = subprocess.run(line, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (view(onnx.load(path)).constants for path in outputs)
    for name in one:
        assert np.allclose(one[name], two[name], rtol=1e-3, atol=1e-4), name


def test_the_report_draws_the_curve_and_every_stage() -> None:
    from onnxprune.report.html import render

    result = onnxprune.prune(net(), pictures(), macs=0.7, tune="1x", effort="fast", round_to=1, threads=1)
    page = render(result.report, None)
    assert "<h2>Tuning</h2>" in page and "refitted" in page
    assert page.count("loss and held-out error over the time of tuning") == 2
    assert page.count("samples seen, same top-1 for ") == 2 * len(result.report.tuning.curve)
