"""The edits of a cut and of its mask: constants for those who read them, a mask in front of an input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onnxprune.graph.edit import Editor, same_array
from onnxprune.graph.view import Graph, Node, copies_of, kept_in_half, original_of, shared_uses

Array = np.ndarray
Use = tuple[int, int]


def give_constants(editor: Editor, values: Mapping[Use, Array]) -> None:
    """Give each use (node index, input slot) of a constant the array ``values[use]``.

    A constant whose every use asks for the same array keeps its name and place, as do its copies.  Otherwise the uses
    get constants of their own, one for all that ask for the same, so that no other reader is touched.  A constant kept
    in half precision stays so where all who read one Cast of it agree.
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
            # Who asks for its size would keep the original alive, and get the old size.
            for node, slot in _asking(graph, copies):
                editor.rewire(node, slot, first)


def _give_own(editor: Editor, value: str, values: Mapping[Use, Array]) -> str:
    """Let each use read a new constant; the answer is the name of the first one's."""
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
    """Uses of casts of a constant in half precision -> the input of the Cast, and what to store there."""
    graph = editor.graph
    found: dict[Use, tuple[Use, Array]] = {}
    for name in copies_of(graph, value) if kept_in_half(graph, value) else ():
        node = graph.nodes[graph.producer[name]] if name in graph.producer else None
        if node is None or node.op != "Cast":
            continue
        copies, uses = copies_of(graph, name), shared_uses(graph, name)
        arrays = [values[use] for use in uses if use in values]
        if uses and len(arrays) == len(uses) and _hidden(graph, copies):
            if all(same_array(array, arrays[0]) for array in arrays):
                _restate_made(editor, copies, arrays[0].shape)
                found.update(dict.fromkeys(uses, ((node.index, 0), arrays[0].astype(np.float16))))
    return found


def _hidden(graph: Graph, values: Iterable[str]) -> bool:
    """Whether none of these values leaves the model or a body of control flow."""
    return {output for body in graph.bodies for output in body.outputs}.isdisjoint(values)


def _restate_made(editor: Editor, values: Iterable[str], shape: tuple[int, ...]) -> None:
    """Restate the shapes of those of these constants that nodes make: Constant nodes, and copies."""
    for value in values:
        if value in editor.graph.producer:
            editor.restate(value, dict(enumerate(shape)))


def _asking(graph: Graph, values: Iterable[str]) -> list[tuple[Node, int]]:
    """The uses by nodes that only ask for the size of what they read."""
    uses = [(graph.nodes[index], slot) for value in values for index, slot in graph.consumers.get(value, ())]
    return [(node, slot) for node, slot in uses if node.op in ("Shape", "Size") and node.domain == ""]


def add_input(editor: Editor, node: Node, slot: int, array: Array) -> None:
    """Give an empty optional input slot a constant of its own."""
    stem = next((name for name in node.proto.output if name), node.proto.op_type)
    editor.rewire(node, slot, editor.add(f"{stem}_input{slot}", array))


def insert_scale(editor: Editor, node: Node, slot: int, factors: Array) -> None:
    """Put a Mul by ``factors`` between the node and its input ``slot``."""
    source = editor.input(node, slot)
    masked, operand = editor.unused(f"{source}_masked"), editor.add(f"{source}_mask", factors)
    editor.insert(node, "Mul", (source, operand), masked)
    editor.rewire(node, slot, masked)


def insert_select(editor: Editor, node: Node, slot: int, stays: Array, zero: Array, zero_slot: int | None) -> None:
    """Put a Where in front of input ``slot``: what ``stays`` passes, the rest becomes the node's own input
    ``zero_slot`` (a zero point), or ``zero`` where there is none."""
    source = editor.input(node, slot)
    other = "" if zero_slot is None else editor.input(node, zero_slot)
    masked, operand = editor.unused(f"{source}_masked"), editor.add(f"{source}_mask", stays)
    editor.insert(node, "Where", (operand, source, other or editor.add(f"{source}_zero", zero)), masked)
    editor.rewire(node, slot, masked)
