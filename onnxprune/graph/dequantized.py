"""Integer weights and the nodes that dequantize them: DequantizeLinear, or a Cast, a Sub of the zero point and a Mul by
the scale, as some exporters write it."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.graph.view import Graph, Node

#: Types that store weights in few bytes.
NARROW = frozenset({"int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"})
#: Operators that read weights → at which inputs.
READERS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Gather": (0,),
    "RNN": (1, 2),
    "GRU": (1, 2),
    "LSTM": (1, 2),
}
#: Steps from integers to weights with a second operand, which must be constant: operator → inputs that may be the
#: weight.
SCALING = {"Sub": (0,), "Mul": (0, 1), "Div": (0,)}
#: Steps without a second operand.
PLAIN = frozenset({"Identity", "Cast", "Transpose"})


def dequantizes(graph: Graph, node: Node) -> bool:
    """Whether the node starts to dequantize integer weights, its first input."""
    if node.op != "Cast" or node.domain:
        return node.op == "DequantizeLinear"
    stored = graph.constants.get(node.inputs[0] or "")
    if stored is None or stored.ndim < 2 or stored.dtype.name not in NARROW:
        return False
    return _become_weights(graph, node)


def _become_weights(graph: Graph, node: Node) -> bool:
    """Whether every path from the node's output ends at a reader of weights."""
    out = node.outputs[0]
    uses = graph.consumers.get(out or "", ())
    if not uses or any(out in body.outputs for body in graph.bodies):
        return False
    for index, slot in uses:
        reader = graph.nodes[index]
        reads = not reader.domain and slot in READERS.get(reader.op, ())
        if not reads and not (_is_step(graph, reader, slot) and _become_weights(graph, reader)):
            return False
    return True


def _is_step(graph: Graph, node: Node, slot: int) -> bool:
    if node.domain or node.op in PLAIN:
        return not node.domain
    return slot in SCALING.get(node.op, ()) and node.inputs[1 - slot] in graph.computed_constants


def steps(graph: Graph, node: Node) -> Iterator[tuple[Node, int]]:
    """(node, input slot) of each step between a Cast of integers and the reader of its weights.

    Stops at a value with several readers.
    """
    while len(uses := graph.consumers.get(node.outputs[0] or "", ())) == 1:
        node, slot = graph.nodes[uses[0][0]], uses[0][1]
        if not _is_step(graph, node, slot):
            return
        yield node, slot


def readers_of_constant(graph: Graph, use: tuple[int, int]) -> list[tuple[int, int]]:
    """Uses that read the constant at ``use``: those of the node itself, or of the readers of a node that only dequantizes."""
    node = graph.nodes[use[0]]
    if use[1] != 0 or not dequantizes(graph, node):
        return [use]
    last = [node, *(step for step, _ in steps(graph, node) if node.op == "Cast")][-1]
    return list(graph.consumers.get(last.outputs[0] or "", ()))


def axis_of_value(graph: Graph, use: tuple[int, int], axis: int) -> int:
    """``axis`` of the constant at ``use``, as an axis of the value that its :func:`readers_of_constant` read."""
    node = graph.nodes[use[0]]
    if node.op == "Cast" and use[1] == 0 and dequantizes(graph, node):
        rank = graph.constants[node.inputs[0] or ""].ndim
        for step, _ in steps(graph, node):
            if step.op == "Transpose":
                axis = list(step.integers("perm") or range(rank)[::-1]).index(axis)
    return axis


def stored_source(graph: Graph, value: str) -> tuple[int, int] | None:
    """The use of integers from which a Cast, and steps that move nothing, make ``value``; ``None`` if there is none."""
    waiting, visited = [value], set[str]()
    while waiting:
        name = waiting.pop()
        node = graph.nodes[graph.producer[name]] if name in graph.producer else None
        if node is None or node.domain or node.op == "Transpose" or name in visited:
            continue
        visited.add(name)
        if node.op == "Cast" and dequantizes(graph, node):
            return node.index, 0
        before = [v for slot, v in enumerate(node.inputs) if v is not None and _is_step(graph, node, slot)]
        waiting += reversed(before)
    return None
