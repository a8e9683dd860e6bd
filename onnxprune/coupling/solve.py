"""The best decisions for all choices: decide once, then again where one choice spoils another."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.decide import Classes, decide
from onnxprune.coupling.ledger import Atoms, CutOption, Ledger


def solve(ledger: Ledger) -> Classes:
    """Classes of tied atoms.  Decides every choice in graph order; does not change the ledger.

    Each choice takes the first option that leaves :data:`onnxprune.coupling.decide.ENOUGH_UNITS` classes free, else the
    option that leaves the most.  A later choice may lock what an earlier one left free (query heads, when a few key heads
    serve them all).  Or it may tie it into one unit (positions inside heads, when a later reader takes them in blocks).
    In such a clash, try other options at the earlier choices and at the later ones.  The result that frees the most
    positions wins.
    Cost: one connected-components pass, plus the atoms that each choice touches.  Up to four times that in a clash.
    """
    first = decide(ledger, {})
    again = dict.fromkeys(tuple(numbers) for numbers in _regretted(ledger, first) if numbers)
    others = [decide(ledger, {k: first.taken[k].option for k in numbers}) for numbers in again]
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
