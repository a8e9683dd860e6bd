"""Bodies that no sample runs stay whole; bodies that some sample runs are cut as before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from graphs import Sketch, run
from onnx import TensorProto

import onnxprune
from onnxprune.errors import BudgetError

SIZE = 8


def branch(seed: int, width: int) -> onnx.GraphProto:
    s = Sketch(seed=seed, prefix=f"b{seed}_")
    s.output(s.conv(s.op("Relu", s.conv("x", 3, width, 3, name=f"in{seed}")), width, 4, name=f"out{seed}"), ["n", 4, SIZE, SIZE])
    return s.graph(f"branch{seed}")


def either(outside: bool, computed: bool) -> onnx.ModelProto:
    """An If; ``outside``: more layers after it; ``computed``: its condition depends on the picture."""
    s = Sketch()
    x = s.input("x", ["n", 3, SIZE, SIZE])
    if computed:
        flag = s.op("Greater", s.op("ReduceMean", x, attrs={"keepdims": 0}), s.keep("zero", np.zeros((), np.float32)))
    else:
        flag = s.input("flag", [], TensorProto.BOOL)
    y = s.op("If", flag, attrs={"then_branch": branch(1, 16), "else_branch": branch(2, 16)}, name="which")
    if outside:
        y = s.conv(s.op("Relu", s.conv(y, 4, 16, 3, name="after")), 16, 4, name="last")
    s.output(y, ["n", 4, SIZE, SIZE])
    return s.model()


def repeated(turns: int) -> onnx.ModelProto:
    b = Sketch(seed=9, prefix="b_")
    b.input("i", [], TensorProto.INT64)
    b.input("go", [], TensorProto.BOOL)
    state = b.input("state", ["n", 6])
    y = b.op("MatMul", b.op("Relu", b.op("MatMul", state, b.weight(6, 16), name="up")), b.weight(16, 6), name="down")
    b.output(b.op("Identity", "go"), [], TensorProto.BOOL)
    b.output(y, ["n", 6])
    s = Sketch()
    x = s.op("MatMul", s.op("Relu", s.op("MatMul", s.input("x", ["n", 6]), s.weight(6, 16), name="first")), s.weight(16, 6))
    s.output(s.op("Loop", s.array(turns), "", x, attrs={"body": b.graph("body")}, name="again"), ["n", 6])
    return s.model()


def pictures(signs: tuple[int, ...], flag: bool) -> Iterator[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    for k in range(24):
        sign = signs[k % len(signs)]
        x = (generator.standard_normal((1, 3, SIZE, SIZE)) * 0.1 + sign).astype(np.float32)
        yield {"x": x} | ({"flag": np.asarray(sign > 0)} if flag else {})


def kept(result: onnxprune.Result) -> dict[str, tuple[int, int]]:
    return {group.name: (group.after, group.before) for group in result.report.groups}


@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize(("signs", "idle"), [((1,), ("in2",)), ((-1,), ("in1",)), ((1, -1), ())])
@pytest.mark.parametrize("outside", [True, False])
def test_a_branch_that_no_sample_takes_stays_whole(
    outside: bool, signs: tuple[int, ...], idle: tuple[str, ...], computed: bool
) -> None:
    model = either(outside, computed)
    result = onnxprune.prune(model, list(pictures(signs, not computed)), macs=0.8, round_to=1, threads=1)
    found = kept(result)
    for name in idle:
        assert name not in found or found[name][0] == found[name][1]
    told = [note for note in result.report.notes if "no sample runs" in note]
    assert [name for name in ("else_branch", "then_branch") if any(name in note for note in told)] == [
        "else_branch" if name == "in2" else "then_branch" for name in idle
    ]
    if idle and not outside:
        # The answers of the other branch are those of the original.
        [feeds] = list(pictures((-signs[0],), not computed))[:1]
        assert np.allclose(run(result.model, feeds)[0], run(model, feeds)[0], atol=1e-5)


@pytest.mark.parametrize("turns", [0, 2])
def test_a_loop_without_iterations_stays_whole(turns: int) -> None:
    data = np.random.default_rng(0).standard_normal((48, 6)).astype(np.float32)
    result = onnxprune.prune(repeated(turns), data, macs=0.75, round_to=1, threads=1)
    assert any("no sample runs the body of Loop" in note for note in result.report.notes) == (turns == 0)


def test_where_nothing_else_can_be_cut_the_error_names_the_branch() -> None:
    s = Sketch()
    s.input("x", ["n", 3, SIZE, SIZE])
    flag = s.input("flag", [], TensorProto.BOOL)
    plain = Sketch(prefix="p_")
    plain.output(plain.op("Slice", "x", plain.array([0]), plain.array([2]), plain.array([1])), ["n", 2, SIZE, SIZE])
    wide = Sketch(seed=3, prefix="w_")
    y = wide.op("Relu", wide.conv("x", 3, 16, 3, name="in3"))
    wide.output(wide.conv(y, 16, 2, name="out3"), ["n", 2, SIZE, SIZE])
    chosen = s.op("If", flag, attrs={"then_branch": plain.graph("p"), "else_branch": wide.graph("w")}, name="which")
    s.output(chosen, ["n", 2, SIZE, SIZE])
    with pytest.raises(BudgetError, match=r"no sample runs the else_branch of If 'which'.*give samples that run it"):
        onnxprune.prune(s.model(), list(pictures((1,), True)), macs=0.8, threads=1)
