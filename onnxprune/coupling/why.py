"""Why a channel can or cannot leave, told along the nodes that tie or lock it."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.atoms import Reason
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.labels import Key, named
from onnxprune.errors import PlanError

#: More nodes than this are counted, not listed.
LISTED = 60


def why(coupling: Coupling, name: str) -> str:
    """What ties or locks the tensor, node or group called ``name``, in plain words; several lines.

    A prunable axis is answered with its group and the nodes that the group runs through, in order; a locked one
    with the path of nodes to the lock, and what would unlock it.  Cost: linear in positions, once per axis.

    Raises:
        PlanError: where nothing has that name; the message offers similar names.
    """
    keys = _tensor(coupling, name)
    if keys:
        return "\n".join(_tell_key(coupling, key) for key in keys)
    nodes = [n.index for n in coupling.graph.nodes if name in (str(n.proto.name), n.label)]
    if nodes:
        return "\n".join(_tell_node(coupling, index) for index in nodes)
    groups = [g for g in coupling.groups if name in (g.name, str(g.id), f"group {g.id}")]
    if groups:
        return "\n".join(_tell_group(coupling, group, "") for group in groups)
    raise PlanError(f"no tensor, node or group is called '{name}'{_similar(coupling, name)}")


def tell(reason: Reason) -> str:
    """A lock in one sentence, with what would unlock it."""
    return f"{reason.text}; to unlock: {reason.remedy}" if reason.remedy else reason.text


def _similar(coupling: Coupling, name: str) -> str:
    known = dict.fromkeys([g.name for g in coupling.groups])
    known.update(dict.fromkeys(n.label for n in coupling.graph.nodes))
    known.update(dict.fromkeys(coupling.value_of(key) for key in coupling.walked.labels))
    folded = {text.lower(): text for text in known if text}
    close = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.6)
    close += [low for low in folded if name.lower() in low and low not in close][: 3 - len(close)]
    if not close:
        return "; `onnxprune inspect MODEL` lists the groups"
    return "; did you mean " + " or ".join(f"'{folded[low]}'" for low in close) + "?"


def _tensor(coupling: Coupling, name: str) -> list[Key]:
    """The keys under which a tensor's axes are recorded: itself, or its uses where it is a constant."""
    found: list[Key] = [key for key in coupling.walked.labels if isinstance(key, str) and key == name]
    if not found:
        found = [use for use in coupling.graph.consumers.get(name, ()) if use in coupling.walked.labels]
    return found


def _tell_node(coupling: Coupling, index: int) -> str:
    node = coupling.graph.nodes[index]
    lines = [f"node {named(node)}"]
    bound = coupling.walked.bounds.get(index)
    if bound is not None:
        lines.append(f"  rule: {bound}")
    elif index in coupling.walked.locked:
        lines.append(f"  locked: {tell(coupling.walked.locked[index])}")
    elif index in coupling.walked.movers:
        lines.append("  moves data: where each position goes was found by running it")
    for out in node.outputs:
        if out in coupling.walked.labels:
            lines.append(_indent(_tell_key(coupling, out or "")))
    for slot in range(len(node.inputs)):
        if (index, slot) in coupling.walked.labels and len(coupling.walked.labels[index, slot]) > 1:
            lines.append(_indent(_tell_key(coupling, (index, slot))))
    return "\n".join(lines)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _tell_key(coupling: Coupling, key: Key) -> str:
    value = coupling.value_of(key)
    shape = "x".join(str(n) for n in coupling.facts.shapes.get(value, ())) or "a scalar"
    reader = "" if isinstance(key, str) else f", as {named(coupling.graph.nodes[key[0]])} reads it"
    lines = [f"tensor '{value}' ({shape}{reader})"]
    for axis, atoms in enumerate(coupling.walked.labels[key]):
        if atoms.size > 1:
            lines += [f"  {line}" for line in _tell_axis(coupling, key, axis)]
    if len(lines) == 1:
        lines.append("  has no axis longer than 1")
    return "\n".join(lines)


def _tell_axis(coupling: Coupling, key: Key, axis: int) -> Iterator[str]:
    atoms = coupling.walked.labels[key][axis]
    units = coupling.units[key][axis]
    for group in coupling.groups:
        here = int(np.isin(units, group.units).sum())
        if here:
            yield f"axis {axis}: {here} of {atoms.size} positions can leave, with group '{group.name}'"
            yield from _tell_group(coupling, group, "  ").splitlines()
    roots = coupling.classes.of[atoms]
    stuck = roots[coupling.classes.lock[roots] >= 0]
    if len(stuck):
        path, reason = _to_lock(coupling, key, int(stuck[0]))
        yield f"axis {axis}: {len(stuck)} of {atoms.size} positions stay: {reason.text}"
        if path:
            yield "  tied to it through: " + " -> ".join(path)
        if reason.remedy:
            yield f"  to unlock: {reason.remedy}"
    elif (units < 0).all():
        yield f"axis {axis}: {atoms.size} positions stay: no weight has this axis, so cutting it would save nothing"


def _tell_group(coupling: Coupling, group: Group, indent: str) -> str:
    places: dict[int, list[str]] = {}
    producer = coupling.graph.producer
    for key, axis in group.axes:
        if isinstance(key, tuple):
            places.setdefault(key[0], []).append(f"'{coupling.value_of(key)}' axis {axis}")
        elif key in producer:
            places.setdefault(producer[key], [])
    lines = [f"{indent}group '{group.name}': {len(group)} channels, each of which leaves as a whole, through:"]
    for index in sorted(places)[:LISTED]:
        parts = ", ".join(places[index])
        lines.append(f"{indent}  {named(coupling.graph.nodes[index])}{f' ({parts})' if parts else ''}")
    if len(places) > LISTED:
        lines.append(f"{indent}  and {len(places) - LISTED} more nodes")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Step:
    """One place on the way to a lock: the key, and the node that led to it from the step before."""

    key: Key
    node: int | None
    before: _Step | None


def _to_lock(coupling: Coupling, start: Key, root: int) -> tuple[list[str], Reason]:
    """Nodes from ``start`` to the nearest lock of the class ``root``, and that lock's reason."""
    classes = coupling.classes
    held = {
        key
        for key, lines in coupling.walked.labels.items()
        if any((classes.of[atoms] == root).any() for atoms in lines)
    }
    atoms, which = classes.locks
    reasons = [classes.reasons[int(k)] for k in np.unique(which[classes.of[atoms] == root])]
    seen: set[Key] = {start}
    queue: deque[_Step] = deque([_Step(start, None, None)])
    while queue:
        step = queue.popleft()
        for reason in reasons:
            if _is_at(coupling, step.key, reason):
                return _path(coupling, step), reason
        for index, key in _neighbours(coupling, step.key):
            if key in held and key not in seen:
                seen.add(key)
                queue.append(_Step(key, index, step))
    return [], classes.reasons[int(classes.lock[root])]


def _is_at(coupling: Coupling, key: Key, reason: Reason) -> bool:
    if reason.value is not None:
        return coupling.value_of(key) == reason.value
    return reason.node is not None and reason.node in _touching(coupling, key)


def _touching(coupling: Coupling, key: Key) -> list[int]:
    """Nodes that make or read what is at ``key``."""
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
