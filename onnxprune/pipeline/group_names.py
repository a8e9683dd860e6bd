"""Select groups by name."""

from __future__ import annotations

from fnmatch import fnmatchcase

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.errors import BudgetError


def frozen_groups(coupling: Coupling, exclude: tuple[str, ...], only: tuple[str, ...]) -> frozenset[int]:
    """Ids of the groups that ``--exclude`` and ``--only`` leave whole.  Globs match group, node and tensor names.

    Raises:
        BudgetError: if a glob matches nothing, or nothing is left to prune.
    """
    names = {group.id: names_of(coupling, group) for group in coupling.groups}
    for flag, glob in (*(("--exclude", glob) for glob in exclude), *(("--only", glob) for glob in only)):
        if not any(matches(aliases, glob) for aliases in names.values()):
            raise BudgetError(
                f"{flag}: '{glob}' matches no prunable channels; 'onnxprune inspect' shows the names of groups"
            )
    frozen = {g for g, aliases in names.items() if any(matches(aliases, glob) for glob in exclude)}
    if only:
        frozen |= {g for g, aliases in names.items() if not any(matches(aliases, glob) for glob in only)}
    if coupling.groups and len(frozen) == len(coupling.groups):
        raise BudgetError("--exclude and --only leave no group to prune; exclude less, or name more with --only")
    return frozenset(frozen)


def names_of(coupling: Coupling, group: Group) -> frozenset[str]:
    """The names that match a group: its own name, the names of the tensors and nodes that it runs through, and
    ``op:TYPE`` for every type of operator that outputs its channels."""
    names = {group.name}
    for key, _ in group.axes:
        names.add(coupling.value_of(key))
        if isinstance(key, tuple):
            names.add(coupling.graph.nodes[key[0]].label)
        elif key in coupling.graph.producer:
            node = coupling.graph.nodes[coupling.graph.producer[key]]
            names |= {node.label, f"op:{node.op}"}
    return frozenset(names)


def matches(names: frozenset[str], glob: str) -> bool:
    """Whether one of ``names`` matches ``glob``, case-sensitively."""
    return any(fnmatchcase(name, glob) for name in names)
