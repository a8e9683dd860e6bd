"""Why a channel can or cannot leave, explained along the nodes that tie or lock it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.labels import Axis, Key, named
from onnxprune.coupling.path import path_to_lock
from onnxprune.coupling.reasons import FINAL, PLACE, PLACES, Reason
from onnxprune.errors import PlanError

#: Maximum nodes, and maximum groups or reasons, to list; the rest is counted.
LISTED = 60
FEW = 6
#: Number of groups of one tensor to show with every node they run through.
WHOLE = 2


@dataclass(frozen=True)
class _Shown:
    """What the answer already shows: ids of groups, first lines of locks."""

    groups: set[int]
    locks: set[str]


def explain(coupling: Coupling, name: str) -> str:
    """What ties or locks the tensor, node or group called ``name``, in plain words; several lines.

    For a prunable axis: its groups, and the nodes that each runs through, in order.  For a locked axis: the path of
    nodes to the lock, and what would unlock it.  Cost: linear in positions, once per axis.

    Raises:
        PlanError: if nothing has that name; the message offers similar names.
    """
    keys = _tensor(coupling, name)
    if keys:
        shown = _Shown(set(), set())
        return "\n".join(_tell_key(coupling, key, shown) for key in keys)
    nodes = [n.index for n in coupling.graph.nodes if name in (str(n.proto.name), n.label)]
    if nodes:
        return "\n".join(_tell_node(coupling, index) for index in nodes)
    groups = [g for g in coupling.groups if name in (g.name, str(g.id), f"group {g.id}")]
    if groups:
        return "\n".join(line for group in groups for line in _tell_group(coupling, group))
    if name in coupling.facts.values or name in coupling.graph.constants:
        return f"tensor '{name}'\n  {_unlabelled(coupling, name)}"
    raise PlanError(f"no tensor, node or group is called '{name}'{_similar(coupling, name)}")


def tell(reason: Reason) -> str:
    """A lock in one line, with what would unlock it."""
    return f"{reason.text}; to unlock: {reason.remedy}" if reason.remedy else reason.text


def _unlabelled(coupling: Coupling, value: str) -> str:
    made = coupling.graph.producer.get(value)
    if made is not None and made in coupling.facts.arithmetic:
        return "holds sizes, not channels; after a cut it is recomputed"
    return "is a constant that states sizes or positions, or is unused; a cut rewrites it if necessary"


def _similar(coupling: Coupling, name: str) -> str:
    known = dict.fromkeys([g.name for g in coupling.groups])
    known.update(dict.fromkeys(n.label for n in coupling.graph.nodes))
    known.update(dict.fromkeys(coupling.value_of(key) for key in coupling.walked.labels))
    folded = {text.lower(): text for text in known if text}
    close = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.6)
    close += [low for low in folded if name.lower() in low and low not in close][: 3 - len(close)]
    if not close:
        return "; 'onnxprune inspect MODEL' lists the groups"
    return "; did you mean " + " or ".join(f"'{folded[low]}'" for low in close) + "?"


def _tensor(coupling: Coupling, name: str) -> list[Key]:
    """The keys under which a tensor's axes are recorded: itself, or the uses of a constant.

    For a constant that only feeds other constants (a weight that a Transpose reads), returns their uses.  A name inside a
    control-flow body needs no prefix.
    """
    labels, graph = coupling.walked.labels, coupling.graph
    known = {v: None for node in graph.nodes for v in (*node.inputs, *node.outputs) if v is not None}
    values = [name] if name in known else [v for v in known if v.endswith(f"::{name}")]
    keys: list[Key] = []
    for value in values:
        if value in labels:
            keys.append(value)
            continue
        for index, slot in graph.consumers.get(value, ()):
            if (index, slot) in labels:
                keys.append((index, slot))
            elif index in coupling.facts.folded:
                keys += [key for out in graph.nodes[index].outputs if out for key in _tensor(coupling, out)]
    return keys


def _tell_node(coupling: Coupling, index: int) -> str:
    node = coupling.graph.nodes[index]
    lines = [f"node {named(node)}"]
    shown = _Shown(set(), set())
    bound = coupling.walked.bounds.get(index)
    if bound is not None:
        lines.append(f"  its rule: {bound}  (positions with the same letter leave together)")
    elif index in coupling.walked.locked:
        lines.append(f"  locked: {tell(coupling.walked.locked[index])}")
    elif index in coupling.walked.movers:
        lines.append("  it moves data; a run on coordinates showed where each position goes")
    elif index in coupling.facts.arithmetic:
        lines.append("  it computes sizes, which are recomputed after a cut")
    elif index in coupling.facts.folded or node.op == "Constant":
        lines.append("  it is computed from constants alone; it is cut together with the nodes that read it")
    for out in node.outputs:
        if out in coupling.walked.labels:
            lines.append(_indent(_tell_key(coupling, out or "", shown)))
    for slot in range(len(node.inputs)):
        if (index, slot) in coupling.walked.labels and len(coupling.walked.labels[index, slot]) > 1:
            lines.append(_indent(_tell_key(coupling, (index, slot), shown)))
    return "\n".join(lines)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _short(value: str) -> str:
    """A tensor's own name, without the path of its control-flow body."""
    return value.rsplit("::", 1)[-1]


def _tell_key(coupling: Coupling, key: Key, shown: _Shown) -> str:
    value = coupling.value_of(key)
    shape = "x".join(str(n) for n in coupling.facts.shapes.get(value, ())) or "a scalar"
    reader = "" if isinstance(key, str) else f", as {named(coupling.graph.nodes[key[0]])} reads it"
    lines = [f"tensor '{_short(value)}' ({shape}{reader})"]
    places: dict[str, list[int]] = {}
    for axis, atoms in enumerate(coupling.walked.labels[key]):
        if atoms.size < 2:
            continue
        place = _place(coupling, key, axis)
        if place is None:
            lines += [f"  {line}" for line in _tell_axis(coupling, key, axis, shown)]
        else:
            places.setdefault(place, []).append(axis)
    for text, axes in places.items():
        if len(axes) == 1:
            lines.append(f"  axis {axes[0]} stays: {text} (it holds {PLACES})")
        else:
            these = text.replace("this axis", "these axes")
            lines.append(f"  axes {', '.join(map(str, axes[:-1]))} and {axes[-1]} stay: {these} (they hold {PLACES})")
    if len(lines) == 1:
        lines.append("  has no axis longer than 1")
    return "\n".join(lines)


def _place(coupling: Coupling, key: Key, axis: int) -> str | None:
    """Why an axis of places, not channels, stays (rows and columns, steps, samples).  ``None`` for any other axis."""
    roots = np.unique(coupling.classes.of[coupling.walked.labels[key][axis]])
    if (coupling.classes.lock[roots] < 0).any():
        return None
    sets = [_reasons(coupling, int(root)) for root in roots[:1]]
    for reason in sets[0]:
        if reason.remedy == PLACE:
            return reason.text
    return None


def _reasons(coupling: Coupling, root: int) -> list[Reason]:
    """Every lock on one class; locks without a remedy come first."""
    atoms, which = coupling.classes.locks
    reasons = [coupling.classes.reasons[int(k)] for k in np.unique(which[coupling.classes.of[atoms] == root])]
    return sorted(reasons, key=lambda reason: reason.remedy not in FINAL)


def _tell_axis(coupling: Coupling, key: Key, axis: int, shown: _Shown) -> Iterator[str]:
    atoms = coupling.walked.labels[key][axis]
    units = coupling.units[key][axis]
    if units.ndim > 1:
        # A position of a product has several units: count it under the first that may leave.
        units = np.where(units[:, 0] >= 0, units[:, 0], units.max(axis=1))
    counts = [(group, int(np.isin(units, group.units).sum())) for group in coupling.groups]
    counts = [(group, count) for group, count in counts if count]
    roots = coupling.classes.of[atoms].ravel()
    locks = coupling.classes.lock[roots]
    if counts:
        can = sum(count for _, count in counts)
        yield f"axis {axis}: {can} of {len(atoms)} positions can leave"
        for number, (group, count) in enumerate(counts[:FEW]):
            which = f"{count} of them in " if len(counts) > 1 else ""
            if group.id in shown.groups:
                yield f"  {which}group '{group.name}', see above"
            elif number >= WHOLE:
                yield f"  {which}group '{group.name}' (ask for it by name)"
            else:
                shown.groups.add(group.id)
                first, *rest = _tell_group(coupling, group)
                yield f"  {which}{first}"
                yield from (f"  {line}" for line in rest)
        if len(counts) > FEW:
            names = ", ".join(f"'{g.name}'" for g, _ in counts[FEW:])
            yield f"  the rest in {len(counts) - FEW} more groups: {names}"
    kinds = [int(k) for k in dict.fromkeys(locks[locks >= 0].tolist())]
    for kind in kinds[:FEW]:
        stuck = roots[locks == kind]
        lines = list(_tell_lock(coupling, key, int(stuck[0])))
        again = lines[0] in shown.locks
        yield f"axis {axis}: {len(stuck)} of {atoms.size} positions stay" + (f", {lines[0].strip()}" if again else "")
        if not again:
            shown.locks.add(lines[0])
            yield from lines
    if len(kinds) > FEW:
        yield f"axis {axis}: the rest stays for {len(kinds) - FEW} more reasons"
    if not counts and not kinds:
        yield from _tell_whole(coupling, axis, roots)


def _tell_lock(coupling: Coupling, key: Key, root: int) -> Iterator[str]:
    reasons = _reasons(coupling, root)
    final = [reason for reason in reasons if reason.remedy in FINAL]
    nearest = path_to_lock(coupling, key, root, final or reasons)
    path, reason = nearest or ([], (final or reasons)[0])
    yield f"  because {reason.text}"
    if path:
        yield "  the path to it: " + " -> ".join(path)
    if reason.remedy:
        yield f"  to unlock: {reason.remedy}"
    others = [r for r in dict.fromkeys(tell(r) for r in reasons) if r != tell(reason)]
    if others and not final:
        yield f"  and then: {others[0]}" + (f", and {len(others) - 1} more locks" if len(others) > 1 else "")


def _tell_whole(coupling: Coupling, axis: int, roots: np.ndarray) -> Iterator[str]:
    """An axis without a lock that stays all the same."""
    for held in coupling.held:
        if any((coupling.classes.of[coupling.walked.labels[k][a]] == roots[0]).any() for k, a in held.axes):
            yield f"axis {axis}: {len(roots)} positions stay, because {held.reason.text}"
            yield from _through(coupling, held.axes)
            return
    yield f"axis {axis}: {len(roots)} positions stay: no weight has this axis, so a cut would save nothing"


def _tell_group(coupling: Coupling, group: Group) -> list[str]:
    first = f"group '{group.name}': {len(group)} channels; each channel leaves all of these at once"
    return [first, *_through(coupling, group.axes)]


def _through(coupling: Coupling, axes: Sequence[Axis]) -> Iterator[str]:
    """The nodes that ``axes`` run through, in order: one line per node with a weight, one line per run of other nodes."""
    places: dict[int, list[str]] = {}
    for key, axis in axes:
        if isinstance(key, tuple):
            places.setdefault(key[0], []).append(f"'{_short(coupling.value_of(key))}' axis {axis}")
        elif key in coupling.graph.producer:
            places.setdefault(coupling.graph.producer[key], [])
    passed: list[str] = []
    for index in sorted(places)[:LISTED]:
        node = coupling.graph.nodes[index]
        if not places[index]:
            passed.append(named(node))
            continue
        if passed:
            yield f"    -> {', '.join(passed)}"
            passed = []
        yield f"  {named(node)} ({', '.join(places[index])})"
    if passed:
        yield f"    -> {', '.join(passed)}"
    if len(places) > LISTED:
        yield f"  and {len(places) - LISTED} more nodes"
