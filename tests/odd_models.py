"""Models with everything in them that an edit must leave alone: what ONNX allows, and what newer versions may add."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

F = TensorProto.FLOAT
#: A field 1000 of kinds varint, 8 bytes, bytes, group and 4 bytes, as a newer onnx might write it.
UNKNOWN = b"\xc0\x3e\x96\x01\xc1\x3e12345678\xc2\x3e\x03new\xc3\x3e\x08\x01\xc4\x3e\xc5\x3e1234"


def info(name: str, dtype: int = F, shape: tuple[int | str | None, ...] = (1, 4)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, shape: tuple[int, ...] = (4, 4)) -> TensorProto:
    # Typed storage, not raw: who rewrites it as raw bytes has changed the file.
    return helper.make_tensor(name, F, shape, np.arange(np.prod(shape), dtype=np.float32) / 3)


def everything() -> onnx.ModelProto:
    """Functions, annotations, metadata, sparse and unused weights, inputs with defaults, stale notes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="same", doc_string="first"),
        helper.make_node("MatMul", ["h", "w2"], ["h2"], name="same"),
        helper.make_node("Square", ["h2"], ["h3"], domain="local"),
        helper.make_node("Dropout", ["h3", "", ""], ["h4", ""]),
        helper.make_node("Exotic", ["h4", "sparse", "elsewhere"], ["h5"], domain="custom"),
        helper.make_node("Constant", [], ["c"], value=weight("inner", (4,))),
        helper.make_node("Add", ["h5", "c"], ["h6"]),
        helper.make_node("Flatten", ["h6"], ["y"], axis=1),
    ]
    nodes[0].metadata_props.add(key="namespace", value="a/b")
    exotic = nodes[4].attribute
    exotic.add(name="none", type=AttributeProto.INTS)
    exotic.add(name="nothing", type=AttributeProto.STRINGS)
    exotic.add(name="bytes", type=AttributeProto.STRING, s=b"\xff\xfe", doc_string="no text")
    exotic.add(name="many", type=AttributeProto.STRINGS, strings=[b"\xff", b"a"])
    exotic.add(name="kind", type=AttributeProto.TYPE_PROTO, tp=helper.make_tensor_type_proto(F, (1,)))
    exotic.add(name="tensors", type=AttributeProto.TENSORS, tensors=[weight("a"), weight("b")])
    exotic.add(name="flag", type=AttributeProto.FLOAT, f=0.1, doc_string="a flag")
    exotic.add(name="axes", type=AttributeProto.INTS, ints=[1, 2])
    square = helper.make_function(
        "local",
        "Square",
        ["a"],
        ["b"],
        [helper.make_node("Mul", ["a", "a"], ["b"], doc_string="inside")],
        [helper.make_opsetid("", 17)],
        attributes=["slope"],
    )
    square.node[0].attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
    square.node.add(op_type="Constant", output=["unused"]).attribute.append(helper.make_attribute("value", weight("f")))
    indices = helper.make_tensor("", TensorProto.INT64, (1,), [3])
    sparse = helper.make_sparse_tensor(helper.make_tensor("sparse", F, (1,), [2.0]), indices, [4])
    outside = TensorProto(name="elsewhere", dims=[4], data_type=F, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(
        nodes,
        "everything",
        [info("x", shape=("batch", 4)), info("w", shape=(4, 4))],
        [info("y", shape=("batch", None)), info("y", shape=("batch", None))],
        [weight("w"), weight("unused"), weight("w2"), outside, numpy_helper.from_array(np.ones((200, 100)), "large")],
        doc_string="a graph",
        value_info=[info("h"), info("stale"), info("w2", shape=(4, 4)), info("c", shape=(4,))],
        sparse_initializer=[sparse],
    )
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
    graph.input.append(helper.make_value_info("spare", helper.make_optional_type_proto(sequence)))
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.input[0].doc_string = "an image"
    graph.initializer[0].doc_string = "a weight"
    for part in (graph, graph.input[0], graph.initializer[0], graph.initializer[2], square):
        part.metadata_props.add(key="k", value="v")
    for name in ("h", "w", "w2"):
        note = graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    imports = [helper.make_opsetid(d, v) for d, v in (("local", 1), ("", 17), ("custom", 3))]
    model = helper.make_model(graph, functions=[square], opset_imports=imports, producer_name="maker", ir_version=10)
    model.domain, model.model_version = "a.b", 7
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.training_info.add().algorithm.CopyFrom(helper.make_graph([], "t", [], [], [weight("t")]))
    if hasattr(model, "configuration"):
        model.configuration.add(name="two", num_devices=2, device=["a", "b"])
    for part in (model, graph, nodes[0], model.graph, *model.graph.node, *model.graph.initializer, model.functions[0]):
        part.MergeFromString(UNKNOWN)
    for part in (model.graph.node[4].attribute[6], model.graph.node[5].attribute[0], model.training_info[0]):
        part.MergeFromString(UNKNOWN)
    return model


def _branch(name: str, nodes: list[onnx.NodeProto], output: str, weights: list[TensorProto]) -> onnx.GraphProto:
    found = helper.make_graph(nodes, name, [], [info(output)], weights, doc_string=name, value_info=[info("m")])
    found.MergeFromString(UNKNOWN)
    return found


def branches() -> onnx.ModelProto:
    """An If in an If: branches own weights, share outer ones, and use each other's names and the main graph's."""
    deep = {
        name: _branch(name, [helper.make_node("Add", ["m", "outer"], ["deep"], doc_string="deep")], "deep", [])
        for name in ("then_branch", "else_branch")
    }
    inner = helper.make_node("If", ["c"], ["m2"], name="inner", **deep)
    first = helper.make_node("MatMul", ["x", "own"], ["m"], doc_string="d")
    then = _branch("then", [first, inner], "m2", [weight("own"), weight("idle"), weight("shadowed")])
    other = helper.make_node("MatMul", ["x", "own"], ["m"])
    shadow = helper.make_node("MatMul", ["m", "shadowed"], ["e"])
    last = _branch("else", [other, shadow], "e", [weight("own")])
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=last, doc_string="choose"),
            helper.make_node("MatMul", ["z", "shadowed"], ["y"]),
        ],
        "branches",
        [info("x"), info("c", TensorProto.BOOL, ())],
        [info("y")],
        [weight("outer", (4,)), weight("shadowed")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def loop() -> onnx.ModelProto:
    """A Loop whose body names its inputs as the main graph names a weight and a value."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["next"], name="step"),
            helper.make_node("Identity", ["more"], ["again"]),
        ],
        "body",
        [info("v", TensorProto.INT64, ()), info("more", TensorProto.BOOL, ()), info("h")],
        [info("again", TensorProto.BOOL, ()), info("next")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"], name="before"),
            helper.make_node("Loop", ["count", "", "h"], ["y"], body=body),
        ],
        "loop",
        [info("x")],
        [info("y")],
        [weight("w"), weight("v"), numpy_helper.from_array(np.array(3), "count")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def every_type() -> onnx.ModelProto:
    """One initializer and one Constant of every type that the installed onnx knows."""
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
    graph = helper.make_graph(nodes, "types", [], [info("FLOAT_out", shape=(3,))], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
