"""Bodies that no sample runs: a branch of an If that is never taken, a Loop without iterations.

Nothing shows what a cut of their channels would do: not on the held-out samples, and not in the verification.  So groups
that run through such a body stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.errors import BudgetError
from onnxprune.graph.view import Body, Graph, Node

Array = np.ndarray


@dataclass(frozen=True)
class Untaken:
    """``groups``: ids of the groups that run through a body which no sample runs.  ``notes``: one per body."""

    groups: frozenset[int]
    notes: tuple[str, ...]


def untaken(coupling: Coupling, engine: Engine, datasets: Sequence[Dataset]) -> Untaken:
    """The groups in bodies that no sample of ``datasets`` runs.  Only bodies of the main graph's nodes are looked at.

    Cost: if a group runs through a body, the part of the original that decides which bodies run, on all samples.

    Raises:
        BudgetError: no other group is left.
    """
    graph = coupling.graph
    through = {group.id: _scopes(coupling, group) for group in coupling.groups}
    held = {
        body: [group.id for group in coupling.groups if any(s.startswith(body.scope) for s in through[group.id])]
        for body in graph.bodies
        if body.owner is not None and graph.nodes[body.owner].scope == graph.main.scope
    }
    held = {body: groups for body, groups in held.items() if groups}
    idle = [body for body in held if body not in _run(graph, list(held), engine, datasets)] if held else []
    groups = frozenset(group for body in idle for group in held[body])
    if idle and len(groups) == len(coupling.groups):
        raise BudgetError(f"{_told(graph, idle[0])}, and nothing else can be pruned; give samples that run it")
    return Untaken(groups, tuple(f"{_told(graph, b)}: its {len(held[b])} groups of channels stay whole; give samples that run it" for b in idle))


def _scopes(coupling: Coupling, group: Group) -> frozenset[str]:
    """The scopes of the nodes that make or read the group's channels as one of their operands."""
    graph = coupling.graph
    scopes = set()
    for key, _ in group.axes:
        if isinstance(key, tuple):
            scopes.add(graph.nodes[key[0]].scope)
        elif key in graph.producer:
            scopes.add(graph.nodes[graph.producer[key]].scope)
    return frozenset(scopes)


def _told(graph: Graph, body: Body) -> str:
    assert body.owner is not None
    node = graph.nodes[body.owner]
    return f"no sample runs the {body.attribute} of {node.op} '{node.label}'"


def _run(graph: Graph, bodies: Sequence[Body], engine: Engine, datasets: Sequence[Dataset]) -> frozenset[Body]:
    """The ``bodies`` that a sample runs."""
    owners = {body: graph.nodes[body.owner] for body in bodies if body.owner is not None}
    deciding = {v for node in owners.values() for v in _deciding(node) if v is not None}
    stated = {value: np.asarray(graph.constants[value]) for value in deciding if value in graph.constants}
    asked = sorted(deciding - stated.keys())
    found: set[Body] = set()
    for values in _values(graph, asked, engine, datasets):
        known = {**stated, **values}
        found.update(body for body, node in owners.items() if _runs(node, body.attribute, known))
        if len(found) == len(bodies):
            break
    return frozenset(found)


def _values(graph: Graph, names: Sequence[str], engine: Engine, datasets: Sequence[Dataset]) -> Iterator[dict[str, Array]]:
    if not names:
        yield {}
        return
    session = open_session(graph.model, engine, names)
    for dataset in datasets:
        for feeds in dataset.batches(dataset.batch_limit or 1):
            yield dict(zip(names, run(session, feeds, names), strict=True))


def _deciding(node: Node) -> tuple[str | None, ...]:
    """The values that decide which bodies of ``node`` run."""
    return {"If": node.inputs[:1], "Loop": node.inputs[:2]}.get(node.op, ())


def _runs(node: Node, attribute: str, values: dict[str, Array]) -> bool:
    positive = [bool(np.ravel(values[value])[0] > 0) for value in _deciding(node) if value is not None]
    if node.op == "If":
        return positive[0] == (attribute == "then_branch")
    return all(positive)
