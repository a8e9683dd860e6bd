"""Layers whose weights are computed at run time: their shares, time and rounding are those of any other layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove

import onnxprune
from onnxprune.budget.cost import macs, sizes, stepped_macs
from onnxprune.coupling.open import couple
from onnxprune.latency.signature import timed_layers
from onnxprune.linear.form import layers


def _conv(s: Sketch, x: str, w: Callable[..., str]) -> str:
    return s.op("Conv", x, w(24, 16, 3, 3), attrs={"pads": [1] * 4}, name="layer")


def _depthwise(s: Sketch, x: str, w: Callable[..., str]) -> str:
    return s.op("Conv", x, w(16, 1, 3, 3), attrs={"pads": [1] * 4, "group": 16}, name="layer")


def _transposed(s: Sketch, x: str, w: Callable[..., str]) -> str:
    return s.op("ConvTranspose", x, w(16, 24, 2, 2), attrs={"strides": [2, 2]}, name="layer")


def _product(s: Sketch, x: str, w: Callable[..., str]) -> str:
    x = s.op("Transpose", x, attrs={"perm": [0, 2, 3, 1]})
    return s.op("Transpose", s.op("MatMul", x, w(16, 24), name="layer"), attrs={"perm": [0, 3, 1, 2]})


FORMS = [_conv, _depthwise, _transposed, _product]


def model(form: Callable[[Sketch, str, Callable[..., str]], str], computed: bool) -> onnx.ModelProto:
    """A layer between two convolutions; its weight is stored, or a stored one times a number that is an input."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [1, 3, 8, 8]), 3, 16, name="before"))
    strength = s.input("strength", [1])

    def weight(*shape: int) -> str:
        return s.op("Mul", s.weight(*shape), strength) if computed else s.weight(*shape)

    y = form(s, x, weight)
    width = 16 if form is _depthwise else 24
    s.output(s.conv(s.op("Relu", y), width, 5, name="after"), [1, 5, None, None])
    return s.model()


@pytest.mark.parametrize("form", FORMS)
def test_shares_and_time_do_not_depend_on_where_the_weight_comes_from(
    form: Callable[[Sketch, str, Callable[..., str]], str],
) -> None:
    stored, computed = (couple(model(form, how), {}, None) for how in (False, True))
    for one in (stored, computed):
        assert "layer" in {one.graph.nodes[t.node].label for t in timed_layers(one, layers(one))}
    keys = [{t.signature.key for t in timed_layers(one, layers(one))} for one in (stored, computed)]
    assert keys[0] == keys[1]
    rows = [
        sorted(round(g.macs_share, 3) for g in onnxprune.inspect(model(form, how)).groups if not g.locked)
        for how in (False, True)
    ]
    assert rows[0] == rows[1]
    for cost in (macs, lambda coupling: stepped_macs(coupling, 16, 4)):
        first, second = (cost(one) for one in (stored, computed))
        for kept in (8, 12, 13, 16):
            found = [np.minimum(sizes(one), kept) for one in (stored, computed)]
            assert first(found[0]) == second(found[1])


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_of_computed_weights_is_exact(form: Callable[[Sketch, str, Callable[..., str]], str]) -> None:
    assert prove(model(form, computed=True)).groups


def test_a_note_says_how_much_no_refit_reaches() -> None:
    (note,) = onnxprune.inspect(model(_conv, computed=True)).notes
    assert "only the layers around them can compensate the cut" in note and "(Conv)" in note
    assert not onnxprune.inspect(model(_conv, computed=False)).notes


def test_latency_is_saved_where_the_time_is() -> None:
    """A style of a few numbers modulates a large convolution: narrowing what makes the style saves nothing."""
    s = Sketch()
    x = s.conv(s.input("x", [1, 16, 16, 16]), 16, 32, name="body")
    style = s.op("Relu", s.op("Gemm", s.input("z", [1, 8]), s.weight(8, 64), name="style"))
    style = s.op("Reshape", s.op("Gemm", style, s.weight(64, 32), name="mod"), s.array([1, 32, 1, 1]))
    kernel = s.op("Mul", s.weight(48, 32, 3, 3), style)
    y = s.op("Relu", s.op("Conv", x, kernel, attrs={"pads": [1] * 4}, name="modulated"))
    s.output(s.conv(y, 48, 4, name="head"), [1, 4, 16, 16])
    result = onnxprune.prune(s.model(), macs=0.6, samples=4)
    gone = {cut.group: cut.before - len(cut.kept) for cut in result.plan.cuts}
    assert gone.get("style", 0) == 0 and sum(gone.values()) > 0
