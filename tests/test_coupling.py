"""Which channels leave together, on tiny graphs: golden group tables, refusals, and what defeats other pruners."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, random_keep, reasons, run, table
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from onnxprune.coupling.open import couple
from onnxprune.coupling.why import why
from onnxprune.errors import ModelError, PlanError
from onnxprune.graph.execute import run_node
from onnxprune.graph.inputs import input_shapes
from onnxprune.graph.load import load
from onnxprune.graph.view import view
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
    # Six pairs, one from each half. The grouped reader's groups are held by the output, so it loses the same
    # places of each of its three groups: every third pair goes with the two others like it.
    assert table(coupling) == {"before": 2}
    taken = np.bincount(next(line for key, line in coupling.units.items() if key == (0, 1))[0])
    assert taken.tolist() == [6, 6]


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
    text = why(coupling, "stem")
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
    assert "Softmax 'soft' mixes all positions" in why(coupling, "a")


def test_an_output_in_the_middle_locks_its_channels() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    relu = s.op("Relu", x, name="relu")
    s.output(relu, ["n", 6, 8, 8])
    s.output(s.conv(relu, 6, 2), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert not coupling.groups
    text = why(coupling, x)
    assert f"'{relu}' is an output of the model" in text and "Relu 'relu'" in text and "to unlock" in text


def test_training_mode_batch_normalization_locks() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    parameters = [s.weight(6) for _ in range(3)] + [s.keep("var", np.ones(6, np.float32))]
    outs = s.split("BatchNormalization", x, *parameters, name="bn", outputs=3, attrs={"training_mode": 1})
    _behind(s, outs[0], ["n", 6, 8, 8])
    coupling = couple(s.model(), {}, None)
    assert not coupling.groups and "training mode" in reasons(coupling)


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


def test_why_offers_similar_names() -> None:
    s = Sketch()
    s.output(s.conv(s.input("picture", [1, 3, 8, 8]), 3, 6, name="first"), [1, 6, 8, 8])
    with pytest.raises(PlanError, match="did you mean 'picture'"):
        why(couple(s.model(), {}, None), "pictur")


# -- how real files look ------------------------------------------------------------------------------------


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
    assert loaded.renamed == 2 and {n.name for n in model.graph.node} == {"same"}
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
    assert not coupling.groups and "ReduceMean" in why(coupling, "a")


def test_a_model_already_pruned_once() -> None:
    coupling = prove(_net(Sketch()))
    again = prove(cut(coupling, random_keep(coupling, 0)))
    assert table(again) == {"a": 4}


def test_external_data_is_read_and_cut(tmp_path: object) -> None:
    path = f"{tmp_path}/model.onnx"
    onnx.save(_net(Sketch()), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert table(prove(load(path).proto)) == {"a": 6}


# -- control flow and functions -----------------------------------------------------------------------------


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


def test_local_functions_lock_what_they_touch_and_stay_in_the_file() -> None:
    function = oh.make_function(
        "mine", "Twice", ["a"], ["b"], [oh.make_node("Add", ["a", "a"], ["b"])], [oh.make_opsetid("", 17)]
    )
    s = Sketch(domains={"mine": 1}, functions=[function])
    x = s.conv(s.input("x", ["n", 3, 8, 8]), 3, 6, name="a")
    twice = s.op("Twice", s.conv(x, 6, 5, name="b"), name="call", domain="mine")
    s.output(s.conv(twice, 5, 2, name="c"), ["n", 2, 8, 8])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 6}
    assert "Twice 'call' calls a local function" in reasons(coupling)
    assert "inline" in why(coupling, "b")
    small = cut(coupling, random_keep(coupling, 0))
    assert [f.name for f in small.functions] == ["Twice"]


# -- input shapes -------------------------------------------------------------------------------------------


def test_dims_of_one_name_get_one_size_and_the_batch_is_one_then_two() -> None:
    s = Sketch()
    s.input("ids", ["batch", "length"], TensorProto.INT64)
    s.input("mask", ["batch", "length"], TensorProto.INT64)
    s.output(s.op("Add", "ids", "mask"), ["batch", "length"], TensorProto.INT64)
    first, other = input_shapes(view(s.model()), {}, None)
    assert first["ids"] == first["mask"] and other["ids"] == other["mask"]
    assert (first["ids"][0], other["ids"][0]) == (1, 2) and first["ids"][1] != other["ids"][1]


def test_given_shapes_are_the_only_ones_and_samples_set_the_free_sizes() -> None:
    graph = view(_net_any_size())
    first, other = input_shapes(graph, {"x": (4, 3, 40, 48)}, None)
    assert first == other == {"x": (4, 3, 40, 48)}
    first, other = input_shapes(graph, {}, {"x": (7, 3, 40, 48)})
    assert first == {"x": (1, 3, 40, 48)}
    assert other["x"][0] == 2 and other["x"][2] > 40


def _net_any_size() -> onnx.ModelProto:
    s = Sketch()
    s.output(s.conv(s.input("x", ["n", 3, "h", "w"]), 3, 6), ["n", 6, "h", "w"])
    return s.model()


def test_a_length_that_the_graph_needs_is_found() -> None:
    s = Sketch()
    wave = s.op("Unsqueeze", s.input("wave", ["n", "t"]), s.array([1]))
    made = s.op("Conv", wave, s.weight(6, 1, 128), name="a", attrs={"strides": [64]})
    s.output(s.op("Conv", made, s.weight(2, 6, 1)), ["n", 2, "k"])
    first, _ = input_shapes(view(s.model()), {}, None)
    assert first["wave"][1] >= 128
    assert table(prove(s.model())) == {"a": 6}


@pytest.mark.parametrize("given", [{"y": (1, 3, 8, 8)}, {"x": (1, 4, 8, 8)}, {"x": (1, 3, 8)}])
def test_shapes_that_do_not_fit_are_refused(given: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelError):
        couple(_net(Sketch()), given, None)


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
