"""Models to begin with, and changes of what is written in them: fields, sizes, edges, types, order, data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = [0, 1, 2, 3, 7, 16, 17, -1, -(2**31), 2**31, 2**40, 2**62]
NAMES = ["", "x\x1b[2J", "a\0b", "\u202e", "n" * 3000, "../../etc/passwd", "{}", "[bold]", "r0", "input"]
TYPES = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 14, 16, 17, 21, 22, 23, 99]
OPS = "Relu Conv Add Concat Transpose Reshape Softmax MatMul Loop If Scan Identity Gemm Range Expand Tile Pad NoSuch"


def bases(root: Path, graphs: int) -> dict[str, bytes]:
    """Name -> bytes of a model that can be pruned; also ``plan`` and ``table`` of the one that is called plain, and ``wide``
    with its ``wide table``."""
    from hostile import plain
    from law import one_node, runs, surround
    from op_cases import CASES
    from random_graphs import random_model

    from onnxprune import prune
    from onnxprune.coupling.open import couple
    from onnxprune.latency.signature import timed_layers
    from onnxprune.linear.form import layers

    small = plain()
    found = {"plain": small.SerializeToString(), "demo": (root / "models/demo.onnx").read_bytes()}
    found |= {f"graph {seed}": random_model(seed).SerializeToString() for seed in range(graphs)}
    for case in CASES[::5]:
        model = one_node(case.op, case.inputs, case.attributes, case.domain, case.outputs, case.opset)
        around = surround(model, case.inputs, case.chained)
        if around is not None and runs(around):
            found[case.id] = around.SerializeToString()
    plan = prune(small, macs=0.7, samples=4, effort="fast", refit="none", threads=1).plan
    found["plan"] = plan.to_json().encode()
    points = [[i, o, 1e-6 * (i + o)] for i in (1, 64) for o in (1, 64)]
    # Wide enough for a cut to be faster by the clock of the machine, too: a cached table only steers the search.
    found["wide"] = plain(width=64, image=32).SerializeToString()
    for name, model in (("table", small), ("wide table", onnx.ModelProto.FromString(found["wide"]))):
        coupling = couple(model, {}, None)
        table = {"onnxprune_latency_table": 1, "device": "d", "runtime": "r", "threads": 1, "block": 1, "align": 1}
        table |= {"unaligned": 1.0, "per_byte": 1e-9, "per_mac": 1e-9}
        table |= {"layers": {timed.signature.key: points for timed in timed_layers(coupling, layers(coupling))}}
        found[name] = json.dumps(table).encode()
    return found


def change(draw: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """One change; of bytes that are no model any more, none."""
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:
        return content, "nothing"
    for _ in range(8):
        which = CHANGES[int(draw.integers(len(CHANGES)))]
        try:
            told = which(draw, model)
        except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
            # Not every change fits every model.
            continue
        if told.startswith("bytes "):
            return model.SerializeToString().replace(b"conv0", b"\xff\xfe\xfd00"), told
        return model.SerializeToString(), told
    return content, "nothing"


def _one(draw: np.random.Generator, items: object) -> object:
    listed = list(items)  # type: ignore[call-overload]
    return listed[int(draw.integers(len(listed)))]


def _size(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    tensor = _one(draw, model.graph.initializer)
    axis = int(draw.integers(len(tensor.dims)))
    tensor.dims[axis] = int(_one(draw, SIZES))
    return f"axis {axis} of '{tensor.name}' is {tensor.dims[axis]}"


def _axes(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    tensor = _one(draw, model.graph.initializer)
    tensor.dims.extend([1] * int(_one(draw, [1, 2, 40, 1000])))
    return f"'{tensor.name}' has {len(tensor.dims)} axes"


def _kind(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    tensor = _one(draw, model.graph.initializer)
    tensor.data_type = int(_one(draw, TYPES))
    return f"'{tensor.name}' is of type {tensor.data_type}"


def _data(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    tensor = _one(draw, model.graph.initializer)
    what = int(draw.integers(4))
    if what == 0:
        tensor.raw_data = tensor.raw_data[: int(draw.integers(len(tensor.raw_data) + 1))]
    elif what == 1:
        tensor.float_data.extend([1.0] * 5)
    elif what == 2:
        tensor.ClearField("raw_data")
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(_one(draw, [*NAMES, "net.onnx", "/dev/zero", "."])))
        tensor.external_data.add(key="offset", value=str(_one(draw, SIZES)))
    return f"data of '{tensor.name}', {['cut', 'twice', 'gone', 'elsewhere'][what]}"


def _values(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    tensor = _one(draw, model.graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    value = float(_one(draw, [0, np.nan, np.inf, -np.inf, 1e38, 1e-40, -1, 3]))
    if draw.random() < 0.5:
        array.ravel()[int(draw.integers(array.size))] = value
    else:
        array[...] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return f"'{tensor.name}' holds {value}"


def _edge(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    node = _one(draw, model.graph.node)
    values = [name for other in model.graph.node for name in (*other.input, *other.output)]
    slot = int(draw.integers(len(node.input)))
    node.input[slot] = str(_one(draw, [*values, "", "no such"]))
    return f"input {slot} of '{node.name}' is '{node.input[slot]}'"


def _arity(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    node = _one(draw, model.graph.node)
    if draw.random() < 0.5:
        del node.input[int(draw.integers(len(node.input)))]
        return f"an input of '{node.name}' removed"
    node.output.append("more")
    return f"an output of '{node.name}' added"


def _operator(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    node = _one(draw, model.graph.node)
    node.op_type = str(_one(draw, OPS.split()))
    if draw.random() < 0.1:
        node.domain = str(_one(draw, ["ai.onnx", "com.microsoft", "my.own", "\x1b"]))
    return f"'{node.name}' is {node.op_type} of '{node.domain}'"


def _attribute(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    node = _one(draw, [n for n in model.graph.node if n.attribute])
    attribute = _one(draw, node.attribute)
    what = int(draw.integers(4))
    if what == 0:
        node.attribute.remove(attribute)
    elif what == 1:
        attribute.type = int(draw.integers(0, 15))
    elif what == 2 and attribute.ints:
        attribute.ints[int(draw.integers(len(attribute.ints)))] = int(_one(draw, SIZES))
    elif what == 2:
        attribute.i = int(_one(draw, SIZES))
    else:
        node.attribute.add().CopyFrom(attribute)
    return f"attribute '{attribute.name}' of '{node.name}', {['removed', 'of another type', 'another', 'twice'][what]}"


def _nodes(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    nodes = list(model.graph.node)
    what = int(draw.integers(4))
    place = int(draw.integers(len(nodes)))
    if what == 0:
        del nodes[place]
    elif what == 1:
        nodes.insert(place, nodes[place])
    elif what == 2:
        nodes.reverse()
    else:
        nodes = [nodes[k] for k in draw.permutation(len(nodes))]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return f"nodes: {['one removed', 'one repeated', 'reversed', 'shuffled'][what]}"


def _name(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    old, new = str(_one(draw, model.graph.node).output[0]), str(_one(draw, NAMES))
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return f"'{old}' is called {new[:20]!r}"


def _bad_name(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    return "bytes that are no text in a name"


def _border(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    values = model.graph.input if draw.random() < 0.6 else model.graph.output
    value = _one(draw, values)
    what = int(draw.integers(5))
    shape = value.type.tensor_type.shape
    if what == 0:
        _one(draw, shape.dim).dim_value = int(_one(draw, SIZES))
    elif what == 1:
        _one(draw, shape.dim).dim_param = str(_one(draw, NAMES))
    elif what == 2:
        value.type.tensor_type.elem_type = int(_one(draw, TYPES))
    elif what == 3:
        value.type.tensor_type.ClearField("shape")
    else:
        value.ClearField("type")
    return f"'{value.name}': {['a size', 'a name of a size', 'its type', 'no shape', 'no type'][what]}"


def _interface(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    what = int(draw.integers(4))
    if what == 0:
        model.graph.output.add().name = str(_one(draw, model.graph.node).output[0])
    elif what == 1:
        del model.graph.output[:]
    elif what == 2:
        del model.graph.input[:]
    else:
        model.graph.input.extend([helper.make_tensor_value_info(str(_one(draw, NAMES)), 1, [1])])
    return ["an output that is not declared", "no outputs", "no inputs", "an input more"][what]


def _versions(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    if draw.random() < 0.5:
        model.ir_version = int(_one(draw, [0, 1, 3, 8, 10, 99, 2**40]))
        return f"IR version {model.ir_version}"
    entry = _one(draw, model.opset_import)
    entry.version = int(_one(draw, [0, 1, 6, 9, 11, 13, 18, 21, 99, -1, 2**40]))
    if draw.random() < 0.2:
        entry.domain = str(_one(draw, ["ai.onnx", "x", "com.microsoft"]))
    return f"opset {entry.version} of '{entry.domain}'"


def _nested(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    """A node put into the branches of an If, or the body of a Loop, that may have no end."""
    place = int(draw.integers(len(model.graph.node)))
    node = onnx.NodeProto.FromString(model.graph.node[place].SerializeToString())
    outputs = [onnx.ValueInfoProto(name=f"{name}_in") for name in node.output]
    inner = onnx.NodeProto.FromString(node.SerializeToString())
    inner.output[:] = [value.name for value in outputs]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branch = helper.make_graph([inner], "inner", [], outputs)
    chosen = helper.make_node("If", ["yes"], list(node.output), "if", then_branch=branch, else_branch=branch)
    model.graph.node[place].CopyFrom(chosen)
    return f"'{node.name}' inside an If"


def _function(draw: np.random.Generator, model: onnx.ModelProto) -> str:
    """A node called through local functions, that call each other."""
    node = _one(draw, [n for n in model.graph.node if len(n.input) == 1 and len(n.output) == 1])
    imports = [*model.opset_import, helper.make_opsetid("f", 1)]
    levels = int(_one(draw, [1, 2, 6, 50]))
    body = onnx.NodeProto.FromString(node.SerializeToString())
    body.input[:], body.output[:] = ["X"], ["Y"]
    model.functions.append(helper.make_function("f", "F0", ["X"], ["Y"], [body], imports))
    for k in range(1, levels):
        callee = f"F{k - 1 if draw.random() < 0.9 else k}"
        calls = [helper.make_node(callee, ["X"], ["t"], domain="f"), helper.make_node(callee, ["t"], ["Y"], domain="f")]
        model.functions.append(helper.make_function("f", f"F{k}", ["X"], ["Y"], calls, imports))
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.ir_version = max(model.ir_version, 9)
    node.op_type, node.domain = f"F{levels - 1}", "f"
    del node.attribute[:]
    return f"'{node.name}' through {levels} functions"


CHANGES: tuple[Callable[[np.random.Generator, onnx.ModelProto], str], ...] = (
    *(_size, _axes, _kind, _data, _values, _edge, _edge, _arity, _operator, _attribute, _attribute, _nodes, _name),
    *(_bad_name, _border, _border, _interface, _versions, _nested, _function),
)
