"""The candidate that a budget asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxprune.budget.cost import Cost, count_parameters, macs, parameters, sizes, stored_bytes
from onnxprune.effort import EFFORTS, allocations
from onnxprune.options import Options
from onnxprune.pipeline.allocation import Pricing, pricing_macs, trial_macs
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.search.drop import by_drop
from onnxprune.pipeline.search.latency import by_latency
from onnxprune.pipeline.search.trials import Found, Trials
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress

#: Kept share of the MACs at which orders of channels are held against each other where a drop is searched for.
USUAL = 0.7
NO_FASTER = (
    "kernels are not expected to run these channel counts any faster than the original's: --round 8 keeps to counts "
    "that they do, or allow a larger cut"
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
    time = found.pricing.time
    if options.round_to is not None or time(found.candidate.counts) < time(sizes(context.coupling)):
        return found
    return replace(found, candidate=replace(found.candidate, notes=(*found.candidate.notes, NO_FASTER)))


def _found(trials: Trials) -> Found:
    kind, value = trials.options.goal.kind, trials.options.goal.value
    if kind == "max_drop":
        return by_drop(trials, trials.best_order(trials.cost, USUAL))
    if kind == "latency":
        return by_latency(trials, trials.best_order(trials.orders[0].time, value))
    context, options = trials.context, trials.options
    allowed = pricing_macs(context, options)
    latenesses = allocations(EFFORTS[options.effort], len(trials.orders), allowed, trial_macs(context))
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
