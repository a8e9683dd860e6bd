"""Give each reader its own copy of shared dequantized constants and shared sizes, so that each is cut on its own.

Quantizers dequantize a constant once for all its readers.  Accidental sharing (a vector of ones, a table of positions)
would then tie the channels of unrelated layers; a plain constant does not.  Exporters compute a list of sizes once for
all Reshapes that need it, though their layers may end up with different widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.coupling.provenance import COPYING
from onnxprune.coupling.rule import NodeInfo, Rule
from onnxprune.coupling.rules import lookup
from onnxprune.coupling.stated_sizes import SHAPED
from onnxprune.graph.facts import Facts
from onnxprune.graph.names import unused, value_names
from onnxprune.graph.tensors import copied
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph, Node


@dataclass(frozen=True, eq=False)
class _Copy:
    """Copy ``nodes``, ascending, for ``use`` (node, slot), which reads the first output of the last one."""

    nodes: tuple[Node, ...]
    use: Use


def with_own_constants(graph: Graph, facts: Facts) -> onnx.ModelProto | None:
    """A copy of the model with one DequantizeLinear of a constant per use; ``None`` if none is shared.

    Weights that several layers share stay shared.  The first use keeps node and value.  Cost: one copy of the model.
    """
    return _copied(graph, [_Copy((node,), use) for node in graph.nodes for use in _apart(graph, facts, node)])


def with_own_sizes(graph: Graph, facts: Facts) -> onnx.ModelProto | None:
    """A copy of the model in which each operand has its own arithmetic for varying sizes with literals among them.

    ``None`` if no such arithmetic is shared.  Sizes that do not vary need no copy: a cut can freeze them where a node
    reads them.  :func:`onnxprune.surgery.sweep.sweep` joins copies that are equal after a cut.  Cost: one copy of the
    model, and the nodes of the arithmetic per use.
    """
    stated = set(_stated(graph, facts))
    # A node that computes with the sizes themselves keeps the original arithmetic.
    taken = {
        node.index
        for reader in graph.nodes
        if reader.index not in facts.arithmetic
        for slot, value in enumerate(reader.inputs)
        if (reader.index, slot) not in stated
        for node in _chain(graph, facts, value)
    }
    copies: list[_Copy] = []
    for use in sorted(stated):
        chain = _chain(graph, facts, graph.nodes[use[0]].inputs[use[1]])
        if taken.intersection(node.index for node in chain):
            copies.append(_Copy(chain, use))
        taken.update(node.index for node in chain)
    return _copied(graph, copies)


def _copied(graph: Graph, copies: Sequence[_Copy]) -> onnx.ModelProto | None:
    if not copies:
        return None
    model = copied(graph.model)
    values = _Names(value_names(graph))
    names = _Names({node.proto.name for node in graph.nodes})
    types = {value.name: value for value in model.graph.value_info}
    made: list[tuple[int, onnx.NodeProto]] = []
    for copy in copies:
        renamed: dict[str, str] = {}
        for node in copy.nodes:
            proto = onnx.NodeProto()
            proto.CopyFrom(node.proto)
            for slot, value in enumerate(node.proto.input):
                proto.input[slot] = renamed.get(value, value)
            for slot, value in enumerate(node.proto.output):
                proto.output[slot] = renamed[value] = values.fresh(value) if value else ""
                if value in types:
                    model.graph.value_info.add().CopyFrom(types[value])
                    model.graph.value_info[-1].name = proto.output[slot]
            proto.name = names.fresh(node.proto.name) if node.proto.name else ""
            made.append((node.position, proto))
        reader = model.graph.node[graph.nodes[copy.use[0]].position]
        reader.input[copy.use[1]] = renamed[copy.nodes[-1].proto.output[0]]
    # Insert from the end, so that earlier positions stay valid.
    for position, proto in sorted(made, key=lambda pair: -pair[0]):
        model.graph.node.insert(position + 1, proto)
    return model


class _Names:
    """Creates unused names: the second use of ``x`` gets ``x_2``, and so on."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        count = self._counts[name] = self._counts.get(name, 1) + 1
        return unused(f"{name}_{count}", self._taken)


# -- sizes ------------------------------------------------------------------------------------------------------


def _stated(graph: Graph, facts: Facts) -> Iterator[Use]:
    """Operands of the main graph that state varying sizes."""
    for node in graph.nodes:
        slot = SHAPED[node.op][0] if node.op in SHAPED and node.domain == "" and not node.scope else len(node.inputs)
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is not None and node.index not in facts.arithmetic and facts.varies(value):
            yield node.index, slot


def _chain(graph: Graph, facts: Facts, value: str | None) -> tuple[Node, ...]:
    """The nodes, ascending, that assemble ``value`` from parts with numbers that a cut may have to rewrite."""
    index = graph.producer.get(value or "", -1)
    if index not in facts.arithmetic:
        return ()
    node = graph.nodes[index]
    if node.op not in COPYING or node.scope or len(node.outputs) != 1 or node.outputs[0] in graph.outputs:
        return ()
    before = {n.index: n for v in node.inputs for n in _chain(graph, facts, v)}
    if not before and not any(_literal(graph, facts, node, v) for v in node.inputs):
        return ()
    return (*(before[k] for k in sorted(before)), node)


def _literal(graph: Graph, facts: Facts, node: Node, value: str | None) -> bool:
    """Whether ``value``, an input of the Concat ``node``, holds a size above one that no caller chooses."""
    known = facts.values.get(value or "", graph.constants.get(value or ""))
    return node.op == "Concat" and known is not None and not facts.varies(value or "") and bool((known > 1).any())


# -- dequantized constants --------------------------------------------------------------------------------------


def _apart(graph: Graph, facts: Facts, node: Node) -> list[tuple[int, int]]:
    """The uses of a dequantized constant that get their own copy."""
    out = node.outputs[0] if node.outputs else None
    if node.op != "DequantizeLinear" or node.scope or out is None or out in graph.outputs:
        return []
    if any(value is not None and value not in graph.constants for value in node.inputs):
        return []
    uses = graph.consumers.get(out, ())
    if len(uses) < 2 or any(graph.nodes[index].scope for index, _ in uses):
        return []
    together = [use for use in uses if _weighs(graph, facts, graph.nodes[use[0]])]
    alone = [use for use in uses if use not in together]
    return alone if together else alone[1:]


def _weighs(graph: Graph, facts: Facts, node: Node) -> bool:
    """Whether the node multiplies its inputs, as a layer does with its weight."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None]
    entry = lookup(node.domain, node.op)
    if callable(entry) and all(v in facts.shapes for v in values):
        entry = entry(NodeInfo(node, graph, facts))
    return isinstance(entry, Rule) and (entry.linear is not None or bool(entry.macs))
