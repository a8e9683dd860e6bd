"""Axes that are products of channels: what is kept of them is a product, and the cut is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, table

import onnxprune
from onnxprune.budget.cost import count_parameters, macs, parameters, sizes, units_kept
from onnxprune.coupling.open import couple
from onnxprune.coupling.why import explain
from onnxprune.surgery.cut import cut

WIDE, THIN = 12, 10


def streams(s: Sketch, count: int) -> list[str]:
    """Vectors of 12 and 10 channels, each made by a layer of its own."""
    made = []
    for k, width in enumerate((WIDE, THIN)[:count]):
        layer = s.op("MatMul", s.input(f"x{k}", [2, 6]), s.weight(6, width), name=f"stream{k}")
        made.append(s.op("Relu", layer))
    return made


def head(s: Sketch, x: str, width: int) -> onnx.ModelProto:
    s.output(s.op("Gemm", x, s.weight(width, 3), name="head"), [2, 3])
    return s.model()


def gram(reading: str) -> onnx.ModelProto:
    """The outer product of a stream with itself, flattened."""
    s = Sketch()
    (x,) = streams(s, 1)
    x = s.op("MatMul", s.op("Unsqueeze", x, s.array([2])), s.op("Unsqueeze", x, s.array([1])))
    x = s.op("Flatten", x) if reading == "Flatten" else s.op("Reshape", x, s.array([2, WIDE * WIDE]))
    if reading == "signed root":
        x = s.op("Mul", s.op("Sign", x), s.op("Sqrt", s.op("Abs", x)))
    return head(s, x, WIDE * WIDE)


def outer(reading: str) -> onnx.ModelProto:
    """The outer product of two streams, flattened."""
    s = Sketch()
    x, z = streams(s, 2)
    y = s.op("Mul", s.op("Unsqueeze", x, s.array([2])), s.op("Unsqueeze", z, s.array([1])))
    y = s.op("Flatten", y) if reading == "Flatten" else s.op("Reshape", y, s.array([0, -1]))
    if reading == "signed root":
        y = s.op("Mul", s.op("Sigmoid", y), s.weight(WIDE * THIN))
    return head(s, y, WIDE * THIN)


def with_maps(_: str) -> onnx.ModelProto:
    """One Reshape joins the two streams, and height and width, which are no channels."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [2, 3, 5, 4]), 3, WIDE, name="stream0"))
    z = s.op("Relu", s.op("MatMul", s.input("z", [2, 6]), s.weight(6, THIN), name="stream1"))
    y = s.op("Mul", s.op("Unsqueeze", x, s.array([2])), s.op("Unsqueeze", z, s.array([1, 3, 4])))
    y = s.op("Reshape", y, s.array([2, WIDE * THIN, -1]))
    return head(s, s.op("ReduceMean", y, attrs={"axes": [2], "keepdims": 0}), WIDE * THIN)


def dynamic_kernel(_: str) -> onnx.ModelProto:
    """A layer makes the flat kernel of a convolution, whose channels other layers make and read."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [1, 3, 6, 6]), 3, WIDE, name="before"))
    flat = s.op("Gemm", s.input("z", [1, 4]), s.weight(4, THIN * WIDE * 9), s.weight(THIN * WIDE * 9), name="maker")
    kernel = s.op("Reshape", flat, s.array([THIN, WIDE, 3, 3]))
    y = s.op("Relu", s.op("Conv", x, kernel, attrs={"pads": [1] * 4}, name="dynamic"))
    s.output(s.conv(y, THIN, 2, name="after"), [1, 2, 6, 6])
    return s.model()


CASES = {
    "gram": (gram, {WIDE}),
    "outer": (outer, {WIDE, THIN}),
    "maps": (with_maps, {WIDE, THIN}),
    "kernel": (dynamic_kernel, {WIDE, THIN}),
}


@pytest.mark.parametrize("reading", ["Reshape", "Flatten", "signed root"])
@pytest.mark.parametrize("name", CASES)
def test_each_factor_is_cut_on_its_own(name: str, reading: str) -> None:
    build, widths = CASES[name]
    coupling = prove(build(reading))
    assert set(table(coupling).values()) == widths


@pytest.mark.parametrize("name", CASES)
def test_costs_of_products_are_those_of_the_cut_model(name: str) -> None:
    model = CASES[name][0]("Reshape")
    coupling = couple(model, {}, None)
    for seed in range(6):
        keep = np.random.default_rng(seed).random(coupling.unit_count) < 0.6
        for group in coupling.groups:
            keep[group.units[0]] = True
        small, kept = cut(coupling, keep), units_kept(coupling, keep)
        again = couple(small, {}, None)
        assert parameters(coupling)(kept) == pytest.approx(count_parameters(small), abs=20)
        assert macs(coupling)(kept) == macs(again)(sizes(again))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("select", ["qr", "obs", "magnitude"])
def test_models_with_products_are_pruned(name: str, select: str) -> None:
    report = onnxprune.prune(
        CASES[name][0]("Reshape"), macs=0.5, samples=4, select=select, effort="fast", round_to=1
    ).report
    assert 0.3 < report.macs.ratio <= 0.5 and report.verify.passed


def test_why_tells_both_factors() -> None:
    coupling = couple(outer("Reshape"), {}, None)
    flat = next(n.outputs[0] for n in coupling.graph.nodes if n.op == "Reshape")
    assert "'stream0'" in explain(coupling, flat or "") or "'stream1'" in explain(coupling, flat or "")


def test_heads_and_their_size_stay_a_choice() -> None:
    """No weight makes either of them alone: one is cut, as runtimes run fast."""
    s = Sketch()
    x = s.input("x", [1, 5, 8])
    parts = []
    for name in "qkv":
        y = s.op("Reshape", s.op("MatMul", x, s.weight(8, 32), name=name), s.array([1, 5, 4, 8]))
        parts.append(s.op("Transpose", y, attrs={"perm": [0, 2, 1, 3]}))
    q, k, v = parts
    scores = s.op("Softmax", s.op("MatMul", q, s.op("Transpose", k, attrs={"perm": [0, 1, 3, 2]})), attrs={"axis": -1})
    y = s.op("Transpose", s.op("MatMul", scores, v), attrs={"perm": [0, 2, 1, 3]})
    y = s.op("MatMul", s.op("Reshape", y, s.array([1, 5, 32])), s.weight(32, 6))
    s.output(y, [1, 5, 6])
    coupling = prove(s.model())
    assert not coupling.walked.products and coupling.groups
