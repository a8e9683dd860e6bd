"""Which channels leave together, on tiny graphs: golden group tables for what defeats other pruners, and refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, in_layouts, prove, pruned, random_keep, reasons, table
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.distinct import distinct
from onnxprune.coupling.movers import _knots
from onnxprune.coupling.open import couple
from onnxprune.coupling.operands import edits
from onnxprune.coupling.site import Edit, Masks
from onnxprune.coupling.trace import AxisLink
from onnxprune.coupling.why import explain
from onnxprune.errors import PlanError
from onnxprune.graph.execute import run_node
from onnxprune.graph.facts import Facts
from onnxprune.graph.view import Graph
from onnxprune.surgery.cut import cut

# -- what defeats other pruners -----------------------------------------------------------------------------


def test_a_bias_shared_through_identity_by_two_convolutions() -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    bias = s.op("Identity", s.weight(6, name="bias"))
    a = s.conv(x, 3, 6, 3, name="a", bias=bias)
    b = s.conv(x, 3, 6, 3, name="b", bias=bias)
    y = s.op("Concat", s.conv(a, 6, 2, name="ra"), s.conv(b, 6, 2, name="rb"), attrs={"axis": 1})
    s.nodes.append(oh.make_node("Identity", [y], ["y"]))
    s.output("y", ["n", 4, 8, 8])
    assert table(prove(s.model())) == {"a": 6, "b": 6}


def test_a_repvgg_block() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 8, 3, name="stem")
    wide = s.norm(s.conv(x, 8, 8, 3, name="wide"), 8)
    narrow = s.norm(s.conv(x, 8, 8, 1, name="narrow"), 8)
    block = s.op("Relu", s.op("Add", s.op("Add", wide, narrow), s.norm(x, 8)))
    s.op("Conv", block, s.weight(4, 8, 1, 1), name="head")
    s.outputs.append(oh.make_tensor_value_info(s.nodes[-1].output[0], TensorProto.FLOAT, ["n", 4, 8, 8]))
    coupling = prove(s.model())
    assert table(coupling) == {"stem": 8}
    weights = {coupling.value_of(key) for key, _ in coupling.groups[0].axes if isinstance(key, tuple)}
    assert len(weights) == 3 * 4 + 2 + 2 * 2 + 1  # three norms, the stem, two branches with biases, the head


def test_a_c2f_block_splits_and_concatenates() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 12, name="first")
    left, right = s.split("Split", x, s.array([6, 6]), outputs=2, attrs={"axis": 1})
    inner = s.op("Add", right, s.conv(s.conv(right, 6, 5, 3, name="in"), 5, 6, 3, name="out"))
    y = s.conv(s.op("Concat", left, right, inner, attrs={"axis": 1}), 18, 4, name="last")
    s.output(y, ["n", 4, 8, 8])
    assert table(prove(s.model())) == {"first": 6, "first#2": 6, "in": 5}


def test_an_equal_split_becomes_unequal() -> None:
    s = Sketch(opset=18)
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 12, name="first")
    parts = s.split("Split", x, outputs=2, attrs={"axis": 1, "num_outputs": 2})
    y = s.op("Concat", s.conv(parts[0], 6, 2), s.conv(parts[1], 6, 2), attrs={"axis": 1})
    s.output(y, ["n", 4, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"first": 6, "first#2": 6}
    keep = np.ones(coupling.unit_count, bool)
    keep[coupling.groups[0].units[:3]] = False
    split = next(n for n in cut(coupling, keep).graph.node if n.op_type == "Split")
    assert len(split.input) == 2 and not any(a.name == "num_outputs" for a in split.attribute)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_pixel_shuffle_as_depth_to_space(mode: str) -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 4, 4]), 3, 20, name="up")
    shuffled = s.op("DepthToSpace", x, attrs={"blocksize": 2, "mode": mode})
    s.output(s.conv(shuffled, 5, 3, name="last"), ["n", 3, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"up": 5}
    weight = next(line for key, line in coupling.units.items() if key == (0, 1))[0]
    assert np.bincount(weight).tolist() == [4] * 5


def test_pixel_shuffle_as_reshape_transpose_reshape() -> None:
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 4, 4]), 3, 20, name="up")
    apart = s.op("Reshape", x, s.array([1, 5, 2, 2, 4, 4]))
    turned = s.op("Transpose", apart, attrs={"perm": [0, 1, 4, 2, 5, 3]})
    s.output(s.conv(s.op("Reshape", turned, s.array([1, 5, 8, 8])), 5, 3, name="last"), [1, 3, 8, 8])
    assert table(prove(s.model())) == {"up": 5}


def test_channel_shuffle() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 4, 4]), 3, 12, name="before")
    apart = s.op("Reshape", x, s.array([0, 2, 6, 4, 4]))
    turned = s.op("Transpose", apart, attrs={"perm": [0, 2, 1, 3, 4]})
    back = s.op("Reshape", turned, s.array([0, 12, 4, 4]))
    s.output(s.conv(back, 12, 3, group=3, name="after"), ["n", 3, 4, 4])
    coupling = prove(s.model())
    # The grouped reader's groups are held by the output, so it loses the same place of each of its three groups.
    assert table(coupling) == {"before": 4}
    taken = np.bincount(next(line for key, line in coupling.units.items() if key == (0, 1))[0])
    assert taken.tolist() == [3] * 4


def test_flatten_before_a_gemm() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 4, 4]), 3, 8, name="features")
    flat = s.op("Flatten", s.op("Relu", x))
    s.output(s.op("Gemm", flat, s.weight(8 * 16, 5), s.weight(5), name="head"), ["n", 5])
    coupling = prove(s.model())
    assert table(coupling) == {"features": 8}
    assert np.bincount(coupling.units[3, 1][0]).tolist() == [16] * 8


def test_a_residual_stream_with_its_stem_and_classifier() -> None:
    s = Sketch()
    x = s.op("Relu", s.norm(s.conv(s.input("x", ["n", 3, 8, 8]), 3, 16, 3, name="stem"), 16))
    for k in range(3):
        inner = s.op("Relu", s.norm(s.conv(x, 16, 10, 3, name=f"a{k}"), 10))
        x = s.op("Relu", s.op("Add", x, s.norm(s.conv(inner, 10, 16, 3, name=f"b{k}"), 16)))
    pooled = s.op("Flatten", s.op("GlobalAveragePool", x))
    s.output(s.op("Gemm", pooled, s.weight(7, 16), s.weight(7), name="fc", attrs={"transB": 1}), ["n", 7])
    coupling = prove(s.model())
    assert table(coupling) == {"stem": 16, "a0": 10, "a1": 10, "a2": 10}
    text = explain(coupling, "stem")
    assert "'stem'" in text and "Gemm 'fc'" in text and "Conv 'b2'" in text


def test_attention_heads_with_constant_reshapes() -> None:
    s = Sketch()
    heads, size, width, length = 12, 4, 16, 6
    x = s.input("x", [1, length, width])
    qkv = []
    for name in "qkv":
        made = s.op("Add", s.op("MatMul", x, s.weight(width, heads * size), name=name), s.weight(heads * size))
        apart = s.op("Reshape", made, s.array([1, length, heads, size]))
        qkv.append(s.op("Transpose", apart, attrs={"perm": [0, 2, 1, 3]}))
    keys = s.op("Transpose", qkv[1], attrs={"perm": [0, 1, 3, 2]})
    scores = s.op("Softmax", s.op("Mul", s.op("MatMul", qkv[0], keys), s.array(0.5, np.float32)), attrs={"axis": -1})
    mixed = s.op("Transpose", s.op("MatMul", scores, qkv[2]), attrs={"perm": [0, 2, 1, 3]})
    merged = s.op("Reshape", mixed, s.array([1, length, heads * size]))
    s.output(s.op("MatMul", merged, s.weight(heads * size, width), name="out"), [1, length, width])
    coupling = prove(s.model())
    assert table(coupling) == {"q": heads}
    assert {choice.factor for choice in coupling.choices} >= {"the 12 of 12x4"}


@pytest.mark.parametrize("axes", ["given", "left out"])
@pytest.mark.parametrize("step", [-3, -2, -1, 1, 2, 3])
def test_channels_that_a_slice_counts_in_steps_stay(step: int, axes: str) -> None:
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 5, 5]), 3, 12, name="stem")
    begin, end = (0, 12) if step > 0 else (11, -13)
    numbers = [[begin], [end], [1], [step]]
    if axes == "left out":
        numbers = [[0, begin], [1, end], [1, step]]
    bounds = [s.array(n) for n in numbers]
    taken = s.op("Slice", x, *(bounds if axes == "given" else [*bounds[:2], "", bounds[2]]))
    width = len(range(12)[::step])
    s.output(s.conv(taken, width, 4, name="reader"), [1, 4, 5, 5])
    coupling = prove(s.model())
    told = reasons(coupling)
    counts = f"Slice takes one of every {abs(step)} positions of this axis"
    assert (counts in told) == (abs(step) > 1), told
    assert ("stem" in table(coupling)) == (abs(step) == 1)


def test_links_that_share_an_axis_are_one_knot_in_any_order() -> None:
    """The connected components of the graph whose nodes are the axes, against a plain search."""
    draw, none = np.random.default_rng(0), np.zeros(0, np.int64)
    for _ in range(200):
        links = [AxisLink(*draw.integers(0, 3, 2).tolist(), 0, int(draw.integers(4)), none, none) for _ in range(5)]
        ends = [{("in", link.slot, link.axis), ("out", link.out_axis)} for link in links]
        reached = [{k} for k in range(len(links))]
        for _ in links:
            reached = [{j for j in range(len(links)) if any(ends[i] & ends[j] for i in seen)} for seen in reached]
        numbers = {id(link): k for k, link in enumerate(links)}
        found = [frozenset(numbers[id(link)] for link in knot) for knot in _knots(links)]
        assert set(found) == {frozenset(seen) for seen in reached} and len(found) == len(set(found))


def test_an_option_a_shortcut_slices_and_pads_channels() -> None:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 8, 3, name="stem"))
    strided = s.op("Slice", x, s.array([0, 0]), s.array([8, 8]), s.array([2, 3]), s.array([2, 2]))
    padded = s.op("Pad", strided, s.array([0, 4, 0, 0, 0, 4, 0, 0]))
    down = s.op("Conv", x, s.weight(16, 8, 3, 3), name="down", attrs={"strides": [2, 2], "pads": [1] * 4})
    s.output(s.conv(s.op("Add", padded, down), 16, 3, name="last"), ["n", 3, 4, 4])
    assert table(prove(s.model())) == {"stem": 8, "down": 8}


def test_an_initializer_merged_by_the_exporter_is_cut_at_one_use_only() -> None:
    s = Sketch()
    shared = s.weight(8, name="shared")
    x = s.input("x", ["n", 3, 8, 8])
    free = s.conv(x, 3, 8, 3, name="free", bias=shared)
    s.output(s.conv(x, 3, 8, 3, name="fixed", bias=shared), ["n", 8, 8, 8])
    s.output(s.conv(free, 8, 2, name="reader"), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"free": 8}
    keep = random_keep(coupling, 0)
    small = cut(coupling, keep)
    arrays = {t.name: numpy_helper.to_array(t) for t in small.graph.initializer}
    biases = {n.name: arrays[n.input[2]] for n in small.graph.node if n.op_type == "Conv"}
    assert biases["fixed"].shape == (8,)
    assert np.array_equal(biases["free"], biases["fixed"][keep[coupling.groups[0].units]])


def test_a_weight_shared_by_design_stays_shared() -> None:
    s = Sketch()
    weight, bias = s.weight(8, 3, 3, 3, name="weight"), s.weight(8)
    sides = []
    for name in ("left", "right"):
        x = s.input(name, ["n", 3, 8, 8])
        sides.append(s.op("Conv", x, weight, bias, attrs={"pads": [1] * 4}))
    s.output(s.conv(s.op("Concat", *sides, attrs={"axis": 1}), 16, 2), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert [len(g) for g in coupling.groups] == [8]
    small = cut(coupling, random_keep(coupling, 1))
    assert [t.name for t in small.graph.initializer].count("weight") == 1
    assert sum("weight" in t.name for t in small.graph.initializer) == 1


@pytest.mark.parametrize(
    "layouts", [("", "T"), ("T", "T"), ("T", ""), ("", "IT"), ("", "TT", "T"), ("T", "", ""), ("CT", "C")]
)
def test_a_matrix_that_is_read_in_several_layouts_is_stored_once(layouts: tuple[str, ...]) -> None:
    model = in_layouts(layouts)
    coupling = prove(model)
    small = pruned(coupling, random_keep(coupling, 2))
    assert len(small.graph.initializer) == len(model.graph.initializer)
    assert [20, 20] in [list(tensor.dims) for tensor in small.graph.initializer]


def test_a_weight_that_also_meets_a_constant_is_free() -> None:
    s = Sketch()
    first, second = s.weight(8, 3, 3, 3, name="first"), s.weight(6, 8, 3, 3, name="second")
    # A recurrence unrolled: its first step starts from zeros, and is a constant.
    start = s.op("Conv", s.array(np.full((1, 3, 8, 8), 0.5), np.float32), first, attrs={"pads": [1] * 4})
    begun = s.op("Conv", start, second, attrs={"pads": [1] * 4})
    x = s.op("Conv", s.input("x", ["n", 3, 8, 8]), first, attrs={"pads": [1] * 4})
    y = s.op("Add", s.op("Conv", x, second, attrs={"pads": [1] * 4}), begun)
    s.output(s.conv(y, 6, 2, name="last"), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert [len(g) for g in coupling.groups] == [8, 6]
    assert "shares the weight" not in reasons(coupling)


def test_one_constant_that_states_several_sizes_changes_for_the_one_that_is_cut() -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    eight = s.array([8])
    batch = s.op("Slice", s.op("Shape", x), s.array([0]), s.array([1]))
    # Zeros to begin with, as wide as the layer and, by chance, as high.
    start = s.op("Expand", s.array(0.0, np.float32), s.op("Concat", batch, eight, eight, eight, attrs={"axis": 0}))
    y = s.op("Add", s.conv(x, 3, 8, 3, name="first"), start)
    s.output(s.conv(y, 8, 2, name="last"), ["n", 2, 8, 8])
    assert table(prove(s.model())) == {"first": 8}


# -- refusals -----------------------------------------------------------------------------------------------


def _behind(s: Sketch, x: str, shape: list[int | str]) -> None:
    """Whatever made ``x``, a convolution reads it, so that only what made it decides."""
    s.output(s.conv(x, 6, 2, name="reader"), [shape[0], 2, *shape[2:]])


def test_an_unknown_operator_locks_and_nothing_else_does() -> None:
    s = Sketch(domains={"acme": 1})
    x = s.conv(s.input("x", [1, 3, 8, 8]), 3, 6, name="a")
    strange = s.op("Mystery", s.conv(x, 6, 6, name="b"), name="strange", domain="acme")
    _behind(s, strange, [1, 6, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert table(coupling) == {"a": 6}
    assert "Mystery 'strange'" in reasons(coupling)


def test_softmax_over_channels_locks_them_and_says_so() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    _behind(s, s.op("Softmax", x, name="soft", attrs={"axis": 1}), ["n", 6, 8, 8])
    coupling = prove(s.model())
    assert not coupling.groups
    assert "Softmax 'soft' mixes all positions" in explain(coupling, "a")


def test_an_output_in_the_middle_locks_its_channels() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    relu = s.op("Relu", x, name="relu")
    s.output(relu, ["n", 6, 8, 8])
    s.output(s.conv(relu, 6, 2), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert not coupling.groups
    text = explain(coupling, x)
    assert f"'{relu}' is an output of the model" in text and "Relu 'relu'" in text and "to unlock" in text


def training_norm(seen: bool) -> onnx.ModelProto:
    """A norm by the statistics of its batch; the running ones that it makes are outputs of the model where ``seen``."""
    s = Sketch()
    x = s.conv(s.input("x", [4, 3, 8, 8]), 3, 6, name="a")
    parameters = [s.weight(6) for _ in range(3)] + [s.keep("var", np.ones(6, np.float32))]
    outs = s.split("BatchNormalization", x, *parameters, name="bn", outputs=3, attrs={"training_mode": 1})
    _behind(s, outs[0], [4, 6, 8, 8])
    if seen:
        s.output(outs[1], [6])
    return s.model()


def test_channels_leave_a_norm_in_training_mode() -> None:
    assert table(prove(training_norm(seen=False))) == {"a": 6}


def test_running_statistics_that_leave_the_model_hold_their_channels() -> None:
    coupling = couple(training_norm(seen=True), {}, None)
    assert not coupling.groups and "is an output of the model" in reasons(coupling)


def test_a_batch_that_a_norm_in_training_mode_averages_over_stays() -> None:
    """A Reshape puts channels into the batch axis: there they are mixed."""
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 8, 8]), 3, 6, name="a")
    x = s.op("Reshape", x, s.array([6, 1, 8, 8]))
    parameters = [s.weight(1) for _ in range(3)] + [s.keep("var", np.ones(1, np.float32))]
    x = s.split("BatchNormalization", x, *parameters, name="bn", outputs=3, attrs={"training_mode": 1})[0]
    s.output(s.conv(s.op("Reshape", x, s.array([1, 6, 8, 8])), 6, 4, name="b"), [1, 4, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert not coupling.groups and "mixes all positions" in reasons(coupling)


def test_sizes_that_depend_on_the_data_lock() -> None:
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 8, 8]), 3, 6, name="a")
    flat = s.op("Reshape", x, s.array([-1]))
    index = s.op("Squeeze", s.op("NonZero", s.op("Greater", flat, s.array(0.0, np.float32))), s.array([0]))
    s.output(index, ["k"], TensorProto.INT64)
    s.output(s.conv(x, 6, 2), [1, 2, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert not coupling.groups
    assert coupling.facts.is_dynamic(index, 0)


def test_what_follows_from_a_measured_size_is_dynamic_too() -> None:
    s = Sketch()
    x = s.input("x", [6])
    index = s.op("NonZero", x)
    rows = s.op("Gather", s.weight(6, 5), s.op("Squeeze", index, s.array([0])), attrs={"axis": 0}, name="table")
    hidden = s.op("MatMul", rows, s.weight(5, 9), name="hidden")
    s.output(s.op("MatMul", s.op("Relu", hidden), s.weight(9, 2)), ["k", 2])
    coupling = couple(s.model(), {}, None)
    assert coupling.facts.is_dynamic(hidden, 0) or coupling.facts.is_dynamic(s.nodes[3].output[0], 0)
    assert table(coupling) == {"table": 5, "hidden": 9}


def test_rehearsed_cuts_are_even_and_uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that is a fraction of another (an eighth of the channels) follows every even cut by chance."""
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [1, 3, 8, 8]), 3, 16, name="a"))
    y = s.op("Relu", s.conv(x, 16, 32, name="b"))
    s.output(s.conv(y, 32, 5), [1, 5, 8, 8])
    shares: list[tuple[float, float]] = []

    def recording(graph: Graph, facts: Facts, walked: Walked, masks: Masks) -> list[Edit]:
        shares.append((float(masks(x, 1).mean()), float(masks(y, 1).mean())))
        return edits(graph, facts, walked, masks)

    monkeypatch.setattr("onnxprune.coupling.groups.edits", recording)
    couple(s.model(), {}, None)
    assert any(a == b for a, b in shares) and any(a != b for a, b in shares)


def test_why_offers_similar_names() -> None:
    s = Sketch()
    s.output(s.conv(s.input("picture", [1, 3, 8, 8]), 3, 6, name="first"), [1, 6, 8, 8])
    with pytest.raises(PlanError, match="did you mean 'picture'"):
        explain(couple(s.model(), {}, None), "pictur")


# -- cost ---------------------------------------------------------------------------------------------------


def _deep(blocks: int) -> onnx.ModelProto:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 16, 16]), 3, 8, name="stem")
    for _ in range(blocks):
        inner = s.op("Relu", s.norm(s.conv(x, 8, 6, 3), 6))
        flat = s.op("Reshape", s.op("Reshape", inner, s.array([0, 2, 3, 16, 16])), s.array([0, 6, 16, 16]))
        x = s.op("Relu", s.op("Add", x, s.conv(flat, 6, 8)))
    s.output(x, ["n", 8, 16, 16])
    return s.model()


def test_the_work_grows_with_the_graph_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand nodes: one group per block, and as many node executions per block as in a small graph."""
    counted: list[str] = []

    def counting(node: onnx.NodeProto, *rest: object) -> object:
        counted.append(node.op_type)
        return run_node(node, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("onnxprune.coupling.trace.run_node", counting)
    monkeypatch.setattr("onnxprune.graph.facts.run_node", counting)
    work = {}
    for blocks in (25, 250):
        counted.clear()
        model = _deep(blocks)
        assert len(model.graph.node) == 1 + 8 * blocks
        assert len(couple(model, {}, None).groups) == blocks
        work[blocks] = len(counted)
    assert work[250] <= 10.5 * work[25]


@pytest.mark.parametrize(("free", "picked"), [([8, 28], 0), ([7, 28], 1), ([2, 28], 1), ([7, 3], 0), ([0, 8], 1)])
def test_the_outer_factor_is_taken_while_it_leaves_eight_units(free: list[int], picked: int) -> None:
    """Heads before positions, but of four heads not every other one goes."""
    from onnxprune.coupling.decide import _pick

    assert _pick(free) == picked


@pytest.mark.parametrize(
    ("heads", "size", "free"), [(2, 16, 16), (7, 16, 16), (8, 16, 8), (9, 4, 9), (7, 4, 7), (16, 4, 16)]
)
def test_heads_leave_whole_where_there_are_enough_of_them(heads: int, size: int, free: int) -> None:
    """From eight heads on, whole heads leave; with fewer, the positions in them do, if there are more of those."""
    s = Sketch()
    inner = s.op("MatMul", s.input("x", [1, 5, 12]), s.weight(12, heads * size))
    split = s.op("Relu", s.op("Reshape", inner, s.array([1, 5, heads, size])))
    s.output(s.op("MatMul", s.op("Reshape", split, s.array([1, 5, heads * size])), s.weight(heads * size, 12)), [1, 5, 12])
    assert [len(group) for group in couple(s.model(), {}, None).groups] == [free]


@pytest.mark.parametrize("values", [[], [3], [2, 2, 2], [5, -1, 5, 0, -1], [[4, 1], [1, 9]]])
def test_distinct_values_are_those_of_numpy(values: list[int]) -> None:
    array = np.asarray(values, dtype=np.int64)
    found = distinct(array)
    assert found.dtype == array.dtype and np.array_equal(found, np.unique(array))
