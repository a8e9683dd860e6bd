"""Atoms: one id per (tensor, axis, position).  Operators tie atoms together; a lock keeps an atom.

The ledger only records ties and locks, as whole arrays.  ``solve`` then computes all classes in one pass of connected
components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Atoms = np.ndarray


#: What would unlock a channel, by the kind of lock.
NOTHING = "nothing can: the result depends on every position of this axis, or on a position at a fixed index"
PLACES = "places, not channels"
PLACE = f"it holds {PLACES}"
BORDER = "nothing can: inputs and outputs of the model keep their shapes"
CHOSEN = "nothing can: onnxprune cuts a product of axes along one factor only"
LAST = "nothing can: an axis keeps at least one unit"
LOOSEN = "compute its statistic over the remaining channels (--approximate)"
SHAPE = "state the input shapes, which fixes the sizes (--shape NAME=DIMS)"
SIMPLIFY = "state the input shapes, which turns the size arithmetic into constants (--shape NAME=DIMS)"
#: The same three for a model whose inputs have fixed shapes: stating them would change nothing.
DATA = "nothing can: the input shapes are fixed, and the data decide the sizes here"
UNFIT = "nothing can: the input shapes are fixed, and no rule covers this form of the operator"
FOLD = "fold the size arithmetic into constants with an ONNX simplifier"
#: Remedies that no option and no input can bring about.
FINAL = frozenset({NOTHING, PLACE, BORDER, CHOSEN, LAST, DATA, UNFIT})


@dataclass(frozen=True)
class Reason:
    """Why positions stay.  ``text`` names the node or tensor; ``remedy`` says what would unlock the positions.

    ``node`` (index, or ``None``), ``value`` and ``axis`` say where the lock is.
    """

    text: str
    node: int | None = None
    value: str | None = None
    axis: int | None = None
    remedy: str = ""


def _rank(reason: Reason) -> int:
    """Order in which to report reasons, lowest first.

    A border of the model is the cause, whichever operators come before it.  That an axis holds places says nothing
    about its channels.
    """
    return {BORDER: 0, PLACE: 2}.get(reason.remedy, 1)


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
            self._locks.append((atoms.ravel(), len(self.reasons)))
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

    def locks(self) -> tuple[Atoms, Atoms]:
        """All locks as two arrays: atom, reason index.  The most informative reasons come first."""
        if not self._locks:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        ranked = sorted(self._locks, key=lambda lock: _rank(self.reasons[lock[1]]))
        atoms = np.concatenate([a for a, _ in ranked])
        reasons = np.concatenate([np.full(len(a), r, dtype=np.int64) for a, r in ranked])
        return atoms, reasons


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


#: Prefer an outer factor (heads, groups) while it leaves at least this many units: runtimes are fast on whole heads
#: and groups.  Below this number, the inner factor gives the finer choice.
ENOUGH_UNITS = 8


def solve(ledger: Ledger) -> Classes:
    """Classes of tied atoms.  Decides every choice in graph order; does not change the ledger.

    Each choice takes the first option that leaves ``ENOUGH_UNITS`` classes free, else the option that leaves the most.
    A later choice may lock what an earlier one left free (query heads, when a few key heads serve them all).  Or it may
    tie it into one unit (positions inside heads, when a later reader takes them in blocks).  In such a clash, try
    other options at the earlier choices and at the later ones; the result that frees the most positions wins.
    Cost: one connected-components pass, plus the atoms that each choice touches.  Up to four times that in a clash.
    """
    first = _decide(ledger, {})
    again = dict.fromkeys(tuple(numbers) for numbers in _regretted(ledger, first) if numbers)
    others = [_decide(ledger, {k: first.taken[k].option for k in numbers}) for numbers in again]
    return max([first, *others], key=lambda classes: _freedom(ledger, classes)) if others else first


def _freedom(ledger: Ledger, classes: Classes) -> int:
    """Positions that may leave."""
    free = classes.lock < 0
    free[_lonely(ledger, classes)] = False
    return int(free[classes.of].sum())


def _regretted(ledger: Ledger, classes: Classes) -> tuple[list[int], list[int], list[int]]:
    """Three sets of choices to decide differently.

    The first holds choices whose option ended up with nothing free.  The second holds the choices that caused it.  The
    third joins the first with the choices that blocked its other options.
    """
    at = {choice.node: number for number, choice in enumerate(ledger.choices)}
    lonely = set(_lonely(ledger, classes).tolist())
    regretted: list[int] = []
    culprits: dict[int, None] = {}
    blocking: dict[int, None] = {}

    def makers(locks: Atoms, number: int) -> dict[int, None]:
        by = (classes.reasons[int(k)].node for k in np.unique(locks[locks >= 0]))
        return {at[node]: None for node in by if node in at and at[node] != number}

    for number, (choice, taken) in enumerate(zip(ledger.choices, classes.taken, strict=True)):
        if taken.free[taken.option][1] < 2:
            continue
        roots = _tied(classes, choice.options[taken.option])
        locks = classes.lock[roots]
        if lonely.intersection(roots[:1].tolist()) or (len(locks) and (locks >= 0).all()):
            regretted.append(number)
            culprits.update(makers(locks, number))
            for option in choice.options:
                blocking.update(makers(classes.lock[_tied(classes, option)], number))
    return regretted, list(culprits), sorted({*regretted, *blocking})


def _tied(classes: Classes, option: CutOption) -> Atoms:
    """Classes of the positions that an option ties."""
    if not option.ties:
        return np.empty(0, dtype=np.int64)
    return np.asarray(classes.of[np.concatenate([atoms.ravel() for atoms, _ in option.ties])])


def _lonely(ledger: Ledger, classes: Classes) -> Atoms:
    """Free classes that hold every position of an axis at a choice.  Such a class cannot leave: one unit must stay."""
    lonely: set[int] = set()
    for choice, taken in zip(ledger.choices, classes.taken, strict=True):
        roots = _tied(classes, choice.options[taken.option])
        if len(roots) > 1 and (roots == roots[0]).all() and classes.lock[roots[0]] < 0:
            lonely.add(int(roots[0]))
    return np.asarray(sorted(lonely), dtype=np.int64)


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


def _decide(ledger: Ledger, avoided: Mapping[int, int]) -> Classes:
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
    """Why no option of a choice leaves a class free: the first lock behind any option.

    ``locks`` holds one array per option: the reason index of each class that the option touches, -1 if it is free.
    """
    pools = [[reasons[int(k)] for k in np.unique(indices) if k >= 0] for indices in locks]
    borders = [next((r for r in pool if r.remedy == BORDER), None) for pool in pools]
    # If a border locks every option, the border is the cause.  Otherwise a lock with a remedy says more.
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


def components(count: int, left: Atoms, right: Atoms) -> Atoms:
    """Component id (count,) of each atom, where ``left[k]`` and ``right[k]`` are tied."""
    graph = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


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
    return int(len(np.unique(new)) - len(np.unique(new[held[old] >= 0])))
