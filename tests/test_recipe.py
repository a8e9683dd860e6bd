"""The optimizer's steps: relative to the weights that one output sums, without a common shift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from graphs import Sketch, run

from onnxprune.graph.view import view

torch = pytest.importorskip("torch")

from onnxprune.tuning.recipe import SMALLEST, Optimizer, size_of  # noqa: E402
from onnxprune.tuning.sums import LAYOUTS, summed_axes  # noqa: E402

CASES = (
    ("Conv", 1, {}, (1, 3, 5, 5), (4, 3, 2, 2)),
    ("Conv", 1, {"group": 3}, (1, 3, 5, 5), (6, 1, 2, 2)),
    ("Conv", 1, {}, (1, 3, 6), (4, 3, 2)),
    ("ConvTranspose", 1, {}, (1, 3, 5, 5), (3, 4, 2, 2)),
    ("MatMul", 1, {}, (2, 3), (3, 4)),
    ("MatMul", 1, {}, (5, 2, 3), (5, 3, 4)),
    ("MatMul", 0, {}, (3, 2), (4, 3)),
    ("MatMul", 0, {}, (5, 3, 2), (5, 4, 3)),
    ("Gemm", 1, {}, (2, 3), (3, 4)),
    ("Gemm", 1, {"transB": 1}, (2, 3), (4, 3)),
    ("Gemm", 0, {}, (3, 2), (4, 3)),
    ("Gemm", 0, {"transA": 1}, (3, 2), (3, 4)),
    ("RNN", 1, {"hidden_size": 4}, (1, 2, 3), (1, 4, 3)),
)


def layer(op: str, slot: int, attrs: Mapping[str, int], data: tuple[int, ...], weight: np.ndarray) -> onnx.ModelProto:
    s = Sketch()
    x, w = s.input("x", list(data)), s.keep("w", weight)
    more = [s.keep("r", np.zeros((1, 4, 4), np.float32))] if op == "RNN" else []
    y = s.op(op, *((x, w) if slot else (w, x)), *more, attrs=dict(attrs))
    s.output(y, [f"d{axis}" for axis in range(4 if more else len(data))])
    return s.model()


@pytest.mark.parametrize(("op", "slot", "attrs", "data", "shape"), CASES)
def test_an_output_sums_over_the_stated_axes(
    op: str, slot: int, attrs: Mapping[str, int], data: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Weights that differ only along these axes reach some outputs in common; any other two reach none."""
    axes = summed_axes(view(layer(op, slot, attrs, data, np.zeros(shape, np.float32))), "w")
    assert 0 < len(axes) < len(shape)
    reached: dict[tuple[int, ...], set[int]] = {}
    for place in np.ndindex(*shape):
        weight = np.zeros(shape, np.float32)
        weight[place] = 1
        [found, *_] = run(layer(op, slot, attrs, data, weight), {"x": np.ones(data, np.float32)})
        line = tuple(0 if axis in axes else at for axis, at in enumerate(place))
        outputs = set(np.flatnonzero(found))
        assert outputs and (line not in reached or reached[line] & outputs)
        reached.setdefault(line, set()).update(outputs)
    lines = list(reached.values())
    assert sum(map(len, lines)) == len(set().union(*lines))


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_gate_sums_over_inputs_or_over_hidden_units(op: str, gates: int) -> None:
    """ONNX states the shapes of recurrent weights: directions, gates times hidden units, and what is summed."""
    s = Sketch()
    x = s.input("x", [2, 1, 3])
    inputs = s.keep("w", np.zeros((1, gates * 5, 3), np.float32))
    hidden = s.keep("r", np.zeros((1, gates * 5, 5), np.float32))
    s.output(s.op(op, x, inputs, hidden, attrs={"hidden_size": 5}), [2, 1, 1, 5])
    graph = view(s.model())
    assert [[graph.constants[name].shape[axis] for axis in summed_axes(graph, name)] for name in "wr"] == [[3], [5]]


def test_weights_without_a_stated_layout_are_one() -> None:
    s = Sketch()
    x = s.op("Mul", s.op("Relu", s.input("x", [2, 3])), s.keep("w", np.ones(3, np.float32)))
    s.output(s.op("MatMul", x, s.op("Transpose", s.keep("turned", np.ones((4, 3), np.float32)))), [2, 4])
    graph = view(s.model())
    assert summed_axes(graph, "w") == summed_axes(graph, "turned") == ()
    assert all(set(layout) <= set(".oi*") and layout.count("i") == 1 for layout in LAYOUTS.values())


def test_the_size_follows_the_scale_of_each_output() -> None:
    """A folded normalization multiplies each output by a factor; the relative step stays the same."""
    generator = np.random.default_rng(0)
    weight = torch.from_numpy(generator.standard_normal((4, 3, 2, 2)).astype(np.float32))
    factors = torch.tensor([0.05, 1.0, 7.0, 20.0]).reshape(4, 1, 1, 1)
    sums = (1, 2, 3)
    torch.testing.assert_close(size_of(weight * factors, sums, SMALLEST), size_of(weight, sums, SMALLEST) * factors)
    assert size_of(weight * factors, (), SMALLEST).shape == ()
    assert (size_of(torch.zeros(4, 3), (1,), 0.5) == 0.5 * SMALLEST).all()
    dead = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(size_of(dead, (1,), 0.0)[1, 0], SMALLEST * dead.square().mean().sqrt())


def test_a_common_step_of_n_weights_counts_as_much_as_n_different_ones() -> None:
    """To an output whose inputs are all one: √n steps, and not n."""
    count, rate = 400, 0.01
    signs = np.random.default_rng(0).choice([-1.0, 1.0], count)
    moved = {}
    for kind, gradient in (("common", np.ones(count)), ("different", signs)):
        weight = torch.from_numpy(np.stack([np.ones(count), signs]).astype(np.float32))
        start = weight.clone()
        optimizer = Optimizer(["w"], [weight], [SMALLEST], [(1,)])
        weight.grad = torch.from_numpy(np.stack([gradient, gradient]).astype(np.float32))
        optimizer.move(rate)
        moved[kind] = weight - start
    assert moved["common"].sum(1).numpy() == pytest.approx(-rate * np.sqrt(count), rel=1e-3)
    assert float(moved["different"].abs().mean()) == pytest.approx(rate, rel=0.05)
