"""The edits of a cut and of its mask: new constants for their readers, a mask in front of an input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onnxprune.graph.edit import Editor, same_array
from onnxprune.graph.uses import Use, copies_of, kept_in_half, original_of, shared_uses
from onnxprune.graph.view import Graph, Node

Array = np.ndarray


def give_constants(editor: Editor, values: Mapping[Use, Array]) -> None:
    """Give each use (node index, input slot) of a constant the array ``values[use]``.

    If every use of a constant needs the same array, the constant and its copies keep their name and place.  Otherwise
    the uses get new constants, one per distinct array, and other readers keep the old one.  A constant stored in half
    precision stays in half precision if all readers of a Cast of it agree.
    """
    graph = editor.graph
    by_value: dict[str, list[Use]] = {}
    for index, slot in values:
        by_value.setdefault(original_of(graph, graph.nodes[index].inputs[slot] or ""), []).append((index, slot))
    for value, uses in by_value.items():
        copies, readers = copies_of(graph, value), set(shared_uses(graph, value))
        wanted = values[uses[0]]
        alone = readers == set(uses) and _hidden(graph, copies)
        if alone and all(same_array(values[use], wanted) for use in uses):
            if editor.store(value, wanted.astype(np.float16) if kept_in_half(graph, value) else wanted):
                _restate_made(editor, copies, wanted.shape)
                continue
        first = _give_own(editor, value, {use: values[use] for use in uses})
        if readers == set(uses) and len({values[use].shape for use in uses}) == 1:
            # A node that reads only the size would keep the old constant alive, and would return the old size.
            for node, slot in _size_readers(graph, copies):
                editor.rewire(node, slot, first)


def _give_own(editor: Editor, value: str, values: Mapping[Use, Array]) -> str:
    """Make each use read a new constant.  Returns the name of the first one's constant."""
    halves = _halves(editor, value, values)
    made: list[tuple[Array, str]] = []
    for use, own in values.items():
        (index, slot), array = halves.get(use, (use, own))
        name = next((name for other, name in made if same_array(other, array)), None)
        if name is None:
            name = editor.add(f"{value}_pruned", array)
            made.append((array, name))
        editor.rewire(editor.graph.nodes[index], slot, name)
    return made[0][1]


def _halves(editor: Editor, value: str, values: Mapping[Use, Array]) -> dict[Use, tuple[Use, Array]]:
    """Use of a Cast of a half-precision constant -> (the input of the Cast, the array to store there)."""
    graph = editor.graph
    halves: dict[Use, tuple[Use, Array]] = {}
    for name in copies_of(graph, value) if kept_in_half(graph, value) else ():
        node = graph.nodes[graph.producer[name]] if name in graph.producer else None
        if node is None or node.op != "Cast":
            continue
        copies, uses = copies_of(graph, name), shared_uses(graph, name)
        arrays = [values[use] for use in uses if use in values]
        if uses and len(arrays) == len(uses) and _hidden(graph, copies):
            if all(same_array(array, arrays[0]) for array in arrays):
                _restate_made(editor, copies, arrays[0].shape)
                halves.update(dict.fromkeys(uses, ((node.index, 0), arrays[0].astype(np.float16))))
    return halves


def _hidden(graph: Graph, values: Iterable[str]) -> bool:
    """Whether none of these values is an output of the model or of a control-flow body."""
    return {output for body in graph.bodies for output in body.outputs}.isdisjoint(values)


def _restate_made(editor: Editor, values: Iterable[str], shape: tuple[int, ...]) -> None:
    """Restate the shapes of the constants among ``values`` that nodes make: Constant nodes, and copies."""
    for value in values:
        if value in editor.graph.producer:
            editor.restate(value, dict(enumerate(shape)))


def _size_readers(graph: Graph, values: Iterable[str]) -> list[tuple[Node, int]]:
    """(node, input slot) of each Shape and Size that reads one of ``values``."""
    uses = [(graph.nodes[index], slot) for value in values for index, slot in graph.consumers.get(value, ())]
    return [(node, slot) for node, slot in uses if node.op in ("Shape", "Size") and node.domain == ""]


def add_input(editor: Editor, node: Node, slot: int, array: Array) -> None:
    """Fill an empty optional input slot with a new constant."""
    stem = next((name for name in node.proto.output if name), node.proto.op_type)
    editor.rewire(node, slot, editor.add(f"{stem}_input{slot}", array))


def insert_scale(editor: Editor, node: Node, slot: int, factors: Array) -> None:
    """Insert a Mul by ``factors`` in front of the node's input ``slot``."""
    source = editor.input(node, slot)
    masked, operand = editor.unused(f"{source}_masked"), editor.add(f"{source}_mask", factors)
    editor.insert(node, "Mul", (source, operand), masked)
    editor.rewire(node, slot, masked)


def insert_select(editor: Editor, node: Node, slot: int, stays: Array, zero: Array, zero_slot: int | None) -> None:
    """Insert a Where in front of input ``slot``.

    Elements in ``stays`` pass.  The others become the node's own input ``zero_slot`` (a zero point), or ``zero`` if the
    node has none.
    """
    source = editor.input(node, slot)
    other = "" if zero_slot is None else editor.input(node, zero_slot)
    masked, operand = editor.unused(f"{source}_masked"), editor.add(f"{source}_mask", stays)
    editor.insert(node, "Where", (operand, source, other or editor.add(f"{source}_zero", zero)), masked)
    editor.rewire(node, slot, masked)
