"""Groups by name."""

from __future__ import annotations

from fnmatch import fnmatchcase

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.errors import BudgetError


def frozen_groups(coupling: Coupling, exclude: tuple[str, ...], only: tuple[str, ...]) -> frozenset[int]:
    """Groups that the user's globs leave out, matched against group, node and tensor names.

    Raises:
        BudgetError: where a glob matches nothing, or nothing is left to prune.
    """
    names = {group.id: names_of(coupling, group) for group in coupling.groups}
    for flag, glob in (*(("--exclude", glob) for glob in exclude), *(("--only", glob) for glob in only)):
        if not any(matches(found, glob) for found in names.values()):
            raise BudgetError(
                f"{flag}: '{glob}' matches no prunable channels; 'onnxprune inspect' shows the names of groups"
            )
    frozen = {g for g, found in names.items() if any(matches(found, glob) for glob in exclude)}
    if only:
        frozen |= {g for g, found in names.items() if not any(matches(found, glob) for glob in only)}
    if coupling.groups and len(frozen) == len(coupling.groups):
        raise BudgetError("--exclude and --only leave no group to prune")
    return frozenset(frozen)


def names_of(coupling: Coupling, group: Group) -> frozenset[str]:
    """What a group answers to: its name, the tensors and nodes that it runs through, and ``op:TYPE`` for every type of
    operator that outputs its channels."""
    found = {group.name}
    for key, _ in group.axes:
        found.add(coupling.value_of(key))
        if isinstance(key, tuple):
            found.add(coupling.graph.nodes[key[0]].label)
        elif key in coupling.graph.producer:
            node = coupling.graph.nodes[coupling.graph.producer[key]]
            found |= {node.label, f"op:{node.op}"}
    return frozenset(found)


def matches(names: frozenset[str], glob: str) -> bool:
    """Whether one of ``names`` matches; case counts."""
    return any(fnmatchcase(name, glob) for name in names)
