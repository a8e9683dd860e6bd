"""The approximate rules: the width of a normalization may be cut, and every report says what that costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch, pruned, random_keep, run

import onnxprune
from onnxprune.cli import main
from onnxprune.coupling.estimates import estimated
from onnxprune.coupling.open import couple
from onnxprune.engine.session import Engine
from onnxprune.errors import PlanError
from onnxprune.plan import Plan
from onnxprune.verify.checks import verify

WIDTH, HIDDEN = 16, 24


def _layer_norm(g: Sketch, x: str) -> str:
    return g.op("LayerNormalization", x, g.weight(WIDTH), g.weight(WIDTH))


def _rms_norm(g: Sketch, x: str) -> str:
    squares = g.op("ReduceMean", g.op("Mul", x, x), attrs={"axes": [-1], "keepdims": 1})
    root = g.op("Sqrt", g.op("Add", squares, g.array(1e-5, np.float32)))
    return g.op("Mul", g.op("Mul", x, g.op("Reciprocal", root)), g.weight(WIDTH))


def _written_out(g: Sketch, x: str) -> str:
    """(x - mean) / sqrt(variance + eps) · γ, as exporters before opset 17 write it."""
    mean = g.op("ReduceMean", x, attrs={"axes": [-1], "keepdims": 1})
    apart = g.op("Sub", x, mean)
    squares = g.op("Pow", apart, g.array(2.0, np.float32))
    variance = g.op("ReduceMean", squares, attrs={"axes": [-1], "keepdims": 1})
    deviation = g.op("Sqrt", g.op("Add", variance, g.array(1e-5, np.float32)))
    return g.op("Mul", g.op("Div", apart, deviation), g.weight(WIDTH))


def _one_group(g: Sketch, x: str) -> str:
    """A GroupNorm of one group, as the TorchScript exporter writes it."""
    flat = g.op("Reshape", x, g.array([0, 1, -1]))
    ones, zeros = g.keep(g.fresh("one"), np.ones(1, np.float32)), g.keep(g.fresh("zero"), np.zeros(1, np.float32))
    normal = g.op("InstanceNormalization", flat, ones, zeros)
    return g.op("Mul", g.op("Reshape", normal, g.op("Shape", x)), g.weight(WIDTH))


def _pooled_gate(g: Sketch, x: str) -> str:
    """A gate made from the largest channel of each place."""
    return g.op("Mul", x, g.op("Sigmoid", g.op("ReduceMax", x, attrs={"axes": [-1], "keepdims": 1})))


NORMS = [_layer_norm, _rms_norm, _written_out, _one_group, _pooled_gate]


def _stream(norm: Callable[[Sketch, str], str]) -> onnx.ModelProto:
    """A residual stream with two normalized blocks, tokens × width."""
    g = Sketch()
    x = g.op("MatMul", g.input("x", [1, 6, 8]), g.weight(8, WIDTH), name="enter")
    for block in range(2):
        hidden = g.op("Relu", g.op("MatMul", norm(g, x), g.weight(WIDTH, HIDDEN), name=f"up{block}"))
        x = g.op("Add", x, g.op("MatMul", hidden, g.weight(HIDDEN, WIDTH), name=f"down{block}"))
    g.output(g.op("MatMul", norm(g, x), g.weight(WIDTH, 5), name="head"), [1, 6, 5])
    return g.model()


@pytest.mark.parametrize("norm", NORMS)
def test_only_the_approximate_rules_cut_the_width_of_a_normalization(norm: Callable[[Sketch, str], str]) -> None:
    model = _stream(norm)
    exact, loose = couple(model, {}, None), couple(model, {}, None, "approximate")
    assert sorted(map(len, exact.groups)) == [HIDDEN, HIDDEN]
    assert sorted(map(len, loose.groups)) == [WIDTH, HIDDEN, HIDDEN]
    assert any("--approximate" in held.reason.remedy for held in exact.held)


@pytest.mark.parametrize("norm", NORMS)
def test_a_cut_of_the_width_computes_the_normalization_of_the_channels_that_stay(
    norm: Callable[[Sketch, str], str],
) -> None:
    model = _stream(norm)
    loose = couple(model, {}, None, "approximate")
    keep = random_keep(loose, 0)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 6, 8)).astype(np.float32)}
    small = pruned(loose, keep)
    onnx.checker.check_model(small, full_check=True)
    [result] = run(small, feeds)
    assert result.shape == (1, 6, 5) and np.isfinite(result).all()
    assert len(estimated(loose, keep)) == (6 if norm is _written_out else 3)
    found = verify(loose, keep, small, (), feeds, Engine(threads=1))
    assert found.passed and found.estimates and found.masked_max_rel_err > 1e-4


def test_a_cut_beside_the_normalizations_is_still_held_to_the_masked_original() -> None:
    model = _stream(_layer_norm)
    loose = couple(model, {}, None, "approximate")
    keep = np.ones(loose.unit_count, dtype=np.bool_)
    for group in loose.groups:
        if len(group) == HIDDEN:
            keep[group.units[:7]] = False
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 6, 8)).astype(np.float32)}
    found = verify(loose, keep, pruned(loose, keep), (), feeds, Engine(threads=1))
    assert not found.estimates and found.passed and found.masked_max_rel_err <= 1e-4


def test_a_plan_of_the_approximate_rules_says_so_and_replays(tmp_path: Path) -> None:
    model = _stream(_layer_norm)
    result = onnxprune.prune(model, macs=0.5, samples=4, rules="approximate", round_to=1, threads=1)
    assert any(cut.before == WIDTH for cut in result.plan.cuts)
    assert result.report.verify.estimates and result.report.settings["rules"] == "approximate"
    read = Plan.from_json(result.plan.to_json())
    assert read == result.plan and read.rules == "approximate"
    again = onnxprune.apply(model, read)
    assert [t.dims for t in again.graph.initializer] == [t.dims for t in result.model.graph.initializer]
    with pytest.raises(PlanError, match="rules"):
        Plan.from_json(result.plan.to_json().replace('"approximate"', '"daring"'))


def test_the_command_line_says_that_masked_equivalence_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(_stream(_layer_norm), path)
    shared = ["--macs", "0.5", "--samples", "4", "--round", "1", "--threads", "1"]
    assert main([str(path), *shared, "--approximate", "-o", str(tmp_path / "small.onnx")]) == 0
    assert "cannot be exact" in " ".join(capsys.readouterr().out.split())
    assert main(["why", str(path), "enter"]) == 0
    assert "--approximate" in capsys.readouterr().out
    assert main(["why", str(path), "enter", "--approximate"]) == 0
    assert f"{WIDTH} of {WIDTH} positions can leave" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMean", "ReduceL2", "ReduceProd"])
@pytest.mark.parametrize("last", ["Conv", "Softmax"])
def test_the_note_counts_what_the_approximate_rules_free(kind: str, last: str) -> None:
    """A gate over channels, behind which a softmax may hold them all the same."""
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 8, 8]), 3, 12, name="enter")
    gate = s.op(kind, x, attrs={"axes": [1], "keepdims": 1})
    x = s.op("Mul", x, s.op("Sigmoid", gate))
    if last == "Softmax":
        x = s.op("Softmax", x, attrs={"axis": 1})
    s.output(s.conv(x, 12, 2, name="leave"), [1, 2, 8, 8])
    exact, loose = onnxprune.inspect(s.model()), onnxprune.inspect(s.model(), rules="approximate")
    freed = sum(g.before for g in loose.groups if not g.locked) - sum(g.before for g in exact.groups if not g.locked)
    told = f"--approximate frees {freed} more channels; {kind} takes a statistic over them"
    assert exact.notes == ((told,) if freed else ()) and not loose.notes
    assert bool(freed) == (last == "Conv" and kind in ("ReduceMax", "ReduceMean"))
