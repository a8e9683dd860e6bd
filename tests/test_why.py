"""What ``why`` answers: groups with their way, locks with what would lift them, places in one line, near misses."""

from __future__ import annotations

import pytest
from graphs import Sketch, table
from onnx import TensorProto

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.coupling.reasons import BORDER, DATA, LAST, SHAPE
from onnxprune.coupling.why import explain
from onnxprune.errors import PlanError


def _two_layers() -> Coupling:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, 3, name="first"), name="relu")
    s.output(s.conv(x, 6, 2, name="second"), ["n", 2, 8, 8])
    return couple(s.model(), {}, None)


def test_a_node_is_answered_with_its_rule_its_groups_and_its_places() -> None:
    told = explain(_two_layers(), "first").splitlines()
    assert told[0] == "node Conv 'first'"
    assert "n (g i) x0 x1, (g o) i k0 k1, (g o) -> n (g o) y0 y1" in told[1]
    assert "    axis 1: 6 of 6 positions can leave" in told
    assert "        Conv 'first' ('w1' axis 0, 'w2' axis 0)" in told
    assert "          -> Relu 'relu'" in told
    assert "        Conv 'second' ('w5' axis 1)" in told
    assert "    axes 2 and 3 stay: Conv 'first' creates these axes (they hold places, not channels)" in told


def test_a_lock_is_answered_with_the_way_to_it_and_what_would_lift_it() -> None:
    told = explain(_two_layers(), "w5").splitlines()
    assert "    because 'conv7' is an output of the model" in told
    assert "    the path to it: Conv 'second'" in told
    assert f"    to unlock: {BORDER}" in told


def test_the_same_lock_is_told_once_per_answer() -> None:
    told = explain(_two_layers(), "second")
    assert told.count("to unlock") == 1
    assert "axis 0: 2 of 2 positions stay, because 'conv7' is an output of the model" in told


@pytest.mark.parametrize(("batch", "remedy"), [(1, DATA), ("n", SHAPE)])
def test_a_shape_is_asked_for_only_where_an_input_leaves_it_open(batch: int | str, remedy: str) -> None:
    s = Sketch()
    flat = s.op("Reshape", s.conv(s.input("x", [batch, 3, 8, 8]), 3, 6), s.array([-1]))
    picked = s.op("Squeeze", s.op("NonZero", flat), s.array([0]))
    s.output(s.op("ReduceSum", s.op("Cast", picked, attrs={"to": TensorProto.FLOAT})), [1])
    told = explain(couple(s.model(), {}, None), picked)
    assert f"to unlock: {remedy}" in told, told


@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_the_path_to_a_lock_names_each_node_once_and_in_order(length: int) -> None:
    """Several steps go through one node (from its input to its output), which is one name."""
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 8, 8]), 3, 6, name="first")
    for number in range(length):
        x = s.op("Add", x, s.weight(6, 1, 1, name=f"shift{number}"), name=f"add{number}")
    s.output(x, [1, 6, 8, 8])
    told = explain(couple(s.model(), {}, None), "first")
    behind, ahead = ([line.strip() for line in part.splitlines() if "the path" in line] for part in told.split("tensor 'w1'"))
    adds = " -> ".join(f"Add 'add{k}'" for k in range(length))
    assert behind == [f"the path to it: {adds}"][: length > 0]
    assert ahead == ["the path to it: Conv 'first'"]


def test_a_group_is_found_by_its_name_and_its_number() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 12, name="wide")
    parts = s.split("Split", x, s.array([6, 6]), outputs=2, attrs={"axis": 1})
    y = s.op("Concat", s.conv(parts[0], 6, 2), s.conv(parts[1], 6, 2), attrs={"axis": 1})
    s.output(y, ["n", 4, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert table(coupling) == {"wide": 6, "wide#2": 6}
    assert explain(coupling, "wide#2") == explain(coupling, "1")
    assert explain(coupling, "wide#2").startswith("group 'wide#2': 6 channels")


def test_a_weight_behind_constants_is_told_by_the_node_that_reads_it() -> None:
    s = Sketch()
    turned = s.op("Transpose", s.weight(6, 4, name="weight"), attrs={"perm": [1, 0]})
    x = s.op("MatMul", s.input("x", ["n", 4]), turned, name="first")
    s.output(s.op("MatMul", x, s.weight(6, 2)), ["n", 2])
    told = explain(couple(s.model(), {}, None), "weight")
    assert "as MatMul 'first' reads it" in told and "axis 1: 6 of 6 positions can leave" in told


def test_sizes_and_places_are_called_so() -> None:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, 3, name="first"))
    size = s.op("Concat", s.op("Shape", x, attrs={"start": 0, "end": 1}), s.array([6, 64]), name="size",
                attrs={"axis": 0})  # fmt: skip
    s.output(s.op("MatMul", s.weight(4, 6), s.op("Reshape", x, size)), ["n", 4, 64])
    coupling = couple(s.model(), {}, None)
    assert "holds sizes, not channels" in explain(coupling, size)
    assert "computes sizes" in explain(coupling, "size")


def test_an_axis_that_is_tied_into_one_unit_says_so() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="first")
    left = s.op("Slice", x, s.array([0]), s.array([5]), s.array([1]))
    right = s.op("Slice", x, s.array([1]), s.array([6]), s.array([1]))
    s.output(s.conv(s.op("Add", left, right), 5, 2), ["n", 2, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert not coupling.groups
    assert [held.reason.remedy for held in coupling.held].count(LAST) == 1
    assert "its 6 positions are tied into one unit, and one must stay" in explain(coupling, "first")


def test_a_tensor_inside_a_body_is_found_without_the_path_of_its_body() -> None:
    inner = Sketch(prefix="inner_")
    inner.output(inner.conv(inner.conv("x", 3, 5, name="inside"), 5, 2), ["n", 2, 8, 8])
    other = Sketch(prefix="other_")
    other.output(other.conv("x", 3, 2), ["n", 2, 8, 8])
    s = Sketch()
    s.input("x", ["n", 3, 8, 8])
    chosen = s.op(
        "If", s.input("flag", [], 9), attrs={"then_branch": inner.graph("t"), "else_branch": other.graph("e")}
    )
    s.output(chosen, ["n", 2, 8, 8])
    told = explain(couple(s.model(), {}, None), "inner_conv3")
    assert told.startswith("tensor 'inner_conv3' (1x5x8x8)") and "group 'inside'" in told


@pytest.mark.parametrize(("asked", "meant"), [("frist", "first"), ("FIRST", "first"), ("con3", "conv3")])
def test_a_near_miss_is_answered_with_what_was_meant(asked: str, meant: str) -> None:
    with pytest.raises(PlanError, match=f"did you mean.*'{meant}'"):
        explain(_two_layers(), asked)


def test_a_name_like_no_other_is_answered_with_where_to_look() -> None:
    with pytest.raises(PlanError, match="onnxprune inspect"):
        explain(_two_layers(), "zzzzzzzz")
