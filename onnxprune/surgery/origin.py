"""How parts of a model are known again after a trip through onnx-graphsurgeon: stamps on nodes, tokens for weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

import onnx
import onnx_graphsurgeon as gs

from onnxprune.graph.tensors import map_tensors

_TOKEN = "onnxprune.origin"
#: The attribute of a graphsurgeon node that says where it came from: (path of its graph, index there).
STAMP = "_onnxprune_origin"


def visible_functions(model: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """The functions that a round trip keeps apart."""
    # onnx-graphsurgeon tells functions apart by domain and name only.
    seen: defaultdict[Hashable, int] = defaultdict(int)
    for function in model.functions:
        seen[function_key(function)] += 1
    return [function for function in model.functions if seen[function_key(function)] == 1]


def function_key(function: onnx.FunctionProto) -> tuple[str, str]:
    """(domain, name)."""
    return function.domain, function.name


def function_path(function: onnx.FunctionProto) -> str:
    """What the nodes of a function's body are stamped with."""
    return f"{function.domain}::{function.name}/"


def inner_path(path: str, at: int, attribute: str) -> str:
    """The path of the body in ``attribute`` of node number ``at`` of the graph at ``path``."""
    return f"{path}{at}.{attribute}/"


def known_dtype(data_type: int) -> bool:
    """Whether the installed onnx knows this element type."""
    return data_type != onnx.TensorProto.UNDEFINED and data_type in onnx.helper.get_all_tensor_dtypes()


def stub_of(tensor: onnx.TensorProto, token: int) -> onnx.TensorProto:
    """A tensor of the same name and shape without its data, marked with ``token``."""
    # onnx-graphsurgeon asks for the size of each element, which an unknown type has not.
    data_type = tensor.data_type if known_dtype(tensor.data_type) else onnx.TensorProto.UINT8
    # Marked external with an empty location, so that a stub that escapes fails to load instead of being
    # zeros.
    stub = onnx.TensorProto(dims=tensor.dims, data_type=data_type, data_location=onnx.TensorProto.EXTERNAL)
    if tensor.HasField("name"):
        stub.name = tensor.name
    stub.external_data.add(key=_TOKEN, value=str(token))
    return stub


def tensors_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The model's tensors, each at the index that its stub's token says."""
    found: list[onnx.TensorProto] = []

    def collect(tensor: onnx.TensorProto) -> onnx.TensorProto:
        found.append(tensor)
        return stub_of(tensor, 0)

    map_tensors(model, collect)
    return found


def token_of(tensor: onnx.TensorProto) -> int | None:
    """The token of a stub, ``None`` for any other tensor."""
    return next((int(entry.value) for entry in tensor.external_data if entry.key == _TOKEN), None)


# Per graph of the export: of each node, the path of its graph in the original and its index there.
StampMap = dict[str, tuple[object, ...]]


def stamps_of(graph: gs.Graph) -> StampMap:
    """The stamps of all nodes, bodies and functions included; ``None`` for a node that was added."""
    found: StampMap = {}

    def walk(part: gs.Graph, path: str) -> None:
        found[path] = tuple(getattr(node, STAMP, None) for node in part.nodes)
        for at, node in enumerate(part.nodes):
            for name, value in node.attrs.items():
                if isinstance(value, gs.Graph):
                    walk(value, inner_path(path, at, name))

    walk(graph, "")
    for function in graph.functions:
        walk(function, f"{function.domain or ''}::{function.name}/")
    return found
