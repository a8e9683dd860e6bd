"""The shortest path from a tensor to its lock, along the nodes that its channels run through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.labels import Key, named
from onnxprune.coupling.reasons import Reason


@dataclass(frozen=True)
class _Step:
    """One step on the path to a lock: the key, and the node that leads to it from the step ``before``."""

    key: Key
    node: int | None
    before: _Step | None


def path_to_lock(
    coupling: Coupling, start: Key, root: int, reasons: Sequence[Reason]
) -> tuple[list[str], Reason] | None:
    """Nodes from ``start`` to the nearest of the ``reasons`` that lock the class ``root``, and that reason.

    ``None`` if no reason names a node or tensor.  Cost: linear in positions and ties.
    """
    held = {
        key
        for key, lines in coupling.walked.labels.items()
        if any((coupling.classes.of[atoms] == root).any() for atoms in lines)
    }
    visited: set[Key] = {start}
    queue: deque[_Step] = deque([_Step(start, None, None)])
    while queue:
        step = queue.popleft()
        for reason in reasons:
            if _is_at(coupling, step.key, reason):
                return _path(coupling, step), reason
        for index, key in _neighbours(coupling, step.key):
            if key in held and key not in visited:
                visited.add(key)
                queue.append(_Step(key, index, step))
    return None


def _is_at(coupling: Coupling, key: Key, reason: Reason) -> bool:
    if reason.value is not None:
        return coupling.value_of(key) == reason.value
    return reason.node is not None and reason.node in _touching(coupling, key)


def _touching(coupling: Coupling, key: Key) -> list[int]:
    """Indices of the nodes that make or read the tensor at ``key``."""
    if isinstance(key, tuple):
        return [key[0]]
    made = coupling.graph.producer.get(key)
    readers = [index for index, _ in coupling.graph.consumers.get(key, ())]
    return [*([] if made is None else [made]), *readers]


def _neighbours(coupling: Coupling, key: Key) -> Iterator[tuple[int, Key]]:
    for index in _touching(coupling, key):
        yield from ((index, other) for other in _keys_of(coupling, index))


def _keys_of(coupling: Coupling, index: int) -> Iterable[Key]:
    node = coupling.graph.nodes[index]
    yield from (o for o in node.outputs if o is not None)
    for slot, value in enumerate(node.inputs):
        if (index, slot) in coupling.walked.labels:
            yield index, slot
        elif value is not None:
            yield value
    for body in coupling.graph.bodies[1:]:
        if body.owner == index:
            yield from (*body.inputs, *body.outputs)


def _path(coupling: Coupling, step: _Step) -> list[str]:
    names: list[str] = []
    at: _Step | None = step
    while at is not None:
        if at.node is not None:
            text = named(coupling.graph.nodes[at.node])
            if not names or names[-1] != text:
                names.append(text)
        at = at.before
    return names[::-1]
