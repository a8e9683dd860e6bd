"""How real files look: oddities of exporters that a pruner must read, cut and keep."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, pruned, random_keep, reasons, run, table
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

import onnxprune
from onnxprune.coupling.open import couple
from onnxprune.coupling.why import explain
from onnxprune.engine.loadable import loadable
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import OutputError
from onnxprune.graph.load import load
from onnxprune.graph.save import save
from onnxprune.surgery.cut import cut


def _net(s: Sketch, batch: int | str = "n") -> onnx.ModelProto:
    x = s.op("Relu", s.conv(s.input("x", [batch, 3, 8, 8]), 3, 6, 3, name="a"))
    s.output(s.conv(x, 6, 2, name="b"), [batch, 2, 8, 8])
    return s.model()


@pytest.mark.parametrize(("dtype", "tolerance"), [(TensorProto.FLOAT16, 5e-3), (TensorProto.DOUBLE, 1e-10)])
def test_other_float_types(dtype: int, tolerance: float) -> None:
    model = _net(Sketch(dtype=dtype))
    coupling = prove(model, tolerance)
    assert table(coupling) == {"a": 6}
    assert {t.data_type for t in cut(coupling, random_keep(coupling, 0)).graph.initializer} == {dtype}


@pytest.mark.parametrize("opset", [17, 22])
def test_bfloat16_weights_are_cut_and_stay_bfloat16(opset: int) -> None:
    # Conv knows bfloat16 from opset 22 on; exporters write it into older files all the same.
    coupling = couple(_net(Sketch(dtype=TensorProto.BFLOAT16, opset=opset)), {}, None)
    assert table(coupling) == {"a": 6}
    small = cut(coupling, random_keep(coupling, 0))
    onnx.checker.check_model(small, full_check=opset == 22)
    assert {t.data_type for t in small.graph.initializer} == {TensorProto.BFLOAT16}
    assert sorted(tuple(t.dims) for t in small.graph.initializer) == [(2,), (2, 4, 1, 1), (4,), (4, 3, 3, 3)]


def test_duplicate_and_missing_node_names() -> None:
    model = _net(Sketch())
    for node in model.graph.node:
        node.name = "same"
    loaded = load(model)
    assert "2 nodes" in loaded.repairs[0] and {n.name for n in model.graph.node} == {"same"}
    assert [n.name for n in loaded.proto.graph.node] == ["same", "same_2", "same_3"]
    assert table(prove(loaded.proto)) == {"same": 6}
    for node in model.graph.node:
        node.name = ""
    assert list(table(prove(model)).values()) == [6]


def test_empty_optional_inputs() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    clipped = s.op("Clip", x, "", s.array(1.0, np.float32))
    bigger = s.op("Resize", clipped, "", s.array([1.0, 1.0, 2.0, 2.0], np.float32))
    s.output(s.conv(bigger, 6, 2), ["n", 2, 16, 16])
    assert table(prove(s.model())) == {"a": 6}


def test_initializers_that_are_graph_inputs_keep_their_shapes_in_step() -> None:
    model = _net(Sketch())
    for tensor in model.graph.initializer:
        model.graph.input.append(oh.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    coupling = prove(model)
    assert table(coupling) == {"a": 6}
    small = cut(coupling, random_keep(coupling, 0))
    onnx.checker.check_model(small, full_check=True)
    stated = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in small.graph.input}
    for tensor in small.graph.initializer:
        if tensor.name in stated:
            assert stated[tensor.name] == tuple(tensor.dims)


def test_stale_and_missing_value_info() -> None:
    model = _net(Sketch())
    middle = model.graph.node[0].output[0]
    model.graph.value_info.append(oh.make_tensor_value_info(middle, TensorProto.FLOAT, ["n", 6, 8, 8]))
    model.graph.value_info.append(oh.make_tensor_value_info("gone", TensorProto.FLOAT, [6, 6]))
    coupling = prove(model)
    small = cut(coupling, random_keep(coupling, 0))
    info = next(v for v in small.graph.value_info if v.name == middle)
    assert info.type.tensor_type.shape.dim[1].dim_value == 4


def test_shapes_that_the_file_states_wrongly_are_left_out() -> None:
    # An exporter of channels-last networks states the layout of before its transposes, or none.
    model = _net(Sketch())
    first, second = (node.output[0] for node in model.graph.node[:2])
    stated: list[tuple[str, list[int]]] = [(first, []), (second, [1, 8, 8, 6]), ("right", [1, 2, 8, 8])]
    model.graph.node.append(oh.make_node("Relu", [model.graph.node[-1].output[0]], ["right"]))
    for name, shape in stated:
        model.graph.value_info.append(oh.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    loaded = load(model)
    assert [info.name for info in loaded.proto.graph.value_info] == ["right"]
    assert loaded.repairs == ("ignored 2 wrong shapes that the file declares",) and not loaded.complaints
    assert len(model.graph.value_info) == 3
    result = onnxprune.prune(model, macs=0.6, samples=8)
    onnx.checker.check_model(result.model, full_check=True)


def test_what_only_the_full_check_holds_against_the_original_is_told_and_not_held_against_the_result() -> None:
    model = _net(Sketch())
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    loaded = load(model)
    assert len(loaded.complaints) == 1 and "dimension 1" in loaded.complaints[0]
    assert onnxprune.prune(model, macs=0.6, samples=8).report.verify.passed


def test_no_shapes_at_all() -> None:
    model = _net(Sketch())
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.ClearField("shape")
    coupling = couple(model, {"x": (1, 3, 8, 8)}, None)
    assert table(coupling) == {"a": 6}


def test_a_dynamic_batch_height_and_width_keep_everything_prunable() -> None:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, "h", "w"]), 3, 6, 3, name="a"))
    size = s.op("Concat", s.op("Shape", x, attrs={"start": 0, "end": 1}), s.array([6, -1]), attrs={"axis": 0})
    flat = s.op("Reshape", x, size)
    s.output(s.op("MatMul", s.weight(4, 6), flat), ["n", 4, "k"])
    assert table(prove(s.model())) == {"a": 6}


def test_a_shape_shared_by_readers_that_are_cut_differently() -> None:
    s = Sketch()
    x = s.input("x", ["n", "t", 8])
    batch = s.op("Shape", x, attrs={"start": 0, "end": 2})
    wide = s.op("Concat", batch, s.array([2, 12]), attrs={"axis": 0})
    flat = s.op("Concat", batch, s.array([24]), attrs={"axis": 0})
    total = []
    for name in "ab":
        made = s.op("MatMul", x, s.weight(8, 24), name=name)
        apart = s.op("Relu", s.op("Reshape", made, wide))
        total.append(s.op("MatMul", s.op("Reshape", apart, flat), s.weight(24, 4)))
    s.output(s.op("Concat", *total, attrs={"axis": 2}), ["n", "t", 8])
    assert table(prove(s.model())) == {"a": 12, "b": 12}


def test_a_size_that_stays_although_the_operand_came_from_elsewhere() -> None:
    """The stream's width states the size of the merged heads, which shrink while the stream does not."""
    s = Sketch()
    x = s.input("x", ["n", "t", 12])
    made = s.op("MatMul", x, s.weight(12, 12), name="made")
    size = [s.op("Gather", s.op("Shape", x), s.array([k]), attrs={"axis": 0}) for k in range(3)]
    merged = s.op("Reshape", s.op("Relu", made), s.op("Concat", *size, attrs={"axis": 0}))
    s.output(s.op("MatMul", merged, s.weight(12, 12)), ["n", "t", 12])
    assert table(prove(s.model())) == {"made": 12}


def test_a_bias_made_from_the_size_of_its_weight() -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    weight = s.weight(6, 3, 1, 1)
    zero = s.op("Expand", s.array(0.0, np.float32), s.op("Shape", weight, attrs={"start": 0, "end": 1}))
    made = s.op("Conv", x, weight, zero, name="a")
    s.output(s.conv(made, 6, 2), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}
    small = cut(coupling, random_keep(coupling, 0))
    assert sum(t.dims[0] for t in small.graph.initializer if len(t.dims) == 4) == 4 + 2


def test_zero_sized_dims_pass_by() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    nothing = s.op("Slice", x, s.array([0]), s.array([0]), s.array([1]), name="none")
    s.output(s.conv(s.op("Concat", nothing, x, attrs={"axis": 1}), 6, 2), ["n", 2, 8, 8])
    prove(s.model())


def test_a_negative_axis_before_its_time() -> None:
    """Concat takes one from opset 11 on; exporters wrote it into older files, which onnxruntime runs."""
    s = Sketch(opset=9)
    x = s.input("x", [2, 5])
    parts = [s.op("Gemm", x, s.weight(5, 8), s.weight(8), name=name) for name in "ab"]
    joined = s.op("Concat", *parts, attrs={"axis": -1})
    s.output(s.op("Gemm", s.op("Relu", joined), s.weight(16, 3), s.weight(3), name="c"), [2, 3])
    assert table(prove(s.model())) == {"a": 8, "b": 8}


def test_negative_pads_crop() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    cropped = s.op("Pad", x, s.array([0, 0, -1, -1, 0, 0, 1, 1]))
    s.output(s.conv(cropped, 6, 2), ["n", 2, 8, 8])
    assert table(prove(s.model())) == {"a": 6}


def test_sequences_pass_by_without_locking_the_rest() -> None:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a"))
    y = s.conv(x, 6, 4, name="b")
    sequence = s.op("SequenceConstruct", y, y)
    s.output(s.op("SequenceAt", sequence, s.array(1)), ["n", 4, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}


def test_strings_pass_by() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    s.output(s.conv(x, 6, 4, name="b"), ["n", 4, 8, 8])
    words = s.input("words", [2], TensorProto.STRING)
    s.output(s.op("Identity", words), [2], TensorProto.STRING)
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}


def test_several_inputs_and_outputs() -> None:
    s = Sketch()
    a = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    b = s.conv(s.input("z", ["n", 5, 8, 8]), 5, 6, name="b")
    both = s.op("Add", a, b)
    s.output(s.conv(both, 6, 2), ["n", 2, 8, 8])
    s.output(s.op("ReduceMean", both, attrs={"axes": [1, 2, 3], "keepdims": 0}), ["n"])
    coupling = prove(s.model())
    # The mean over the channels sees how many there are.
    assert not coupling.groups and "ReduceMean" in explain(coupling, "a")


def test_a_model_already_pruned_once() -> None:
    coupling = prove(_net(Sketch()))
    again = prove(cut(coupling, random_keep(coupling, 0)))
    assert table(again) == {"a": 4}


def test_external_data_is_read_and_cut(tmp_path: Path) -> None:
    path = f"{tmp_path}/model.onnx"
    onnx.save(_net(Sketch()), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert table(prove(load(path).proto)) == {"a": 6}


def test_chains_of_identity_before_weights_and_data() -> None:
    s = Sketch()
    weight = s.op("Identity", s.op("Identity", s.weight(6, 3, 3, 3)))
    x = s.op("Identity", s.op("Identity", s.input("x", ["n", 3, 8, 8])))
    made = s.op("Conv", x, weight, s.op("Identity", s.weight(6)), name="a", attrs={"pads": [1] * 4})
    s.output(s.op("Identity", s.conv(s.op("Identity", made), 6, 2)), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}
    small = pruned(coupling, random_keep(coupling, 0))
    assert sorted(tuple(t.dims) for t in small.graph.initializer) == [(2,), (2, 4, 1, 1), (4,), (4, 3, 3, 3)]


def test_weights_in_constant_nodes() -> None:
    model = _net(Sketch())
    made = [oh.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    coupling = prove(model)
    assert table(coupling) == {"a": 6}
    small = pruned(coupling, random_keep(coupling, 0))
    assert not small.graph.initializer
    shapes = [tuple(n.attribute[0].t.dims) for n in small.graph.node if n.op_type == "Constant"]
    assert sorted(shapes) == [(2,), (2, 4, 1, 1), (4,), (4, 3, 3, 3)]


def test_recorded_shapes_of_constants_that_nodes_make_follow_the_cut() -> None:
    s = Sketch()
    made = []
    for shape in ((12, 3, 3, 3), (12,)):
        values = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
        made.append(s.op("Constant", attrs={"value": numpy_helper.from_array(values)}))
        s.value_info.append(oh.make_tensor_value_info(made[-1], TensorProto.FLOAT, shape))
    copied = s.op("Identity", made[1])
    s.value_info.append(oh.make_tensor_value_info(copied, TensorProto.FLOAT, (12,)))
    x = s.op("Conv", s.input("x", [1, 3, 8, 8]), made[0], copied, name="a")
    s.output(s.conv(s.op("Relu", x), 12, 5), [1, 5, 6, 6])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 12}
    onnx.checker.check_model(pruned(coupling, random_keep(coupling, 0)), full_check=True)


def test_weights_in_sparse_initializers_are_left_alone() -> None:
    model = _net(Sketch())
    dense = model.graph.initializer[0]
    array = numpy_helper.to_array(dense)
    where = np.flatnonzero(array)
    sparse = oh.make_sparse_tensor(
        oh.make_tensor(dense.name, TensorProto.FLOAT, [len(where)], array.ravel()[where]),
        oh.make_tensor("where", TensorProto.INT64, [len(where)], where),
        list(dense.dims),
    )
    model.graph.sparse_initializer.append(sparse)
    del model.graph.initializer[0]
    coupling = prove(model)
    assert not coupling.groups
    assert "is unknown before a run" in reasons(coupling)


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(padding: str) -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 9, 9])
    made = s.op("Conv", x, s.weight(6, 3, 3, 3), name="a", attrs={"auto_pad": padding, "strides": [2, 2]})
    side = 4 if padding == "VALID" else 5
    s.output(s.conv(made, 6, 2), ["n", 2, side, side])
    assert table(prove(s.model())) == {"a": 6}


def test_a_graph_that_keeps_channels_last_between_transposes() -> None:
    s = Sketch()
    x = s.op("Transpose", s.input("x", ["n", 8, 8, 3]), attrs={"perm": [0, 3, 1, 2]})
    made = s.conv(x, 3, 6, 3, name="a")
    last = s.op("Transpose", made, attrs={"perm": [0, 2, 3, 1]})
    shifted = s.op("Relu", s.op("Add", last, s.weight(6)))
    first = s.op("Transpose", shifted, attrs={"perm": [0, 3, 1, 2]})
    out = s.op("Transpose", s.conv(first, 6, 2), attrs={"perm": [0, 2, 3, 1]})
    s.output(out, ["n", 8, 8, 2])
    assert table(prove(s.model())) == {"a": 6}


def test_operators_of_several_domains() -> None:
    s = Sketch(domains={"com.microsoft": 1, "ai.onnx.ml": 3})
    x = s.op("MatMul", s.input("x", ["n", 3]), s.weight(3, 6), name="a")
    y = s.op("FastGelu", x, s.weight(6), domain="com.microsoft")
    s.output(s.op("MatMul", y, s.weight(6, 2)), ["n", 2])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}
    small = pruned(coupling, random_keep(coupling, 0))
    assert {o.domain: o.version for o in small.opset_import} == {"": 17, "com.microsoft": 1, "ai.onnx.ml": 3}


def test_a_domain_that_is_spelt_out_is_the_default_one() -> None:
    model = _net(Sketch())
    model.opset_import[0].domain = "ai.onnx"
    assert table(couple(model, {}, None)) == {"a": 6}


def test_optional_values_pass_by_without_locking_the_rest() -> None:
    s = Sketch(opset=18)
    x = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a"))
    y = s.conv(x, 6, 4, name="b")
    wrapped = s.op("Optional", y)
    s.output(s.op("OptionalGetElement", wrapped), ["n", 4, 8, 8])
    assert table(prove(s.model())) == {"a": 6}


def test_int8_weights_behind_dequantize_linear_stay_int8_and_lose_their_scales() -> None:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    generator = np.random.default_rng(0)
    weight = s.keep("weight", generator.integers(-127, 128, (6, 3, 3, 3), dtype=np.int8))
    scale = s.keep("scale", np.linspace(0.005, 0.02, 6, dtype=np.float32))
    zero = s.keep("zero", np.zeros(6, np.int8))
    real = s.op("DequantizeLinear", weight, scale, zero, attrs={"axis": 0})
    made = s.op("Conv", x, real, s.weight(6), name="a", attrs={"pads": [1] * 4})
    s.output(s.conv(s.op("Relu", made), 6, 2), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}
    arrays = {t.name: numpy_helper.to_array(t) for t in pruned(coupling, random_keep(coupling, 0)).graph.initializer}
    assert arrays["weight"].dtype == np.int8 and arrays["weight"].shape == (4, 3, 3, 3)
    assert arrays["scale"].shape == arrays["zero"].shape == (4,)


def test_a_dynamic_sequence_length() -> None:
    s = Sketch()
    x = s.input("x", ["n", "t", 8])
    hidden = s.op("Relu", s.op("MatMul", x, s.weight(8, 12), name="up"))
    s.output(s.op("Add", x, s.op("MatMul", hidden, s.weight(12, 8))), ["n", "t", 8])
    coupling = prove(s.model())
    assert table(coupling) == {"up": 12}
    assert coupling.facts.is_dynamic("x", 1)


def test_dims_that_have_neither_size_nor_name() -> None:
    model = _net(Sketch())
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    assert table(prove(model, given={"x": (2, 3, 8, 8)})) == {"a": 6}


def test_external_data_is_written_beside_the_pruned_model(tmp_path: Path) -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 60, 3, name="a")
    s.output(s.conv(x, 60, 2), ["n", 2, 8, 8])
    path, target = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(s.model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    loaded = load(path)
    coupling = prove(loaded.proto)
    save(pruned(coupling, random_keep(coupling, 0)), target, loaded.external)
    again = load(target)
    assert again.external and again.file_bytes < loaded.file_bytes
    assert table(prove(again.proto)) == {"a": 36}


def test_a_large_model_goes_to_onnxruntime_through_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also one of more than 2 GB in total: shown with smaller bounds."""
    s = Sketch()
    x = s.op("Relu", s.op("MatMul", s.input("x", ["n", 3]), s.weight(3, 400), name="a"))
    s.output(s.op("MatMul", x, s.weight(400, 5)), ["n", 5])
    model, feeds = s.model(), {"x": np.ones((2, 3), np.float32)}
    whole = run(model, feeds)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("onnxprune.engine.loadable.IN_FILE", 500)
    monkeypatch.setattr("onnxprune.verify.checks.ONE_PIECE", 500)
    assert model.ByteSize() > 500
    with loadable(lambda: model) as made:
        assert isinstance(made.source, str) and sorted(p.name for p in Path(made.source).parent.iterdir()) == [
            "model.onnx",
            "weights",
        ]
    session = open_session(model, Engine(threads=1))
    assert not list(tmp_path.iterdir())
    [parts] = session.run(None, feeds)
    assert np.array_equal(parts, whole[0])
    inner = model.graph.node[0].output[0]
    [product] = open_session(model, Engine(threads=1), [inner]).run(None, feeds)
    assert np.array_equal(product, feeds["x"] @ numpy_helper.to_array(model.graph.initializer[0]))
    result = onnxprune.prune(model, macs=0.6, samples=4, threads=1)
    assert result.report.verify.passed and result.report.bytes.after == result.model.ByteSize()
    assert not list(tmp_path.iterdir())


def test_a_large_model_is_released_before_its_session_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.engine.loadable.IN_FILE", 500)
    made: list[onnx.ModelProto] = []

    def make() -> onnx.ModelProto:
        s = Sketch()
        s.output(s.op("MatMul", s.input("x", ["n", 3]), s.weight(3, 400)), ["n", 400])
        made.append(s.model())
        return made[0]

    alone = [onnx.ModelProto()]
    with loadable(make) as model:
        assert isinstance(model.source, str) and sys.getrefcount(made[0]) == sys.getrefcount(alone[0])


def test_a_large_model_needs_room_for_a_temporary_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s = Sketch()
    s.output(s.op("MatMul", s.input("x", ["n", 3]), s.weight(3, 400)), ["n", 400])
    monkeypatch.setattr("onnxprune.engine.loadable.IN_FILE", 500)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError, match=r"temporary files cannot be written in .*missing.*set TMPDIR"):
        open_session(s.model(), Engine(threads=1))
