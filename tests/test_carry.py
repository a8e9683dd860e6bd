"""A round trip through onnx-graphsurgeon loses nothing, and an edit changes nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from onnxprune.surgery.carry import carry_over, from_surgeon, to_surgeon

F = TensorProto.FLOAT


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def clone(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def read_everything(graph: gs.Graph) -> None:
    for node in graph.nodes:
        for value in [*node.inputs, *node.attrs.values()]:
            if isinstance(value, gs.Constant):
                assert value.values.shape == tuple(value.shape)
            elif isinstance(value, gs.Graph):
                read_everything(value)


def info(name: str, dtype: int = F, shape: tuple[int | str | None, ...] = (1, 4)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, shape: tuple[int, ...] = (4, 4)) -> TensorProto:
    count = int(np.prod(shape))
    # Typed storage, not raw: a reader that rewrites it as raw bytes has changed the file.
    return helper.make_tensor(name, F, shape, np.arange(count, dtype=np.float32) / 3)


def nasty() -> onnx.ModelProto:
    """One small model with everything that the round trip drops, in as many places as it fits."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="same", doc_string="first"),
        helper.make_node("MatMul", ["h", "w2"], ["h2"], name="same"),
        helper.make_node("Square", ["h2"], ["h3"], domain="local", overload="a"),
        helper.make_node("Dropout", ["h3", "", ""], ["h4", ""]),
        helper.make_node("Exotic", ["h4", "sparse"], ["h5"], domain="custom"),
        helper.make_node("Constant", [], ["c"], value=weight("inner", (4,))),
        helper.make_node("Add", ["h5", "c"], ["y"]),
    ]
    nodes[0].metadata_props.add(key="namespace", value="a/b")
    exotic = nodes[4].attribute
    for kind, name in ((AttributeProto.INTS, "none"), (AttributeProto.STRINGS, "nothing")):
        exotic.add(name=name, type=kind)
    exotic.add(name="bytes", type=AttributeProto.STRING, s=b"\xff\xfe", doc_string="no text")
    exotic.add(name="many", type=AttributeProto.STRINGS, strings=[b"\xff", b"a"])
    exotic.add(name="kind", type=AttributeProto.TYPE_PROTO, tp=helper.make_tensor_type_proto(F, (1,)))
    exotic.add(name="tensors", type=AttributeProto.TENSORS, tensors=[weight("a"), weight("b")])
    exotic.add(name="flag", type=AttributeProto.FLOAT, f=0.1)
    exotic.add(name="whole", type=AttributeProto.FLOATS, floats=[1.0, 2.0])
    square = helper.make_function(
        "local",
        "Square",
        ["a"],
        ["b"],
        [helper.make_node("Mul", ["a", "a"], ["b"], doc_string="inside")],
        [helper.make_opsetid("", 17)],
        overload="a",
        value_info=[info("b")],
    )
    square.metadata_props.add(key="k", value="v")
    twin = onnx.FunctionProto()
    twin.CopyFrom(square)
    twin.overload = "b"
    scaled = helper.make_function(
        "local",
        "Scaled",
        ["a"],
        ["b"],
        [helper.make_node("LeakyRelu", ["a"], ["b"])],
        [helper.make_opsetid("", 17)],
        attributes=["slope"],
    )
    scaled.node[0].attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sparse", F, (1,), [2.0]),
        helper.make_tensor("", TensorProto.INT64, (1,), [3]),
        [4],
    )
    graph = helper.make_graph(
        nodes,
        "nasty",
        [info("x", shape=("batch", 4)), info("w", shape=(4, 4))],
        [info("y", shape=("batch", None)), info("y", shape=("batch", None))],
        [weight("w"), weight("unused"), weight("w2")],
        doc_string="a graph",
        value_info=[info("h"), info("stale"), info("w2", shape=(4, 4)), info("h2", shape=("batch", 4))],
        sparse_initializer=[sparse],
    )
    graph.input.append(
        helper.make_value_info(
            "spare",
            helper.make_optional_type_proto(helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))),
        )
    )
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.input[0].doc_string = "an image"
    graph.input[0].metadata_props.add(key="k", value="v")
    graph.initializer[0].doc_string = "a weight"
    graph.initializer[0].metadata_props.add(key="k", value="v")
    graph.metadata_props.add(key="k", value="v")
    note = graph.quantization_annotation.add(tensor_name="h")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    model = helper.make_model(
        graph,
        functions=[square, twin, scaled],
        opset_imports=[helper.make_opsetid(d, v) for d, v in (("local", 1), ("", 17), ("unused", 3))],
        producer_name="maker",
        producer_version="1.2",
        domain="a.b",
        model_version=7,
        doc_string="",
        ir_version=10,
    )
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.training_info.add().algorithm.CopyFrom(helper.make_graph([], "t", [], [], [weight("t")]))
    model.configuration.add(name="two", num_devices=2, device=["a", "b"])
    return model


def branches() -> onnx.ModelProto:
    """An If whose branches own a weight, share an outer one, and nest another If."""
    inner = helper.make_node(
        "If",
        ["c"],
        ["deep"],
        **{
            name: helper.make_graph(
                [helper.make_node("Add", ["m", "outer"], [f"{name}_deep"], doc_string="deep")],
                name,
                [],
                [info(f"{name}_deep")],
                [],
            )
            for name in ("then_branch", "else_branch")
        },
    )
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "own"], ["m"], doc_string="d"), inner],
        "then",
        [],
        [info("deep")],
        [weight("own"), weight("idle")],
        value_info=[info("m")],
        doc_string="t",
    )
    other = helper.make_graph([helper.make_node("Add", ["x", "outer"], ["e"])], "else", [], [info("e")], [])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, doc_string="choose")],
        "branches",
        [info("x"), info("c", TensorProto.BOOL, ())],
        [info("y")],
        [weight("outer", (4,))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def all_dtypes() -> onnx.ModelProto:
    """One initializer and one Constant of every dtype that the installed onnx knows."""
    nodes, tensors = [], []
    for number in helper.get_all_tensor_dtypes():
        name = TensorProto.DataType.Name(number)
        if number == TensorProto.STRING:
            array: np.ndarray = np.array([b"a", b"\xff", b""], dtype=object)
        else:
            array = np.array([1, 0, 1]).astype(helper.tensor_dtype_to_np_dtype(number))
        tensors.append(numpy_helper.from_array(array, name))
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        nodes.append(helper.make_node("Constant", [], [f"{name}_c"], value=numpy_helper.from_array(array)))
    graph = helper.make_graph(nodes, "dtypes", [], [info("FLOAT_out", shape=(3,))], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])


def nameless() -> onnx.ModelProto:
    """Invalid on purpose: repeated tensor names, nodes without outputs, no opset, no names at all."""
    graph = onnx.GraphProto()
    for op in ("Relu", "Relu", "Abs"):
        graph.node.add(op_type=op, input=["x"], output=["y"], doc_string=op)
    graph.node.add(op_type="Print", input=["y"], output=["", ""])
    graph.node.add(op_type="Print", input=["y"])
    graph.input.add(name="x")
    graph.output.add(name="y")
    graph.initializer.extend([weight("w"), weight("w", (2,))])
    model = onnx.ModelProto()
    model.graph.CopyFrom(graph)
    return model


MODELS = [nasty, branches, all_dtypes, nameless]


@pytest.mark.parametrize("build", MODELS)
def test_round_trip_is_identity(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    before = clone(model)
    graph = to_surgeon(model)
    assert same(from_surgeon(graph, model), before)
    read_everything(graph)
    assert same(from_surgeon(graph, model), before)
    assert same(from_surgeon(graph.copy(), model), before)
    assert same(model, before)


def test_round_trip_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = nameless()
    from_surgeon(to_surgeon(model), model)
    assert capsys.readouterr().out == ""


def test_carry_over_repairs_a_plain_round_trip() -> None:
    model = branches()
    exported = gs.export_onnx(gs.import_onnx(clone(model)))
    assert not same(exported, model)
    assert same(carry_over(model, exported), model)


@pytest.mark.parametrize("build", MODELS)
def test_every_initializer_edit_changes_only_itself(build: Callable[[], onnx.ModelProto]) -> None:
    model = build()
    reachable = [t for t in to_surgeon(model).tensors().values() if isinstance(t, gs.Constant)]
    for name in [tensor.name for tensor in reachable]:
        graph = to_surgeon(model)
        constant = graph.tensors()[name]
        constant.values = np.flip(constant.values)[:2].copy()
        got, want = from_surgeon(graph, model), clone(model)
        at = [t.name for t in model.graph.initializer].index(name)
        new = numpy_helper.from_array(constant.values, name)
        if want.graph.initializer[at].HasField("doc_string"):
            new.doc_string = want.graph.initializer[at].doc_string
        new.metadata_props.extend(want.graph.initializer[at].metadata_props)
        want.graph.initializer[at].CopyFrom(new)
        for value in [*want.graph.input, *want.graph.value_info]:
            if value.name == name:
                value.type.tensor_type.shape.dim[0].dim_value = 2
        assert same(got, want), name


def attribute(node: onnx.NodeProto, name: str) -> AttributeProto:
    return next(one for one in node.attribute if one.name == name)


def edited(model: onnx.ModelProto, edit: Callable[[gs.Graph], None]) -> onnx.ModelProto:
    graph = to_surgeon(model)
    edit(graph)
    return from_surgeon(graph, model)


def test_attribute_edits_change_only_themselves() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        exotic = next(node for node in graph.nodes if node.op == "Exotic")
        assert exotic.attrs["none"] == [] and exotic.attrs["bytes"] == b"\xff\xfe"
        exotic.attrs["flag"] = 0.5
        exotic.attrs["nothing"] = ["x"]
        exotic.attrs["whole"] = []
        exotic.attrs["new"] = 3
        del exotic.attrs["none"]

    want = clone(model)
    attributes = want.graph.node[4].attribute
    by_name = {one.name: one for one in attributes}
    by_name["flag"].f = 0.5
    by_name["nothing"].strings.append(b"x")
    del by_name["whole"].floats[:]
    attributes.add(name="new", i=3, type=AttributeProto.INT)
    del attributes[[one.name for one in attributes].index("none")]
    assert same(edited(model, edit), want)


def test_constant_attribute_edit_keeps_the_node() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        graph.nodes[5].attrs["value"].values = np.zeros(2, np.float32)

    want = clone(model)
    want.graph.node[5].attribute[0].t.CopyFrom(numpy_helper.from_array(np.zeros(2, np.float32), "inner"))
    assert same(edited(model, edit), want)


def test_rewiring_and_renaming_keep_everything_else() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        first, second = graph.nodes[0], graph.nodes[1]
        second.inputs[1] = first.inputs[1]
        second.name = "renamed"

    want = clone(model)
    want.graph.node[1].input[1] = "w"
    want.graph.node[1].name = "renamed"
    # w2 is used no more, so it leaves, with what was noted about it.
    del want.graph.initializer[2]
    del want.graph.value_info[2]
    assert same(edited(model, edit), want)


def test_inserted_node_takes_over_an_output_name() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        first = graph.nodes[0]
        old = first.outputs[0]
        first.outputs = [gs.Variable("fresh", np.float32, (1, 4))]
        graph.nodes.insert(1, gs.Node("Relu", "added", inputs=list(first.outputs), outputs=[old]))

    want = clone(model)
    want.graph.node[0].output[0] = "fresh"
    want.graph.node.insert(1, helper.make_node("Relu", ["fresh"], ["h"], name="added"))
    want.graph.value_info.append(info("fresh"))
    assert same(edited(model, edit), want)


def test_removed_node_takes_its_annotations_along() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        graph.nodes[1].inputs[0] = graph.inputs[0]
        graph.cleanup()

    got = edited(model, edit)
    assert got.graph.node[0].input == ["x", "w2"]
    assert "h" not in {value.name for value in got.graph.value_info}
    assert not got.graph.quantization_annotation
    assert [one.name for one in got.graph.initializer] == ["unused", "w2"]
    assert [value.name for value in got.graph.input] == ["x", "spare"]


def test_shape_edits_keep_symbols_and_meanings() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        graph.inputs[0].shape = ["batch", 3]
        graph.tensors()["h"].shape = [None, 3]

    want = clone(model)
    want.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    dims = want.graph.value_info[0].type.tensor_type.shape.dim
    dims[0].ClearField("dim_value")
    dims[1].dim_value = 3
    assert same(edited(model, edit), want)


def test_new_constant_shares_original_values() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        old = graph.nodes[0].inputs[1]
        graph.nodes[1].inputs[1] = gs.Constant("w_copy", old._values)

    got = edited(model, edit)
    tensors = {one.name: one for one in got.graph.initializer}
    assert np.array_equal(numpy_helper.to_array(tensors["w_copy"]), numpy_helper.to_array(tensors["w"]))
    assert not any(one.external_data for one in got.graph.initializer)


def test_edits_inside_branches() -> None:
    model = branches()

    def edit(graph: gs.Graph) -> None:
        then = graph.nodes[0].attrs["then_branch"]
        then.nodes[0].inputs[1].values = np.ones((4, 4), np.float32)
        deep = then.nodes[1].attrs["else_branch"].nodes[0]
        deep.op = "Sub"

    want = clone(model)
    then = attribute(want.graph.node[0], "then_branch").g
    then.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 4), np.float32), "own"))
    attribute(then.node[1], "else_branch").g.node[0].op_type = "Sub"
    assert same(edited(model, edit), want)


def test_outer_constant_used_only_inside_branches() -> None:
    model = branches()

    def edit(graph: gs.Graph) -> None:
        graph.nodes[0].attrs["else_branch"].nodes[0].inputs[1].values = np.zeros(4, np.float32)

    want = clone(model)
    want.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), "outer"))
    assert same(edited(model, edit), want)


def test_edit_inside_a_function() -> None:
    model = nasty()

    def edit(graph: gs.Graph) -> None:
        next(one for one in graph.functions if one.name == "Scaled").nodes[0].op = "Elu"

    want = clone(model)
    want.functions[2].node[0].op_type = "Elu"
    assert same(edited(model, edit), want)


def test_plain_export_edits_survive() -> None:
    model = branches()
    graph = gs.import_onnx(clone(model))
    graph.nodes[0].attrs["then_branch"].nodes[0].inputs[1].values = np.ones((4, 4), np.float32)
    want = clone(model)
    attribute(want.graph.node[0], "then_branch").g.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((4, 4), np.float32), "own")
    )
    assert same(carry_over(model, gs.export_onnx(graph)), want)


def test_every_backend_case_survives() -> None:
    cases = collect_testcases(None)
    assert len(cases) > 1000
    broken = []
    for case in cases[::4]:
        graph = to_surgeon(case.model)
        read_everything(graph)
        if not same(from_surgeon(graph, case.model), case.model):
            broken.append(case.name)
    assert broken == []


def test_every_real_model_survives() -> None:
    folder = os.environ.get("ONNXPRUNE_ASSETS")
    if not folder:
        pytest.skip("ONNXPRUNE_ASSETS names no folder of models")
    paths = sorted(Path(folder).rglob("*.onnx"))
    assert paths
    for path in paths:
        model = onnx.load(path)
        graph = to_surgeon(model)
        read_everything(graph)
        assert same(from_surgeon(graph, model), model), path
        assert same(carry_over(model, gs.export_onnx(gs.import_onnx(clone(model)))), model), path
