"""If, Loop, Scan and local functions: channels inside bodies and across their borders."""

from __future__ import annotations

import numpy as np
import onnx
from graphs import Sketch, prove, random_keep, reasons, run, table
from onnx import TensorProto
from onnx import helper as oh

from onnxprune.coupling.why import explain
from onnxprune.graph.load import load
from onnxprune.surgery.cut import cut


def _branch(seed: int, width: int, out: int) -> onnx.GraphProto:
    s = Sketch(seed=seed, prefix=f"branch{seed}_")
    hidden = s.op("Relu", s.conv("x", 3, width, 3, name=f"in{seed}"))
    s.output(s.conv(hidden, width, out, name=f"out{seed}"), ["n", out, 8, 8])
    return s.graph(f"branch{seed}")


def test_if_branches_are_pruned_inside_and_across_their_border() -> None:
    s = Sketch()
    s.input("x", ["n", 3, 8, 8])
    flag = s.input("flag", [], TensorProto.BOOL)
    chosen = s.op("If", flag, attrs={"then_branch": _branch(1, 6, 10), "else_branch": _branch(2, 7, 10)})
    s.output(s.conv(chosen, 10, 2, name="after"), ["n", 2, 8, 8])
    model = s.model()
    coupling = prove(model)
    assert table(coupling) == {"in1": 6, "in2": 7, "out2": 10}
    keep = random_keep(coupling, 3)
    small = cut(coupling, keep)
    from onnxprune.surgery.cut import mask

    masked = mask(coupling, keep)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    for value in (True, False):
        feeds = {"x": x, "flag": np.array(value)}
        assert np.allclose(run(small, feeds)[0], run(masked, feeds)[0], atol=1e-5)


def test_a_body_that_captures_outer_channels_is_cut_with_them() -> None:
    inner = Sketch(seed=5, prefix="inner_")
    inner.output(inner.conv("outer", 9, 4, name="inside"), ["n", 4, 8, 8])
    other = Sketch(seed=6, prefix="other_")
    other.output(other.conv("outer", 9, 4, name="too"), ["n", 4, 8, 8])
    s = Sketch()
    s.input("x", ["n", 3, 8, 8])
    flag = s.input("flag", [], TensorProto.BOOL)
    s.nodes.append(oh.make_node("Conv", ["x", s.weight(9, 3, 1, 1)], ["outer"], name="outer"))
    chosen = s.op("If", flag, attrs={"then_branch": inner.graph("t"), "else_branch": other.graph("e")})
    s.output(chosen, ["n", 4, 8, 8])
    assert table(prove(s.model())) == {"outer": 9}


def _loop_body(width: int) -> onnx.GraphProto:
    s = Sketch(seed=9, prefix="body_")
    s.input("i", [], TensorProto.INT64)
    s.input("go", [], TensorProto.BOOL)
    state = s.input("state", ["n", width])
    hidden = s.op("Relu", s.op("MatMul", state, s.weight(width, 11), name="up"))
    down = s.op("MatMul", hidden, s.weight(11, width), name="down")
    s.output(s.op("Identity", "go"), [], TensorProto.BOOL)
    s.output(s.op("Add", state, down), ["n", width])
    s.output(s.op("Identity", down), ["n", width])
    return s.graph("body")


def test_a_loop_carries_channels_around() -> None:
    s = Sketch()
    x = s.op("MatMul", s.input("x", ["n", 4]), s.weight(4, 9), name="into")
    outs = s.split("Loop", s.array(3), "", x, outputs=2, attrs={"body": _loop_body(9)})
    s.output(s.op("MatMul", outs[0], s.weight(9, 2)), ["n", 2])
    s.output(s.op("MatMul", outs[1], s.weight(9, 2)), [3, "n", 2])
    assert table(prove(s.model())) == {"into": 9, "up": 11}


def test_a_scan_carries_channels_along() -> None:
    body = Sketch(seed=4, prefix="scan_")
    state = body.input("h", ["n", 7])
    x = body.input("xt", ["n", 5])
    both = body.op("Add", body.op("MatMul", x, body.weight(5, 7), name="wx"),
                   body.op("MatMul", state, body.weight(7, 7), name="wh"))  # fmt: skip
    new = body.op("Tanh", both)
    body.output(new, ["n", 7])
    body.output(body.op("Identity", new), ["n", 7])
    s = Sketch()
    xs = s.op("MatMul", s.input("x", [6, "n", 3]), s.weight(3, 5), name="before")
    start = s.op("ReduceSum", s.op("MatMul", xs, s.weight(5, 7), name="start"), s.array([0]), attrs={"keepdims": 0})
    outs = s.split("Scan", start, xs, outputs=2, attrs={"body": body.graph("body"), "num_scan_inputs": 1})
    s.output(s.op("MatMul", outs[1], s.weight(7, 2)), [6, "n", 2])
    s.output(s.op("MatMul", outs[0], s.weight(7, 2)), ["n", 2])
    assert table(prove(s.model())) == {"before": 5, "start": 7}


def test_a_branch_that_is_never_taken_does_not_lock() -> None:
    dead = Sketch(seed=7, prefix="dead_")
    # Axes that only a run tells: nothing could be said of this branch if it were ever taken.
    dead.output(dead.op("Squeeze", "outer", "axes"), ["n", 8, 8])
    alive = Sketch(seed=8, prefix="alive_")
    alive.output(alive.op("Relu", "outer"), ["n", 9, 8, 8])
    s = Sketch()
    s.input("x", ["n", 3, 8, 8])
    s.input("axes", [1], TensorProto.INT64)
    s.nodes.append(oh.make_node("Conv", ["x", s.weight(9, 3, 1, 1)], ["outer"], name="outer"))
    rank = s.op("Size", s.op("Shape", "outer"))
    chosen = s.op("If", s.op("Equal", rank, s.array(3)),
                  attrs={"then_branch": dead.graph("t"), "else_branch": alive.graph("e")})  # fmt: skip
    s.output(s.conv(chosen, 9, 2), ["n", 2, 8, 8])
    assert table(prove(s.model())) == {"outer": 9}


def _calls_a_function() -> onnx.ModelProto:
    body = [
        oh.make_node("Constant", [], ["half"], value=oh.make_tensor("half", TensorProto.FLOAT, [], [0.5])),
        oh.make_node("Mul", ["a", "half"], ["h"]),
        oh.make_node("Add", ["a", "h"], ["b"]),
    ]
    function = oh.make_function("mine", "Half", ["a"], ["b"], body, [oh.make_opsetid("", 17)])
    s = Sketch(domains={"mine": 1}, functions=[function])
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    called = s.op("Half", s.conv(x, 6, 5, name="b"), name="call", domain="mine")
    s.output(s.conv(called, 5, 2, name="c"), ["n", 2, 8, 8])
    return s.model()


def test_local_functions_are_written_out_when_a_model_is_loaded() -> None:
    model = _calls_a_function()
    loaded = load(model)
    assert [f.name for f in model.functions] == ["Half"]
    assert not loaded.proto.functions and "1 local function" in loaded.repairs[0]
    coupling = prove(loaded.proto)
    assert table(coupling) == {"a": 6, "b": 5}
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    assert np.array_equal(run(model, feeds)[0], run(loaded.proto, feeds)[0])


def test_a_function_that_stays_locks_what_it_touches() -> None:
    """As it does in models that are too large to be written out."""
    coupling = prove(_calls_a_function())
    assert table(coupling) == {"a": 6}
    assert "Half 'call' calls a local function" in reasons(coupling)
    assert "inline" in explain(coupling, "b")
    small = cut(coupling, random_keep(coupling, 0))
    assert [f.name for f in small.functions] == ["Half"]


def test_a_reshape_states_sizes_behind_a_loop_that_may_stop_early() -> None:
    body = Sketch(seed=9, prefix="body_")
    body.input("i", [], TensorProto.INT64)
    body.output(body.op("Identity", body.input("go", [], TensorProto.BOOL)), [], TensorProto.BOOL)
    body.output(body.op("Relu", "h"), ["n", 6])
    s = Sketch()
    x = s.input("x", ["n", 5])
    s.nodes.append(oh.make_node("MatMul", [x, s.weight(5, 6)], ["h"], name="in"))
    slices = s.op("Loop", s.array(4), "", attrs={"body": body.graph("body")})
    rows = s.op("Transpose", slices, attrs={"perm": [1, 0, 2]})
    out = s.op("MatMul", rows, s.weight(6, 12), name="wide")
    heads = s.op("Relu", s.op("Reshape", out, s.array([-1, 4, 3, 4])))
    y = s.op("MatMul", s.op("Reshape", heads, s.array([-1, 4, 12])), s.weight(12, 2), name="last")
    s.output(y, ["n", 4, 2])
    coupling = prove(s.model())
    assert {group.name: len(group) for group in coupling.groups} == {"in": 6, "wide": 4}
