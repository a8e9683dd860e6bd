"""Ties of one rule at one node.  Equal factors share one vector of atoms; compounds become a choice."""

from __future__ import annotations

import itertools

import numpy as np

from onnxprune.coupling.labels import Key, Labels, named
from onnxprune.coupling.ledger import Atoms, Choice, CutOption
from onnxprune.coupling.notation import Dim
from onnxprune.coupling.reasons import LOOSEN, NOTHING, PLACE, Reason
from onnxprune.coupling.rule import Bound, DoesNotFit, Role
from onnxprune.graph.view import Node


class FactorTies:
    """Ties and locks of one node.  Call :meth:`enter` for each input, :meth:`leave` for each output, then :meth:`finish`."""

    def __init__(self, labels: Labels, node: Node, bound: Bound) -> None:
        self.labels = labels
        self.node = node
        self.bound = bound
        self.vectors: dict[str, Atoms] = {}
        self.compounds: list[tuple[Dim, Atoms]] = []

    def _live(self, dim: Dim) -> Dim:
        return tuple(f for f in dim if self.bound.sizes[f] > 1)

    def enter(self, key: Key, term: tuple[Dim, ...]) -> None:
        shape = [int(np.prod([self.bound.sizes[f] for f in dim], dtype=np.int64)) for dim in term]
        if isinstance(key, tuple) and key not in self.labels.of:
            ready = tuple(
                self._vector_for(dim, key, axis, size) for axis, (dim, size) in enumerate(zip(term, shape, strict=True))
            )
            self.labels.of[key] = ready
        labels = self.labels.get(key)
        if labels is None:
            raise DoesNotFit("an input has no known shape")
        for dim, atoms in zip(term, labels, strict=True):
            live = self._live(dim)
            if len(live) == 1:
                known = self.vectors.setdefault(live[0], atoms)
                self.labels.ledger.tie(known, atoms, self.node.index)
            elif len(live) > 1:
                self.compounds.append((dim, atoms))

    def _vector_for(self, dim: Dim, key: Key, axis: int, size: int) -> Atoms:
        live = self._live(dim)
        if len(live) == 1 and live[0] in self.vectors:
            return self.vectors[live[0]]
        return self.labels.fresh(key, axis, size)

    def leave(self, value: str, term: tuple[Dim, ...]) -> None:
        labels: list[Atoms] = []
        for axis, dim in enumerate(term):
            size = int(np.prod([self.bound.sizes[f] for f in dim], dtype=np.int64))
            atoms = self._vector_for(dim, value, axis, size)
            live = self._live(dim)
            if len(live) == 1:
                self.vectors.setdefault(live[0], atoms)
            elif len(live) > 1:
                self.compounds.append((dim, atoms))
            labels.append(atoms)
        self.labels.of[value] = tuple(labels)

    def finish(self) -> None:
        for factor, atoms in self.vectors.items():
            why = self._lock(factor)
            if why is not None:
                text, remedy = why
                self.labels.ledger.lock(atoms, Reason(f"{named(self.node)} {text}", self.node.index, remedy=remedy))
        if any(atoms.ndim > 1 for _, atoms in self.compounds):
            raise DoesNotFit("it splits an axis that is a product of channels")
        if self.compounds:
            self._choose()

    def _lock(self, factor: str) -> tuple[str, str] | None:
        """(text, remedy) if the positions of ``factor`` must stay, else ``None``."""
        role = self.bound.role(factor)
        if role is Role.MIXED:
            return "mixes all positions of this axis", LOOSEN if factor in self.bound.rule.estimates else NOTHING
        if role is Role.CREATED:
            return "creates this axis", PLACE
        return ("slides or sums over this axis", PLACE) if role is Role.CONSUMED else None

    def _choose(self) -> None:
        compounds = [(dim, self._live(dim), atoms) for dim, atoms in self.compounds]
        candidates = [[f for f in live if self.bound.role(f) is not Role.MIXED] or [""] for _, live, _ in compounds]
        options: dict[frozenset[str], CutOption] = {}
        for picks in itertools.product(*(dict.fromkeys(c) for c in candidates)):
            live = frozenset(
                f
                for f in picks
                if f and all(f not in names or f == pick for (_, names, _), pick in zip(compounds, picks, strict=True))
            )
            options.setdefault(live, self._option(live, compounds))
        best = [option for live, option in options.items() if not any(live < other for other in options)]
        self.labels.ledger.choose(Choice(self.node.index, named(self.node), tuple(best)))

    def _option(self, live: frozenset[str], compounds: list[tuple[Dim, Dim, Atoms]]) -> CutOption:
        ties: list[tuple[Atoms, Atoms]] = []
        locks: list[Atoms] = []
        representatives = {f: a for f, a in self.vectors.items() if f in live}
        split = {f for _, names, _ in compounds for f in names}
        for dim, names, atoms in compounds:
            chosen = [f for f in names if f in live]
            if not chosen:
                locks.append(atoms)
                continue
            factor = chosen[0]
            sizes = [self.bound.sizes[f] for f in dim]
            grid = np.moveaxis(atoms.reshape(sizes), dim.index(factor), 0).reshape(self.bound.sizes[factor], -1)
            known = representatives.setdefault(factor, grid[:, 0])
            ties.append((np.repeat(known, grid.shape[1]), grid.ravel()))
        locks += [a for f, a in self.vectors.items() if f in split and f not in live]
        return CutOption(" ".join(sorted(live)) or "none", tuple(ties), tuple(locks))
