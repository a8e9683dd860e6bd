"""Forms of ONNX that few exporters write, each of which a pruner must cut, keep, or refuse in a sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, reasons, run, table
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

import onnxprune
from onnxprune.coupling.open import couple
from onnxprune.errors import BudgetError, ModelError
from onnxprune.graph.load import load
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep
from onnxprune.verify.checks import _worst


def _keep_first(model: onnx.ModelProto, counts: dict[str, int]) -> onnx.ModelProto:
    """Of each group that ``counts`` names so many channels stay."""
    coupling = couple(model, {}, None)
    keep = np.ones(coupling.unit_count, dtype=np.bool_)
    for group in coupling.groups:
        keep[group.units[counts.get(group.name, len(group)) :]] = False
    small = sweep(cut(coupling, keep), model)
    onnx.checker.check_model(small, full_check=True)
    return small


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_split_into_parts_that_get_unequal_says_how_long_they_are(opset: int) -> None:
    s = Sketch(opset=opset)
    h = s.conv(s.input("x", [1, 3, 4, 4]), 3, 16, name="wide")
    attrs = {"axis": 1, "num_outputs": 2} if opset >= 18 else {"axis": 1}
    left, right = s.split("Split", h, outputs=2, attrs=attrs)
    s.output(s.op("Add", s.conv(s.op("Relu", left), 8, 4), s.conv(right, 8, 4)), [1, 4, 4, 4])
    model = s.model()
    groups = [group.name for group in couple(model, {}, None).groups]
    assert len(groups) == 2
    # Seven after eight is what a number of parts means; without one, parts are equal or stated.
    for name in groups:
        _keep_first(model, {name: 7})
    prove(model)


@pytest.mark.parametrize("opset", [11, 13])
def test_a_squeeze_without_axes_keeps_a_channel_axis_of_which_one_is_left(opset: int) -> None:
    s = Sketch(opset=opset)
    h = s.op("GlobalAveragePool", s.op("Relu", s.conv(s.input("x", [1, 3, 8, 8]), 3, 2, 3, name="two")))
    s.output(s.op("MatMul", s.op("Squeeze", h), s.weight(2, 5)), [5])
    model = s.model()
    small = _keep_first(model, {"two": 1})
    assert sorted(tuple(t.dims) for t in small.graph.initializer if len(t.dims) == 2) == [(1, 5)]
    prove(model)


def test_weights_in_half_precision_behind_a_cast_stay_so() -> None:
    s = Sketch()
    x = s.input("x", ["n", 8])
    for into, out in ((8, 32), (32, 5)):
        stored = np.random.default_rng(into).standard_normal((into, out)).astype(np.float16)
        x = s.op("MatMul", x, s.op("Cast", s.keep(s.fresh("half"), stored), attrs={"to": TensorProto.FLOAT}))
        x = s.op("Relu", x) if out == 32 else x
    s.output(x, ["n", 5])
    model = s.model()
    prove(model)
    small = onnxprune.prune(model, macs=0.6, samples=16).model
    assert {t.data_type for t in small.graph.initializer} == {TensorProto.FLOAT16}
    assert [n.op_type for n in small.graph.node] == [n.op_type for n in model.graph.node]
    assert small.ByteSize() < model.ByteSize()


def _twice_cast(source: str) -> onnx.ModelProto:
    """Two layers that read one weight in half precision, each through a Cast of its own."""
    s = Sketch()
    x = s.input("x", ["n", 8])
    stored = np.random.default_rng(1).standard_normal((8, 32)).astype(np.float16)
    half = s.keep("half", stored) if source == "initializer" else ""
    half = half or s.op("Constant", attrs={"value": numpy_helper.from_array(stored)}, name="half")
    half = s.op("Identity", half) if source == "identity" else half
    ends = []
    for name in "ab":
        h = s.op("MatMul", x, s.op("Cast", half, attrs={"to": TensorProto.FLOAT}), name=name)
        ends.append(s.op("MatMul", s.op("Relu", h), s.weight(32, 5), name=f"{name}2"))
    s.output(s.op("Add", *ends), ["n", 5])
    return s.model()


@pytest.mark.parametrize("source", ["initializer", "constant", "identity"])
def test_a_weight_in_half_precision_behind_two_casts_stays_so(source: str) -> None:
    model = _twice_cast(source)
    coupling = prove(model)
    assert table(coupling) == {"a": 32}
    small = onnxprune.prune(model, macs=0.6, samples=16).model
    ((into, out),) = _sizes_in_half(small)
    assert into == 8 and out < 32
    assert [n.op_type for n in small.graph.node] == [n.op_type for n in model.graph.node]


@pytest.mark.parametrize("source", ["initializer", "constant", "identity"])
def test_two_casts_of_one_weight_that_get_different_numbers_keep_them_in_half(source: str) -> None:
    coupling = couple(_twice_cast(source), {}, None)
    graph = coupling.graph
    uses = [(node.index, 1) for node in graph.nodes if node.op == "MatMul" and node.label in ("a", "b")]
    keep = np.arange(coupling.unit_count) < 20
    values = [np.full((8, 20), k, np.float32) for k in (1, 2)]
    small = sweep(cut(coupling, keep, dict(zip(uses, values, strict=True))), graph.model)
    onnx.checker.check_model(small, full_check=True)
    assert _sizes_in_half(small) == [(8, 20), (8, 20)]
    ran = run(small, {"x": np.ones((1, 8), np.float32)})
    second = [numpy_helper.to_array(t) for t in small.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert np.allclose(ran[0], sum(8 * k * w.sum(axis=0) for k, w in zip((1, 2), second, strict=True)), rtol=1e-3)


def _sizes_in_half(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    made = [a.t for n in model.graph.node for a in n.attribute if a.name == "value"]
    return [tuple(t.dims) for t in [*model.graph.initializer, *made] if t.data_type == TensorProto.FLOAT16]


def test_a_weight_that_the_graph_and_its_bodies_read() -> None:
    def body(op: str) -> onnx.GraphProto:
        inner = Sketch(prefix=op)
        inner.output(inner.op(op, inner.op("Conv", "h", "w")), [1, 8, 4, 4])
        return inner.graph(op)

    s = Sketch()
    s.weight(8, 8, 1, 1, name="w")
    wide = s.op("Relu", s.conv(s.input("x", [1, 3, 4, 4]), 3, 8, name="wide"))
    s.nodes.append(oh.make_node("Conv", [wide, "w"], ["h"], name="shared"))
    attrs = {"then_branch": body("Relu"), "else_branch": body("Tanh")}
    chosen = s.op("If", s.input("go", [], TensorProto.BOOL), attrs=attrs)
    s.output(s.conv(chosen, 8, 2), [1, 2, 4, 4])
    prove(s.model())


def test_values_that_are_no_tensors_need_no_shapes() -> None:
    s = Sketch(domains={"ai.onnx.ml": 1})
    h = s.op("Relu", s.op("MatMul", s.input("x", ["n", 6]), s.weight(6, 16), name="hidden"))
    shares = s.op("Softmax", s.op("MatMul", h, s.weight(16, 3)))
    s.output(s.op("ArgMax", shares, attrs={"axis": 1, "keepdims": 0}), ["n"], TensorProto.INT64)
    s.nodes.append(oh.make_node("ZipMap", [shares], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]))
    named = onnx.ValueInfoProto(name="by_class")
    pairs = named.type.sequence_type.elem_type.map_type
    pairs.key_type, pairs.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    s.outputs.append(named)
    assert table(couple(s.model(), {}, None)) == {"hidden": 16}


def test_an_input_that_is_no_tensor_is_refused_by_name() -> None:
    s = Sketch()
    h = s.conv(s.op("Relu", s.conv(s.input("x", [1, 3, 4, 4]), 3, 8)), 8, 4)
    s.inputs.append(oh.make_tensor_sequence_value_info("many", TensorProto.FLOAT, [1, 4, 4, 4]))
    s.output(s.op("Add", h, s.op("SequenceAt", "many", s.array(0))), [1, 4, 4, 4])
    with pytest.raises(ModelError, match="input 'many' is not a tensor but a sequence"):
        onnxprune.prune(s.model(), macs=0.7)


@pytest.mark.parametrize("dims", [[0, 3, 8, 8], ["n", 3, 0, 8]])
def test_an_input_of_size_zero_that_leaves_nothing_to_compute_is_refused_by_name(dims: list[int | str]) -> None:
    s = Sketch()
    h = s.op("Relu", s.conv(s.input("x", dims), 3, 16, 3))
    s.output(s.op("Flatten", s.op("GlobalAveragePool", s.conv(h, 16, 8))), [dims[0], 8])
    where = f"size 0 for axis {dims.index(0)} of input 'x', so .*: export it with the real size"
    for data in (None, np.zeros((16, 3, 8, 8), np.float32)):
        with pytest.raises(ModelError, match=where):
            onnxprune.prune(s.model(), data, macs=0.5)
    onnxprune.inspect(s.model())


def test_layers_that_read_an_empty_tensor_are_cut_unfitted() -> None:
    s = Sketch()
    h = s.op("Relu", s.op("MatMul", s.input("x", [1, 5, 8]), s.weight(8, 16)))
    cache = s.op("Relu", s.op("MatMul", s.input("cache", [1, 0, 6]), s.weight(6, 20)))
    both = (s.op("MatMul", cache, s.weight(20, 6)), s.op("MatMul", h, s.weight(16, 6)))
    s.output(s.op("Concat", *both, attrs={"axis": 1}), [1, 5, 6])
    report = onnxprune.prune(s.model(), macs=0.7, samples=16).report
    assert report.macs.ratio <= 0.7 and report.verify.passed


def _filled(s: Sketch, like: str, how: str) -> str:
    """Zeros, or ones, in the shape of ``like``."""
    shape = s.op("Shape", like)
    if how == "gathered":
        parts = [s.op("Gather", shape, s.array([axis]), attrs={"axis": 0}) for axis in (0, 1)]
        shape = s.op("Concat", *parts, attrs={"axis": 0})
    if how == "expanded":
        return s.op("Expand", s.array(1, np.float32), shape)
    return s.op("ConstantOfShape", shape)


@pytest.mark.parametrize("batch", ["n", 2])
@pytest.mark.parametrize("how", ["whole", "gathered", "expanded"])
def test_zeros_in_the_shape_of_a_hidden_tensor_follow_its_channels(batch: str | int, how: str) -> None:
    s = Sketch()
    h = s.op("Relu", s.conv(s.input("x", [batch, 3, 8, 8]), 3, 16, 3, name="a"))
    h = s.op(
        "GlobalAveragePool", s.conv(s.op("Concat", h, _filled(s, h, "whole"), attrs={"axis": 1}), 32, 12, name="b")
    )
    h = s.op("Flatten", h)
    h = s.op("Concat", h, _filled(s, h, how), attrs={"axis": 1})
    s.output(s.op("MatMul", h, s.weight(24, 5)), [batch, 5])
    model = s.model()
    found = table(prove(model))
    assert found["a"] == 16 and found["b"] == 12
    report = onnxprune.prune(model, macs=0.5, samples=16).report
    assert report.macs.ratio <= 0.5 and report.verify.passed


@pytest.mark.parametrize("batch", ["n", 2])
def test_a_first_state_of_zeros_in_the_shape_of_a_hidden_tensor(batch: str | int) -> None:
    s = Sketch()
    x = s.op("Relu", s.op("MatMul", s.input("x", [5, batch, 8]), s.weight(8, 16), name="a"))
    first = s.op("Slice", x, s.array([0]), s.array([1]), s.array([0]))
    state = s.op("ConstantOfShape", s.op("Shape", first))
    attrs = {"hidden_size": 16}
    y = s.op("GRU", x, s.weight(1, 48, 16), s.weight(1, 48, 16), "", "", state, attrs=attrs, name="gru")
    s.output(s.op("MatMul", s.op("Squeeze", y, s.array([1])), s.weight(16, 5)), [5, batch, 5])
    # Where the caller chooses the batch, one Shape tells both: the state is as wide as what goes in.
    assert len(prove(s.model()).groups) == (1 if batch == "n" else 2)


def test_zeros_in_the_shape_of_an_input_stay_with_it() -> None:
    s = Sketch()
    x = s.input("x", ["n", 8])
    h = s.op("Add", s.op("MatMul", x, s.weight(8, 8), name="a"), s.op("ConstantOfShape", s.op("Shape", x)))
    s.output(s.op("MatMul", s.op("Relu", h), s.weight(8, 5)), ["n", 5])
    coupling = prove(s.model())
    assert not coupling.groups and "'x' is an input of the model" in reasons(coupling)


def test_what_is_expanded_along_axes_that_it_has_itself_follows_no_other_tensor() -> None:
    s = Sketch()
    x = s.input("x", ["n", 8])
    narrow = s.op("ReduceMean", x, attrs={"axes": [1]})
    h = s.op("Add", s.op("MatMul", x, s.weight(8, 8), name="a"), s.op("Expand", narrow, s.op("Shape", x)))
    s.output(s.op("MatMul", s.op("Relu", h), s.weight(8, 5)), ["n", 5])
    assert table(prove(s.model())) == {"a": 8}


def test_sparse_weights_are_run_and_kept() -> None:
    s = Sketch()
    h = s.op("Relu", s.op("MatMul", s.input("x", ["n", 6]), s.weight(6, 16), name="first"))
    h = s.op("MatMul", h, s.weight(16, 8), name="second")
    s.output(s.op("MatMul", h, "sparse"), ["n", 5])
    graph = s.graph()
    values = numpy_helper.from_array(np.asarray([1, 2, 3], np.float32), "sparse")
    places = numpy_helper.from_array(np.asarray([0, 7, 22], np.int64))
    graph.sparse_initializer.append(oh.make_sparse_tensor(values, places, [8, 5]))
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(model, macs=0.7, samples=16)
    assert len(result.model.graph.sparse_initializer) == 1 and result.report.macs.ratio < 0.7


def test_the_long_name_of_the_default_domain() -> None:
    s = Sketch()
    h = s.op("Relu", s.conv(s.input("x", [2, 3, 4, 4]), 3, 8, name="a"))
    h = s.op("Reshape", h, s.op("Concat", s.op("Shape", h, attrs={"end": 1}), s.array([-1]), attrs={"axis": 0}))
    s.output(s.op("MatMul", h, s.weight(128, 4)), [2, 4])
    model = s.model()
    for node in model.graph.node:
        node.domain = "ai.onnx"
    loaded = load(model)
    assert {node.domain for node in loaded.proto.graph.node} == {""} and "ai.onnx" in loaded.repairs[0]
    assert table(couple(loaded.proto, {}, None)) == {"a": 8}
    assert {node.domain for node in model.graph.node} == {"ai.onnx"}


def test_a_batch_normalization_with_outputs_that_it_leaves_empty() -> None:
    s = Sketch(opset=8)
    h = s.norm(s.conv(s.input("x", [1, 3, 4, 4]), 3, 8, name="a"), 8)
    s.nodes[-1].output.extend([""] * 4)
    s.output(s.conv(s.op("Relu", h), 8, 2), [1, 2, 4, 4])
    assert table(prove(s.model())) == {"a": 8}


def test_outputs_that_are_infinite_by_design_are_no_fault_of_a_cut() -> None:
    s = Sketch()
    h = s.op("Relu", s.op("MatMul", s.input("x", ["n", 6]), s.weight(6, 32), name="a"))
    y = s.op("MatMul", h, s.weight(32, 4))
    masked = s.op("Where", s.array([True, False, True, True], np.bool_), y, s.array(-np.inf, np.float32))
    s.output(masked, ["n", 4])
    assert onnxprune.prune(s.model(), macs=0.6, samples=16).report.verify.passed


@pytest.mark.parametrize(
    ("cut", "masked", "error"),
    [
        ([np.nan], [1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([-np.inf, 1.0], [-np.inf, 2.0], 0.5),
        ([np.nan, 2.0], [np.nan, 2.0], 0.0),
        ([True, False], [True, True], 1.0),
    ],
)
def test_what_is_not_finite_must_be_so_in_both_models(cut: list[float], masked: list[float], error: float) -> None:
    assert _worst([np.asarray(cut)], [np.asarray(masked)], [np.asarray(masked)]) == error


def test_sizes_that_reshapes_of_several_layers_share_are_cut_for_each() -> None:
    """Exporters that find common subexpressions write (batch, tokens, width) once, whoever asks for it."""
    s = Sketch()
    x = s.input("x", ["n", "t", 8])
    rows = s.op("Reshape", x, s.array([-1, 8]))
    sizes = [s.op("Shape", x, attrs={"start": 0, "end": 1}), s.op("Shape", x, attrs={"start": 1, "end": 2})]
    shape = s.op("Cast", s.op("Concat", *sizes, s.array([16]), attrs={"axis": 0}), attrs={"to": TensorProto.INT64})
    for name in ("first", "second", "third"):
        h = s.op("Reshape", s.op("MatMul", rows, s.weight(8, 16), name=name), shape)
        rows = s.op("Add", rows, s.op("Reshape", s.op("MatMul", s.op("Relu", h), s.weight(16, 8)), s.array([-1, 8])))
    s.output(rows, ["m", 8])
    model = s.model()
    assert table(prove(model)) == {"first": 16, "second": 16, "third": 16}
    small = _keep_first(model, {"first": 5, "third": 5})
    # Two widths, two lists of sizes: those that stayed alike are one again.
    assert [node.op_type for node in small.graph.node].count("Concat") == 2
    assert len(_keep_first(model, {}).graph.node) == len(model.graph.node)


@pytest.mark.parametrize(("threshold", "kind"), [(0.0, "MatMul"), (1e9, "MatMul"), (0.0, "Conv"), (1e9, "Conv")])
def test_rows_that_the_data_pick_are_fitted_to_those_of_the_original(threshold: float, kind: str) -> None:
    """Heads of detectors see as many boxes as scores decide: others in the cut model, or none at all."""
    s = Sketch()
    h = s.op("Relu", s.conv(s.input("x", [1, 3, 6, 6]), 3, 32, 3, name="trunk"))
    score = s.op("Reshape", s.conv(h, 32, 1, name="score"), s.array([36]))
    picked = s.op("NonZero", s.op("Greater", score, s.array(threshold, np.float32)))
    rows = s.op("Reshape", s.op("Transpose", h, attrs={"perm": [0, 2, 3, 1]}), s.array([36, -1]))
    rows = s.op("Gather", rows, s.op("Squeeze", picked, s.array([0])))
    if kind == "MatMul":
        rows = s.op("Relu", s.op("MatMul", rows, s.weight(32, 48), name="first"))
        s.output(s.op("MatMul", rows, s.weight(48, 5), name="last"), [None, 5])
    else:
        maps = s.op("Unsqueeze", rows, s.array([2, 3]))
        s.output(s.conv(s.op("Relu", s.conv(maps, 32, 48, name="first")), 48, 5, name="last"), [None, 5, 1, 1])
    result = onnxprune.prune(s.model(), macs=0.5, samples=24)
    assert result.report.macs.ratio <= 0.5 and result.report.verify.passed
    if kind == "MatMul":
        assert ("last" in {layer.node for layer in result.report.refits}) == (threshold == 0.0)


def test_a_file_that_onnxruntime_optimized_for_one_processor_says_so() -> None:
    s = Sketch(domains={"com.microsoft.nchwc": 1})
    h = s.op("ReorderInput", s.input("x", [1, 16, 8, 8]), domain="com.microsoft.nchwc")
    h = s.op("Conv", h, s.weight(32, 16, 1, 1), s.weight(32), domain="com.microsoft.nchwc")
    h = s.op("ReorderOutput", h, domain="com.microsoft.nchwc", attrs={"channels": 32})
    s.output(s.conv(s.op("Relu", h), 32, 4), [1, 4, 8, 8])
    with pytest.raises(BudgetError, match="that onnxruntime has not optimized yet"):
        onnxprune.prune(s.model(), macs=0.7)
