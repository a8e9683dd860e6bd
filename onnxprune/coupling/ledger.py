"""Atoms: one id per (tensor, axis, position).  Operators tie atoms together; a lock keeps an atom.

The ledger only records ties, locks and choices, as whole arrays.  :mod:`onnxprune.coupling.solve` computes the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.components import components
from onnxprune.coupling.reasons import Reason, precedence

Atoms = np.ndarray


@dataclass(frozen=True, eq=False)
class CutOption:
    """One way to cut a compound axis: it adds ``ties`` and locks the atoms in ``locks``."""

    factor: str
    ties: tuple[tuple[Atoms, Atoms], ...]
    locks: tuple[Atoms, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """A node at which exactly one of several options applies (heads or head size, groups or channels).

    Messages call the node ``label``.
    """

    node: int
    label: str
    options: tuple[CutOption, ...]


@dataclass(frozen=True, eq=False)
class Taken:
    """The ``option`` taken at a choice.  ``free`` counts the free classes that each option would have left."""

    node: int
    factor: str
    free: tuple[tuple[str, int], ...]
    option: int = 0


class Ledger:
    """Collects atoms, ties, locks and choices during the walk over the graph."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[Reason] = []
        self.choices: list[Choice] = []
        self._ties: list[tuple[Atoms, Atoms, int]] = []
        self._locks: list[tuple[Atoms, int]] = []

    def fresh(self, size: int, factors: int = 0) -> Atoms:
        """New atoms, (size,), or (size, factors) for an axis that is a product."""
        count = size * max(factors, 1)
        atoms = np.arange(self.count, self.count + count, dtype=np.int64)
        self.count += count
        return atoms.reshape(size, factors) if factors else atoms

    def tie(self, left: Atoms, right: Atoms, node: int) -> None:
        if left is not right and left.size:
            self._ties.append((left.ravel(), right.ravel(), node))

    def lock(self, atoms: Atoms, reason: Reason) -> None:
        if atoms.size:
            self._locks.append((_runs(atoms.ravel()), len(self.reasons)))
            self.reasons.append(reason)

    def choose(self, choice: Choice) -> None:
        self.choices.append(choice)

    def edges(self) -> tuple[Atoms, Atoms, Atoms]:
        """All ties as three arrays: left atom, right atom, node index."""
        if not self._ties:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, empty
        left = np.concatenate([t[0] for t in self._ties])
        right = np.concatenate([t[1] for t in self._ties])
        nodes = np.concatenate([np.full(len(t[0]), t[2], dtype=np.int64) for t in self._ties])
        return left, right, nodes

    def held(self) -> Atoms:
        """The first reason that locks each atom so far, itself or by a tie; -1 if none does, (count,).

        Cost: linear in ties and locks.
        """
        left, right, _ = self.edges()
        class_of = components(self.count, left, right)
        atoms, reasons = self.locks()
        first = np.full(self.count, -1, dtype=np.int64)
        first[class_of[atoms[::-1]]] = reasons[::-1]
        return np.asarray(first[class_of])

    def locks(self) -> tuple[Atoms, Atoms]:
        """All locks as two arrays: atom, reason index.  The most informative reasons come first."""
        if not self._locks:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        ranked = sorted(self._locks, key=lambda lock: precedence(self.reasons[lock[1]]))
        atoms = np.concatenate([a for a, _ in ranked])
        reasons = np.concatenate([np.full(len(a), r, dtype=np.int64) for a, r in ranked])
        return atoms, reasons


def _runs(atoms: Atoms) -> Atoms:
    """``atoms`` without repetitions in a row."""
    if len(atoms) < 2:
        return atoms
    first = np.ones(len(atoms), dtype=np.bool_)
    np.not_equal(atoms[1:], atoms[:-1], out=first[1:])
    return atoms if first.all() else np.asarray(atoms[first])
