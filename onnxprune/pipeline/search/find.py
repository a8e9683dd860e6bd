"""The candidate that a budget asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxprune.budget.allocate import give_back
from onnxprune.budget.cost import Cost, count_parameters, macs, parameters, sizes, stored_bytes
from onnxprune.effort import EFFORTS, allocations
from onnxprune.options import Options
from onnxprune.pipeline.allocation import OVERSHOT, Pricing, trial_macs
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.search.drop import by_drop
from onnxprune.pipeline.search.latency import by_latency
from onnxprune.pipeline.search.trials import Found, Trials
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress

#: Multiples of channels to advise, the first that is expected to save time.
MULTIPLES = (8, 4, 16)
#: Kept share of the MACs at which orders of channels are held against each other where a drop is searched for.
USUAL = 0.7
NO_FASTER = "kernels are not expected to run these channel counts any faster than the original's: {}allow a larger cut"
ROUNDED = "--round {} keeps to counts that they do, or "
BELOW = (
    "{kind} fell to {got:.0%}, where {asked:.0%} were asked for: no counts in between are expected to run faster; "
    "--round 1 comes nearer"
)


def find(
    context: Context, orders: Sequence[Pricing], evaluator: Evaluator, options: Options, progress: Progress
) -> Found:
    """The candidate that the budget asks for, of one of several orders of channels.

    Cost: one :func:`onnxprune.pipeline.candidate.attempt`, and a quick one per order and allocation that ``effort`` lets it try;
    for a largest drop see :func:`onnxprune.pipeline.search.drop.by_drop`.

    Raises:
        BudgetError: where the budget cannot be met.
    """
    found = _found(Trials(context, orders, evaluator, options, progress))
    if options.round_to is not None:
        return found
    notes = [*_no_faster(context, found), *_below(context, found, options)]
    return replace(found, candidate=replace(found.candidate, notes=(*found.candidate.notes, *notes)))


def _no_faster(context: Context, found: Found) -> list[str]:
    """A note where the cut is not expected to save time, with a multiple that would, if there is one."""
    time, full = found.pricing.time, sizes(context.coupling)
    if time(found.candidate.counts) < time(full):
        return []
    fast = [m for m in MULTIPLES if time(np.minimum(np.maximum(found.candidate.counts // m * m, m), full)) < time(full)]
    return [NO_FASTER.format(ROUNDED.format(fast[0]) if fast else "")]


def _below(context: Context, found: Found, options: Options) -> list[str]:
    """A note where counts that run fast left far less than was asked for, and finer ones could keep more."""
    kind, value = options.goal.kind, options.goal.value
    if kind not in ("macs", "params", "size"):
        return []
    cost, target = cost_of(context, kind, value)
    got, asked = (part / cost(sizes(context.coupling)) for part in (cost(found.candidate.counts), target))
    finer = give_back(cost, found.pricing.curves, found.candidate.counts, target)
    if got >= OVERSHOT * asked or np.array_equal(finer, found.candidate.counts):
        return []
    return [BELOW.format(kind={"macs": "the MACs", "params": "the parameters", "size": "the file"}[kind],
                         got=got, asked=asked)]  # fmt: skip


def _found(trials: Trials) -> Found:
    kind, value = trials.options.goal.kind, trials.options.goal.value
    if kind == "max_drop":
        return by_drop(trials, trials.best_order(trials.cost, USUAL))
    if kind == "latency":
        return by_latency(trials, trials.best_order(trials.orders[0].time, value))
    latenesses = allocations(EFFORTS[trials.options.effort], len(trials.orders), trial_macs(trials.context))
    return trials.only(*trials.best(latenesses, *cost_of(trials.context, kind, value)))


def cost_of(context: Context, kind: str, value: float) -> tuple[Cost, float]:
    """(cost, target) of a budget in MACs, parameters or bytes: a share of the whole model's, or bytes."""
    if kind == "size":
        cost, full = stored_bytes(context.coupling, context.loaded.file_bytes), float(context.loaded.file_bytes)
    elif kind == "params":
        cost, full = parameters(context.coupling), float(count_parameters(context.loaded.proto))
    else:
        cost = macs(context.coupling)
        full = cost(sizes(context.coupling))
    target = value if kind == "size" and value > 1 else value * full
    if target >= full:
        # Nothing need go, even where arrays that a cut would split count twice.
        target = max(target, cost(sizes(context.coupling)))
    # Rounding of sums of products must not refuse what is exactly at the target.
    return cost, target * (1 + 1e-12)
