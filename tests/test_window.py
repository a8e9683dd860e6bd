"""Windows: what all readers of a value tell apart, channel by channel."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from graphs import Sketch

from onnxprune.coupling.open import couple
from onnxprune.refit.fit import Rows, fit, loss
from onnxprune.refit.window import EVERYTHING, SURE, Window, is_finite, window_of

REACH = math.log(1 / SURE - 1)


def end(s: Sketch, value: str, channels: int) -> None:
    s.nodes.append(onnx.helper.make_node("Identity", [value], [f"out{len(s.outputs)}"]))
    s.output(f"out{len(s.outputs)}", [1, channels, 4, 4])


def seen(s: Sketch, value: str) -> Window:
    return window_of(couple(s.model(), {}, None), value, 1)


def begin() -> tuple[Sketch, str]:
    s = Sketch()
    return s, s.conv(s.input("x", [1, 3, 4, 4]), 3, 6)


@pytest.mark.parametrize(
    ("op", "window"),
    [("Relu", (0, math.inf)), ("Sigmoid", (-REACH, REACH)), ("HardSigmoid", (-2.5, 2.5)), ("Tanh", EVERYTHING)],
)
@pytest.mark.parametrize("way", ["straight", "moved", "joined"])
def test_the_same_for_every_channel(op: str, window: Window, way: str) -> None:
    s, made = begin()
    value, channels = made, 6
    if way == "moved":
        flat = s.op("Reshape", made, s.array([1, 6, 16]))
        value = s.op("Reshape", s.op("Transpose", flat, attrs={"perm": [0, 1, 2]}), s.array([1, 6, 4, 4]))
    if way == "joined":
        value, channels = s.op("Concat", made, s.conv("x", 3, 2), attrs={"axis": 1}), 8
    end(s, s.op(op, value), channels)
    assert seen(s, made) == pytest.approx(window)


def test_channels_that_part_have_their_own() -> None:
    s, made = begin()
    first, second = s.split("Split", made, s.array([2, 4]), outputs=2, attrs={"axis": 1})
    end(s, s.op("Sigmoid", first), 2)
    end(s, second, 4)
    low, high = seen(s, made)
    np.testing.assert_allclose(low, [-REACH] * 2 + [-math.inf] * 4)
    np.testing.assert_allclose(high, [REACH] * 2 + [math.inf] * 4)


@pytest.mark.parametrize("first", [8, 32, 40, 90])
def test_channels_that_part_behind_a_flatten_have_their_own(first: int) -> None:
    """The window of a channel is that of all its positions."""
    s, made = begin()
    left, right = s.split("Split", s.op("Flatten", made), s.array([first, 96 - first]), outputs=2, attrs={"axis": 1})
    for value, size in ((s.op("Relu", left), first), (s.op("Sigmoid", right), 96 - first)):
        s.output(s.op("MatMul", value, s.weight(size, 2)), [1, 2])
    low, high = seen(s, made)
    channels = np.arange(6)
    np.testing.assert_allclose(low, np.where(channels * 16 + 16 > first, -REACH, 0))
    np.testing.assert_allclose(high, np.where(channels * 16 < first, math.inf, REACH))


@pytest.mark.parametrize("axis", [1, 2])
def test_channels_of_a_product_of_two_axes_have_theirs(axis: int) -> None:
    """A product that is moved once more is seen in full: the window of one channel would depend on the others."""
    s = Sketch()
    made = s.op("MatMul", s.weight(6, 3), s.op("MatMul", s.input("x", [2, 3, 7]), s.weight(7, 5)))
    flat = s.op("Reshape", made, s.array([2, 30]))
    for op, low in (("Relu", 0), ("Sigmoid", -REACH)):
        s.output(s.op("MatMul", s.op(op, flat), s.weight(30, 2)), [2, 2])
        coupling = couple(s.model(), {}, None)
        assert coupling.walked.labels[flat][1].ndim == 2
        assert window_of(coupling, made, axis) == pytest.approx((low, math.inf))
    s.output(s.op("MatMul", s.op("Relu", s.op("Identity", flat)), s.weight(30, 2)), [2, 2])
    coupling = couple(s.model(), {}, None)
    assert window_of(coupling, flat, 1) == window_of(coupling, made, axis) == EVERYTHING


def test_a_second_reader_widens() -> None:
    s, made = begin()
    end(s, s.op("Sigmoid", made), 6)
    end(s, s.op("Relu", made), 6)
    assert seen(s, made) == pytest.approx((-REACH, math.inf))
    end(s, s.op("Mul", made, made), 6)
    assert seen(s, made) == EVERYTHING


def test_an_output_of_the_model_is_read_as_it_is() -> None:
    s, made = begin()
    s.op("Sigmoid", made)
    s.output(made, [1, 6, 4, 4])
    assert not is_finite(seen(s, made))


def test_who_reads_only_the_size_reads_nothing() -> None:
    s, made = begin()
    end(s, s.op("Relu", s.op("Reshape", made, s.op("Shape", made))), 6)
    assert seen(s, made) == (0, math.inf)


def test_each_channel_is_fitted_within_its_own_window() -> None:
    """One channel tells few large numbers apart from many that are all the same, the other tells all apart."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4000, 1, 6)).astype(np.float32)
    true = x[:, 0] @ generator.standard_normal((6, 2)) - np.array([6.0, 0.0])
    # What no reader sees is not even linear.
    goal = np.where(true < -4, true - 3 * np.abs(true + 4) ** 1.5, true) * [1, 0] + true * [0, 1]
    window = np.float32([-4, -math.inf]), np.float32([4, math.inf])
    rows = Rows([(x, goal.astype(np.float32), np.zeros(2, np.float32))], np.ones(2, np.float32))
    start = np.zeros((1, 7, 2))
    found, plain = (fit(rows, rows, start, start, w).weights for w in (window, EVERYTHING))
    assert np.isfinite(found).all()
    assert loss(rows, found, window) < 0.1 * loss(rows, plain, window)
    # The second channel has no window, so that nothing changed for it.
    np.testing.assert_allclose(found[0, :, 1], plain[0, :, 1], atol=0.05)
