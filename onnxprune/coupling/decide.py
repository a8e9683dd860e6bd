"""Classes of tied atoms, with every choice decided in graph order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.components import components
from onnxprune.coupling.distinct import distinct
from onnxprune.coupling.ledger import Atoms, Choice, CutOption, Ledger, Taken
from onnxprune.coupling.reasons import BORDER, CHOSEN, NOTHING, PLACE, Reason

#: Prefer an outer factor (heads, groups) while it leaves at least this many units: runtimes are fast on whole heads
#: and groups.  Below this number, the inner factor gives the finer choice.
ENOUGH_UNITS = 8


@dataclass(frozen=True, eq=False)
class Edges:
    """All ties: node ``node[k]`` ties atoms ``left[k]`` and ``right[k]``, which stay or leave together."""

    left: Atoms
    right: Atoms
    node: Atoms


@dataclass(frozen=True, eq=False)
class Classes:
    """``of[atom]`` is a class id.  ``lock[class]`` is an index into ``reasons``, or -1 if the class may leave."""

    of: Atoms
    lock: Atoms
    reasons: tuple[Reason, ...]
    locks: tuple[Atoms, Atoms]
    edges: Edges
    taken: tuple[Taken, ...]


class _Roots:
    """Classes of atoms while choices merge them: a union-find that compresses only the paths it follows."""

    def __init__(self, root: Atoms) -> None:
        self._of = root
        self._parent = np.arange(len(root), dtype=np.int64)

    def __call__(self, atoms: Atoms) -> Atoms:
        start = self._of[atoms]
        root = self._parent[start]
        while True:
            parent = self._parent[root]
            if np.array_equal(parent, root):
                break
            root = parent
        self._parent[start] = root
        return np.asarray(root)

    def merge(self, old: Atoms, new: Atoms) -> None:
        self._parent[old] = new

    def everything(self) -> Atoms:
        return self(np.arange(len(self._of), dtype=np.int64))


def decide(ledger: Ledger, avoided: Mapping[int, int]) -> Classes:
    """Decide every choice.  ``avoided``: number of a choice → an option to avoid unless no other leaves a class free."""
    left, right, node = ledger.edges()
    lock_atoms, lock_reasons = ledger.locks()
    start = components(ledger.count, left, right)
    roots = _Roots(start)
    #: Class -> the first reason that locks it, -1 if none does.
    held = np.full(ledger.count, -1, dtype=np.int64)
    held[start[lock_atoms[::-1]]] = lock_reasons[::-1]
    reasons = list(ledger.reasons)
    decided = Ledger()
    taken: list[Taken] = []
    for number, choice in enumerate(ledger.choices):
        merged = [_merge(roots, option.ties) for option in choice.options]
        free = [_free(held, pairs) for pairs in merged]
        others = [0 if avoided.get(number) == k else n for k, n in enumerate(free)]
        pick = _pick(others if any(others) else free)
        option = choice.options[pick]
        for a, b in option.ties:
            decided.tie(a, b, choice.node)
        reason = _passed_over(choice, option)
        if free[pick] == 0:
            reason = _stuck(choice, [*reasons, *decided.reasons], [held[old] for old, _ in merged])
        for kept in option.locks:
            classes = roots(kept.ravel())
            held[classes[held[classes] < 0]] = len(reasons) + len(decided.reasons)
            decided.lock(kept, reason)
        old, new = merged[pick]
        if len(old):
            spread = held[old] >= 0
            held[new[spread][::-1]] = held[old][spread][::-1]
            roots.merge(old, new)
        counts = tuple((o.factor, n) for o, n in zip(choice.options, free, strict=True))
        taken.append(Taken(choice.node, option.factor, counts, pick))
    root = roots.everything()
    more = decided.locks()
    atoms = np.concatenate([lock_atoms, more[0]])
    which = np.concatenate([lock_reasons, more[1] + len(reasons)])
    lock = np.full(ledger.count, -1, dtype=np.int64)
    # Later assignments win.  Write in reverse, so that the first reason is the one reported.
    lock[root[atoms[::-1]]] = which[::-1]
    extra = decided.edges()
    edges = Edges(*(np.concatenate(pair) for pair in zip((left, right, node), extra, strict=True)))
    return Classes(root, lock, (*reasons, *decided.reasons), (atoms, which), edges, tuple(taken))


def _pick(free: Sequence[int]) -> int:
    enough = [k for k, n in enumerate(free) if n >= ENOUGH_UNITS]
    return enough[0] if enough else int(np.argmax(free))


def _passed_over(choice: Choice, option: CutOption) -> Reason:
    return Reason(
        f"{choice.label} splits or joins this axis; the cut takes {option.factor}", choice.node, remedy=CHOSEN
    )


def _stuck(choice: Choice, reasons: Sequence[Reason], locks: Sequence[Atoms]) -> Reason:
    """Why no option of a choice leaves a class free: the first lock that an option would meet.

    ``locks`` holds one array per option: the reason index of each class that the option touches, -1 if it is free.
    """
    pools = [[reasons[int(k)] for k in np.unique(indices) if k >= 0] for indices in locks]
    borders = [next((r for r in pool if r.remedy == BORDER), None) for pool in pools]
    # If the model's inputs or outputs lock every option, they are the cause.  Otherwise a lock with a remedy says more.
    causes = [r for r in borders if r is not None] if None not in borders else []
    causes = causes or sorted(
        (r for pool in pools for r in pool), key=lambda r: (r.remedy in (BORDER, PLACE), r.remedy in (NOTHING, CHOSEN))
    )
    cause = causes[0] if causes else None
    text = f"{choice.label} splits or joins this axis with one that cannot be cut"
    if cause is None:
        return Reason(text, choice.node)
    if cause.remedy == BORDER:
        # Name only the first node that splits or joins, not every node on the way.
        way = "" if cause.node is not None else f", which {choice.label} makes from this axis"
        return Reason(f"{cause.text}{way}", choice.node, remedy=BORDER)
    return Reason(f"{text}: {cause.text}", choice.node, remedy=cause.remedy)


def _merge(roots: _Roots, ties: Sequence[tuple[Atoms, Atoms]]) -> tuple[Atoms, Atoms]:
    """(old root, new root) of every class that ``ties`` would merge."""
    if not ties:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    left = roots(np.concatenate([a.ravel() for a, _ in ties]))
    right = roots(np.concatenate([b.ravel() for _, b in ties]))
    old, local = np.unique(np.concatenate([left, right]), return_inverse=True)
    label = components(len(old), local[: len(left)], local[len(left) :])
    representative = np.full(label.max() + 1, -1, dtype=np.int64)
    representative[label[::-1]] = old[::-1]
    return old, representative[label]


def _free(held: Atoms, merged: tuple[Atoms, Atoms]) -> int:
    old, new = merged
    if not len(old):
        return 0
    return len(distinct(new)) - len(distinct(new[held[old] >= 0]))
