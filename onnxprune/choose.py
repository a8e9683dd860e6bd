"""From a study to a plan: rank every group's units, price every width, keep what the budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget.allocate import Curve, allocate
from onnxprune.budget.cost import Cost, sizes
from onnxprune.budget.sensitivity import curves
from onnxprune.calibration.moments import measure
from onnxprune.checkpoint import tensor_cuts
from onnxprune.coupling.groups import Coupling
from onnxprune.errors import BudgetError
from onnxprune.linear.gram import Gram
from onnxprune.options import Options
from onnxprune.plan import Cut, Plan, fingerprint
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, evidence
from onnxprune.selection.table import SELECTORS
from onnxprune.study import Study

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Choices:
    """Per group: the order in which units stay, and what each width would cost the output."""

    rankings: tuple[Ranking, ...]
    curves: tuple[Curve, ...]
    grams: Mapping[int, Gram]


def rank(work: Study, options: Options, progress: Progress) -> tuple[tuple[Ranking, ...], Mapping[int, Gram]]:
    """Calibrate, and order the units of every group.

    Raises:
        BudgetError: where the model has nothing to prune; the message says what holds it.
    """
    if not work.coupling.groups:
        raise BudgetError(f"nothing in this model can be pruned: {nothing_reason(work.coupling)}")
    moments = measure(work.coupling, list(work.layers), work.fit, work.engine, options.seed, progress)
    progress.stage("select", len(work.coupling.groups))
    select = SELECTORS[options.select]
    rankings = []
    for group in work.coupling.groups:
        rankings.append(select(evidence(work.coupling, group, work.layers, moments.grams), options.seed + group.id))
        progress.advance()
    return tuple(rankings), moments.grams


def price(
    work: Study, options: Options, rankings: Sequence[Ranking], grams: Mapping[int, Gram], progress: Progress
) -> Choices:
    """Measure how each group's narrowing hurts the output on the holdout."""
    found = curves(
        work.coupling,
        rankings,
        work.layers,
        grams,
        work.holdout,
        work.engine,
        options.round_to,
        work.frozen,
        progress,
    )
    return Choices(tuple(rankings), tuple(found), grams)


def nothing_reason(coupling: Coupling) -> str:
    if coupling.held:
        return "; ".join(dict.fromkeys(f"'{h.name}' {h.reason.text}" for h in coupling.held[:3]))
    return "no operator in it has channels with weights"


def keep_of(coupling: Coupling, rankings: Sequence[Ranking], kept: Array) -> Array:
    """One boolean per unit, from the number of units kept per group."""
    keep = np.zeros(coupling.unit_count, dtype=np.bool_)
    for group, ranking, count in zip(coupling.groups, rankings, kept, strict=True):
        keep[group.units[ranking.order[: int(count)]]] = True
    return keep


def within(work: Study, choices: Choices, cost: Cost, target: float) -> Array:
    """Units kept per group for a cost of at most ``target``."""
    return allocate(cost, choices.curves, target)


def lossless(choices: Choices) -> Array:
    """The narrowest widths that cost nothing at all: units without any contribution (dead channels)."""
    return np.asarray([int(c.widths[np.argmax(c.damage[c.widths] <= 0.0)]) for c in choices.curves])


def plan_of(work: Study, keep: Array) -> Plan:
    """The plan of a cut, for the file."""
    cuts = []
    for group in work.coupling.groups:
        kept = np.flatnonzero(keep[group.units])
        if len(kept) < len(group):
            cuts.append(Cut(group.name, len(group), tuple(int(k) for k in kept)))
    return Plan(fingerprint(work.loaded.proto), tuple(cuts), tensor_cuts(work.coupling, keep))


def whole(coupling: Coupling) -> Array:
    return sizes(coupling).astype(np.float64)
