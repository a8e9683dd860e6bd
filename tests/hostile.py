"""Broken and hostile models: each is pruned and verified, or refused in one line, in bounded time and memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MARK = "QQ"


def plain(prefix: str = "", depth: int = 2, width: int = 16, image: int = 8) -> onnx.ModelProto:
    """Conv-Relu `depth` times, pooled, one Gemm; every tensor's name begins with `prefix`."""
    draw = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], f"{prefix}input", 3
    for k in range(depth):
        weight = draw.standard_normal((width, channels, 3, 3)).astype(np.float32) / np.float32(channels * 9) ** 0.5
        weights += [
            numpy_helper.from_array(weight.astype(np.float32), f"{prefix}w{k}"),
            numpy_helper.from_array(np.zeros(width, np.float32), f"{prefix}b{k}"),
        ]
        nodes += [
            helper.make_node("Conv", [last, f"{prefix}w{k}", f"{prefix}b{k}"], [f"{prefix}c{k}"], f"{prefix}conv{k}", pads=[1] * 4),
            helper.make_node("Relu", [f"{prefix}c{k}"], [f"{prefix}r{k}"], f"{prefix}relu{k}"),
        ]
        last, channels = f"{prefix}r{k}", width
    nodes += [
        helper.make_node("GlobalAveragePool", [last], [f"{prefix}pooled"], f"{prefix}pool"),
        helper.make_node("Flatten", [f"{prefix}pooled"], [f"{prefix}flat"], f"{prefix}flatten"),
        helper.make_node("Gemm", [f"{prefix}flat", f"{prefix}head"], [f"{prefix}out"], f"{prefix}gemm"),
    ]
    weights.append(numpy_helper.from_array(draw.standard_normal((width, 10)).astype(np.float32), f"{prefix}head"))
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info(f"{prefix}input", TensorProto.FLOAT, [1, 3, image, image])],
        [helper.make_tensor_value_info(f"{prefix}out", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weight(name: str, dims: list[int], **values: object) -> bytes:
    model = plain()
    found = next(t for t in model.graph.initializer if t.name == name)
    found.Clear()
    found.name, found.data_type = name, TensorProto.FLOAT
    found.dims.extend(dims)
    for field, value in values.items():
        if field == "raw_data":
            found.raw_data = value
        else:
            getattr(found, field).extend(value)
    return model.SerializeToString()


def _before_pooling(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    model = plain()
    place = next(k for k, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*kept[:place], *nodes, *kept[place:]])
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    model.graph.node[place + len(nodes)].input[0] = nodes[-1].output[0]
    return model.SerializeToString()


def _doubling_functions(levels: int) -> bytes:
    """Each local function calls the next one twice: 2^levels nodes where they are written out."""
    model = plain()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for k in range(levels):
        calls = [helper.make_node(f"F{k + 1}", ["X"], ["t"], domain="f"), helper.make_node(f"F{k + 1}", ["t"], ["Y"], domain="f")]
        model.functions.append(helper.make_function("f", f"F{k}", ["X"], ["Y"], calls, imports))
    last = [helper.make_node("Relu", ["X"], ["Y"])]
    model.functions.append(helper.make_function("f", f"F{levels}", ["X"], ["Y"], last, imports))
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.ir_version = 9
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "F0", "f"
    return model.SerializeToString()


def _endless_loop() -> bytes:
    state = ("s_in", "s_out")
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), helper.make_node("Identity", [state[0]], [state[1]])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info(state[0], TensorProto.FLOAT, [1, 16, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info(state[1], TensorProto.FLOAT, [1, 16, 8, 8]),
        ],
    )
    loop = helper.make_node("Loop", ["", "always", "r1"], ["looped"], "loop", body=body)
    return _before_pooling([loop], {"always": np.array(True)})


def cases() -> dict[str, bytes]:
    total = ["total"]
    return {
        "too_many_floats": _weight("w0", [16, 3, 3, 3], float_data=[1.0] * 1000),
        "a_thousand_axes": _weight("b0", [1] * 1000 + [16], raw_data=b"\0" * 64),
        "names_not_utf8": plain(MARK).SerializeToString().replace(MARK.encode(), b"\xff\xfe"),
        "node_name_not_utf8": plain().SerializeToString().replace(b"conv0", b"\xff\xfe\xfd00"),
        "names_with_escapes": plain("\x1b[31mRED\x1b]0;owned\x07\x1b[2J").SerializeToString(),
        "names_with_nul": plain("a\0b").SerializeToString(),
        "names_with_bidi": plain("a\u202eb").SerializeToString(),
        "huge_range": _before_pooling(
            [
                helper.make_node("Range", ["from", "to", "step"], ["big"]),
                helper.make_node("ReduceMax", ["big"], total, keepdims=0),
                helper.make_node("Cast", total, ["wide"], to=TensorProto.FLOAT),
                helper.make_node("Add", ["r1", "wide"], ["sum"]),
            ],
            {"from": np.array(0), "to": np.array(2**62), "step": np.array(1)},
        ),
        "huge_expand": _before_pooling(
            [
                helper.make_node("Expand", ["one", "sizes"], ["big"]),
                helper.make_node("ReduceSum", ["big"], total, keepdims=0),
                helper.make_node("Add", ["r1", *total], ["sum"]),
            ],
            {"one": np.ones((1, 1), np.float32), "sizes": np.array([2**31, 2**10])},
        ),
        "huge_image": plain(image=2**20).SerializeToString(),
        "functions_doubling_12": _doubling_functions(12),
        "functions_doubling_40": _doubling_functions(40),
        "endless_loop": _endless_loop(),
    }
