"""A graph as a differentiable function, and its weights written back into the very same graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch, run
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from onnxprune.graph.inputs import input_shapes
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.surgery.constants import with_constants

torch = pytest.importorskip("torch")

from onnxprune.engine.probe import plausible_feeds  # noqa: E402
from onnxprune.tuning.function import build  # noqa: E402
from onnxprune.tuning.operators.types import to_torch  # noqa: E402
from onnxprune.tuning.parameters import trainable  # noqa: E402
from onnxprune.tuning.program import program_of  # noqa: E402

DEMO = Path(__file__).parent.parent / "models" / "demo.onnx"


def function_of(model: onnx.ModelProto):
    graph, block = program_of(model)
    return build(graph, block, graph.inputs, graph.outputs, trainable(graph), torch.device("cpu"))


def outputs(function, feeds):
    found = function({name: to_torch(x) for name, x in feeds.items()})
    return [found[name].detach().numpy() for name in function.wanted]


def shared() -> onnx.ModelProto:
    """One weight for two layers, one behind Identity and Transpose, one behind Constant, one folded from a direction and
    a length, one kept in half precision."""
    s = Sketch()
    x = s.input("x", ["n", 6])
    w = s.weight(6, 6, name="shared")
    y = s.op("MatMul", s.op("Relu", s.op("MatMul", x, w)), w)
    y = s.op("MatMul", y, s.op("Transpose", s.op("Identity", s.weight(5, 6, name="turned"))))
    y = s.op("Add", y, s.weight(5, name="bias"))
    made = oh.make_node("Constant", [], ["held"], value=numpy_helper.from_array(np.ones((5, 4), np.float32) / 3, "t"))
    s.nodes.append(made)
    y = s.op("MatMul", y, "held")
    length = s.op("Sqrt", s.op("ReduceSum", s.op("Mul", s.weight(4, 3, name="direction"), "direction"), s.array([0])))
    y = s.op("MatMul", y, s.op("Mul", s.op("Div", "direction", length), s.weight(1, 3, name="length")))
    half = s.keep("half", np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float16))
    y = s.op("MatMul", y, s.op("Cast", half, attrs={"to": TensorProto.FLOAT}))
    s.output(s.op("Mul", y, s.keep("factor", np.asarray(0.5, np.float32)), name="last"), ["n", 2])
    return s.model()


def branches() -> onnx.ModelProto:
    """A weight in each body of an If, and a Loop that applies one of the outer graph."""
    s = Sketch()
    x = s.input("x", ["n", 4])
    flag = s.input("flag", [], TensorProto.BOOL)
    bodies = []
    for side in ("then", "else"):
        b = Sketch(seed=len(side), prefix=f"{side}_")
        b.output(b.op("MatMul", x, b.weight(4, 4, name=f"{side}_w")), ["n", 4])
        bodies.append(b.graph(side))
    y = s.op("If", flag, attrs={"then_branch": bodies[0], "else_branch": bodies[1]})
    s.weight(4, 4, name="again")
    b = Sketch(prefix="loop_")
    b.input("turn", [], TensorProto.INT64)
    b.input("go", [], TensorProto.BOOL)
    b.input("state", ["n", 4])
    b.output(b.op("Identity", "go"), [], TensorProto.BOOL)
    b.output(b.op("Tanh", b.op("MatMul", "state", "again")), ["n", 4])
    y = s.op("Loop", s.array(3), "", y, attrs={"body": b.graph("loop")})
    s.output(y, ["n", 4])
    return s.model()


def anchors() -> onnx.ModelProto:
    """Constants that tell places or factors, and are no weights, beside one that is."""
    s = Sketch()
    x = s.input("x", ["n", 3, 4, 4])
    y = s.conv(x, 3, 6)
    y = s.op("Reshape", y, s.array([0, 6, -1]))
    y = s.op("Add", y, s.keep("grid", np.arange(16, dtype=np.float32).reshape(1, 1, 16)))
    y = s.op("Mul", y, s.keep("stride", np.asarray([8.0], np.float32)))
    s.output(y, ["n", 6, 16])
    return s.model()


def test_weights_are_parameters_by_name_wherever_they_stand() -> None:
    found = function_of(shared())
    names = {"shared", "turned", "bias", "held", "direction", "length", "half"}
    assert set(found.parameters) == names
    assert sorted(function_of(branches()).parameters)[0] == "again" and len(function_of(branches()).parameters) == 3
    assert {len(value.shape) for value in function_of(anchors()).parameters.values()} == {1, 4}
    assert "grid" not in function_of(anchors()).parameters


@pytest.mark.parametrize("made", [shared, branches, anchors], ids=lambda f: f.__name__)
def test_forward_and_gradient_of_whole_graphs(made) -> None:
    model = made()
    for flag in (True, False):
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 6) if made is shared else (2, 4)).astype(np.float32)}
        if made is anchors:
            feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
        if made is branches:
            feeds["flag"] = np.asarray(flag)
        function = function_of(model)
        for got, want in zip(outputs(function, feeds), run(model, feeds), strict=True):
            assert np.allclose(got, want, rtol=1e-4, atol=1e-5)
        given = {name: to_torch(x) for name, x in feeds.items()}

        def energy(name, values, given=given, function=function):
            found = function(given, {**function.parameters, name: values})
            return sum((y.double() ** 2).sum() for y in found.values())

        for name, value in function.parameters.items():
            direction = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
            step = 1e-2
            difference = (energy(name, value + step * direction) - energy(name, value - step * direction)) / (2 * step)
            (slope,) = torch.autograd.grad(energy(name, value), value, allow_unused=True)
            wanted = 0.0 if slope is None else float((slope * direction).sum())
            assert float(difference) == pytest.approx(wanted, rel=2e-2, abs=1e-2), name


@pytest.mark.parametrize(
    "made", [shared, branches, anchors, lambda: onnx.load(DEMO)], ids=["shared", "branches", "anchors", "demo"]
)
def test_unchanged_weights_leave_every_byte(made) -> None:
    model = made()
    same = {n: v.detach().numpy() for n, v in function_of(model).parameters.items()}
    assert with_constants(model, same).SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("made", [shared, branches, anchors], ids=lambda f: f.__name__)
def test_changed_weights_are_all_that_changes(made) -> None:
    model = made()
    function = function_of(model)
    for value in function.parameters.values():
        value.data *= 1.01
    after = with_constants(model, {n: v.detach().numpy() for n, v in function.parameters.items()})
    onnx.checker.check_model(after)
    shape = {"x": (2, 6)} if made is shared else {"x": (2, 4)} if made is branches else {"x": (2, 3, 4, 4)}
    feeds = {"x": np.random.default_rng(1).standard_normal(shape["x"]).astype(np.float32)}
    if made is branches:
        feeds["flag"] = np.asarray(True)
    for got, want in zip(outputs(function, feeds), run(after, feeds), strict=True):
        assert np.allclose(got, want, rtol=2e-3, atol=1e-3)
    changed = {n for n, a in view(after).constants.items() if not np.array_equal(a, view(model).constants[n])}
    assert changed == set(function.parameters)
    bare = [
        with_constants(m, {n: np.zeros_like(view(m).constants[n]) for n in function.parameters}) for m in (model, after)
    ]
    assert bare[0].SerializeToString(deterministic=True) == bare[1].SerializeToString(deterministic=True)


def test_a_value_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="'shared' has shape"):
        with_constants(shared(), {"shared": np.zeros((6, 5), np.float32)})
    with pytest.raises(KeyError):
        with_constants(shared(), {"nobody": np.zeros(3, np.float32)})


def test_what_depends_on_shapes_only_is_computed_once_per_shape() -> None:
    s = Sketch()
    x = s.input("x", ["n", 4, "t"])
    y = s.op("MatMul", s.op("Transpose", x, attrs={"perm": [0, 2, 1]}), s.weight(4, 3))
    sizes = s.op("Shape", y)
    flat = s.op("Concat", s.op("Gather", sizes, s.array([0])), s.array([-1]), attrs={"axis": 0})
    s.output(s.op("Reshape", y, flat), ["n", None])
    model = s.model()
    function = function_of(model)
    for shape in ((2, 4, 3), (2, 4, 3), (1, 4, 5), (2, 4, 3)):
        feeds = {"x": np.ones(shape, np.float32)}
        (got,), (want,) = outputs(function, feeds), run(model, feeds)
        assert got.shape == want.shape and np.allclose(got, want, atol=1e-5)
    assert len(function._by_shape) == 2 and all(len(kept) == 3 for kept in function._by_shape.values())


def test_the_demo_is_the_same_function() -> None:
    model = load(DEMO).proto
    graph = view(model)
    feeds = plausible_feeds(graph, input_shapes(graph, {}, None)[0])
    for got, want in zip(outputs(function_of(model), feeds), run(model, feeds), strict=True):
        assert np.allclose(got, want, rtol=1e-4, atol=1e-5)


def normalized(rank: int, group: int, bias: bool) -> onnx.ModelProto:
    s = Sketch()
    x = s.input("x", ["n", 4, *[9] * rank])
    weights = [s.weight(6, 4 // group, *[3] * rank), *([s.weight(6)] if bias else [])]
    attrs = {"group": group, "pads": [1] * rank + [0] * rank, "strides": [2] * rank}
    y = s.op("Relu", s.norm(s.op("Conv", x, *weights, attrs=attrs), 6))
    s.output(s.norm(y, 6), ["n", 6, *[None] * rank])
    return s.model()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("group", "bias"), [(1, True), (1, False), (2, True)])
def test_a_folded_normalization_is_the_same_function_with_the_same_gradients(rank, group, bias, monkeypatch) -> None:
    model = normalized(rank, group, bias)
    both = [function_of(model)]
    monkeypatch.setattr("onnxprune.tuning.function.folded", lambda steps, wanted: steps)
    both.append(function_of(model))
    scaled = [[str(out) for step in f.steps for out in step.outputs if "/scaled" in str(out)] for f in both]
    assert [len(names) for names in scaled] == [2, 0] and both[0].parameters.keys() == both[1].parameters.keys()
    x = torch.randn((3, 4, *[9] * rank), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for function in both:
        exact = replace(function, fixed={n: v.double() for n, v in function.fixed.items()})
        weights = {n: w.detach().double().requires_grad_() for n, w in function.parameters.items()}
        y = next(iter(exact({"x": x}, weights).values()))
        share = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape).sin()
        found.append([y, *torch.autograd.grad((y * share).sum(), [weights[n] for n in sorted(weights)])])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kept", ["wanted", "read"])
def test_a_normalization_is_not_folded_where_something_else_reads_the_convolution(kept) -> None:
    s = Sketch()
    between = s.conv(s.input("x", ["n", 4, 5, 5]), 4, 6, 3)
    y = s.norm(between, 6)
    s.output(s.op("Add", y, between) if kept == "read" else y, ["n", 6, 5, 5])
    model = s.model()
    graph, block = program_of(model)
    wanted = [*graph.outputs, *([between] if kept == "wanted" else [])]
    function = build(graph, block, graph.inputs, wanted, trainable(graph), torch.device("cpu"))
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 5)).astype(np.float32)
    assert len(function.steps) == (3 if kept == "read" else 2)
    assert np.allclose(outputs(function, {"x": x})[0], run(model, {"x": x})[0], atol=1e-5)


SIXTH = {"alpha": 1 / 6, "beta": 0.5}


def gated_net(op: str, attrs: dict[str, float], first: bool, read: bool) -> onnx.ModelProto:
    """x times a gate of x; ``first``: the gate is the first factor; ``read``: something else reads the gate, too."""
    s = Sketch()
    x = s.conv(s.input("x", ["n", 4, 5, 5]), 4, 6, 1)
    gate = s.op(op, x, name="gate", attrs=attrs)
    y = s.op("Mul", *((gate, x) if first else (x, gate)))
    s.output(s.op("Add", y, gate) if read else y, ["n", 6, 5, 5])
    return s.model()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("op", "attrs", "read", "joined"),
    [
        ("Sigmoid", {}, False, True),
        ("HardSigmoid", SIXTH, False, True),
        ("Sigmoid", {}, True, False),
        ("HardSigmoid", {}, False, False),
        ("Tanh", {}, False, False),
    ],
)
def test_a_joined_gate_is_the_same_function_with_the_same_gradients(op, attrs, read, joined, first, monkeypatch) -> None:
    model = gated_net(op, attrs, first, read)
    both = [function_of(model)]
    monkeypatch.setattr("onnxprune.tuning.function.gated", lambda steps, wanted: steps)
    both.append(function_of(model))
    assert len(both[1].steps) - len(both[0].steps) == joined
    x = 4 * torch.randn((3, 4, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for function in both:
        weights = {n: w.detach().double().requires_grad_() for n, w in function.parameters.items()}
        y = next(iter(function({"x": x}, weights).values()))
        share = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape).sin()
        found.append([y, *torch.autograd.grad((y * share).sum(), [weights[n] for n in sorted(weights)])])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_a_gate_of_another_value_or_one_that_is_wanted_stays_a_step() -> None:
    s = Sketch()
    x = s.input("x", ["n", 6])
    y = s.op("MatMul", x, s.weight(6, 6))
    gate = s.op("Sigmoid", y)
    s.output(s.op("Mul", x, gate), ["n", 6])
    assert [step.node.op for step in function_of(s.model()).steps] == ["MatMul", "Sigmoid", "Mul"]
    model = gated_net("Sigmoid", {}, True, False)
    graph, block = program_of(model)
    gate = next(node.outputs[0] for node in graph.nodes if node.op == "Sigmoid")
    function = build(graph, block, graph.inputs, [*graph.outputs, gate], trainable(graph), torch.device("cpu"))
    assert [step.node.op for step in function.steps] == ["Conv", "Sigmoid", "Mul"]
