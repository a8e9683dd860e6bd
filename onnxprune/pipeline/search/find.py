"""Find the candidate that meets the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.budget.allocate import give_back, narrowest_keeps
from onnxprune.budget.cost import Cost, count_parameters, file_size, macs, parameters, sizes
from onnxprune.budget.excess import joint
from onnxprune.effort import EFFORTS, allocations
from onnxprune.errors import BudgetError
from onnxprune.options import Options
from onnxprune.pipeline.allocation import OVERSHOT, Allocation, narrowest, widest
from onnxprune.pipeline.candidate import Candidate
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.pricing import Pricing, group_curves
from onnxprune.pipeline.ranking import trial_macs
from onnxprune.pipeline.rounding import multiple
from onnxprune.pipeline.search.drop import by_drop
from onnxprune.pipeline.search.latency import by_latency
from onnxprune.pipeline.search.trials import Chosen, Trials
from onnxprune.pipeline.setup import Context
from onnxprune.plan import Rounding
from onnxprune.progress import Progress
from onnxprune.result import GroupCurve, SearchStep
from onnxprune.target import Budget

CALLED = {"macs": "the MACs", "params": "the parameters", "size": "the file"}
#: Multiples of channels to suggest; the first that should save time is suggested.
MULTIPLES = (8, 4, 16)
#: Share of the MACs at which to compare orders of channels if the budget is a drop.
ORDER_SHARE = 0.7
NO_FASTER = "these channel counts will probably not run faster than the original's: {}allow a larger cut"
ROUNDED = "try --round {} for faster counts, or "
BELOW = (
    "{kind} fell to {got:.0%}, below the requested {asked:.0%}: no channel counts in between should run faster; "
    "--round 1 comes closer"
)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The chosen candidate and the path of the search.  Holds no second moments: they may be larger than the model.

    ``select`` names the selector that ranked the channels.  ``rounding`` describes the preferred channel counts.
    ``curves`` are the prices of the widths.
    """

    candidate: Candidate
    steps: tuple[SearchStep, ...]
    select: str
    rounding: Rounding
    curves: tuple[GroupCurve, ...]


def find(
    context: Context,
    orders: Sequence[Pricing],
    evaluator: Evaluator,
    options: Options,
    progress: Progress,
    compute: Compute = HERE,
) -> SearchResult:
    """The candidate that meets the budget, for the best of several orders of channels.

    Cost: one :func:`onnxprune.pipeline.candidate.attempt`, one trial per order and allocation that ``effort``
    allows, and per order what :meth:`Trials.sharp` costs.  For a drop budget see :func:`onnxprune.pipeline.search.drop.by_drop`.

    Raises:
        BudgetError: the budget cannot be met.
    """
    chosen = _searched(Trials(context, orders, evaluator, options, progress, compute))
    notes = list(chosen.candidate.notes)
    if multiple(options) is None:
        notes += [*_no_faster(context, chosen), *_below(context, chosen, options)]
    for note in notes:
        progress.note(note)
    pricing = chosen.pricing
    return SearchResult(
        replace(chosen.candidate, notes=tuple(notes)),
        chosen.steps,
        pricing.select,
        pricing.rounding,
        group_curves(context, pricing.curves),
    )


def _no_faster(context: Context, chosen: Chosen) -> list[str]:
    """A note if the cut should not save time; it suggests a multiple that would, if there is one."""
    time, full = chosen.pricing.time, sizes(context.coupling)
    if time(chosen.candidate.counts) < time(full):
        return []
    fast = [
        m for m in MULTIPLES if time(np.minimum(np.maximum(chosen.candidate.counts // m * m, m), full)) < time(full)
    ]
    return [NO_FASTER.format(ROUNDED.format(fast[0]) if fast else "")]


def _below(context: Context, chosen: Chosen, options: Options) -> list[str]:
    """A note if the fast widths went far below the budget, and finer widths could keep more."""
    if len(options.budgets) != 1 or options.budgets[0].kind not in CALLED:
        return []
    kind = options.budgets[0].kind
    cost, target = cost_of(context, kind, options.budgets[0].value)
    full = cost(sizes(context.coupling))
    got, asked = cost(chosen.candidate.counts) / full, target / full
    finer = give_back(cost, chosen.pricing.curves, chosen.candidate.counts, target)
    if got >= OVERSHOT * asked or np.array_equal(finer, chosen.candidate.counts):
        return []
    return [BELOW.format(kind=CALLED[kind], got=got, asked=asked)]


def _searched(trials: Trials) -> Chosen:
    options = trials.options
    drop, latency = options.budget("max_drop"), options.budget("latency")
    kinds = [budget.kind for budget in options.budgets]
    if ("macs" in kinds or kinds == ["max_drop"]) and not trials.full:
        raise BudgetError("no operator of the model multiplies, so there are no MACs to save; give --params or --size")
    if kinds == ["max_drop"]:
        with _naming_width_options(options):
            return by_drop(trials, trials.best_order(trials.cost, ORDER_SHARE))
    costs = [cost_of(trials.context, b.kind, b.value) for b in options.budgets if b.kind not in ("max_drop", "latency")]
    _check_reachable(trials, [b for b in options.budgets if b.kind not in ("max_drop", "latency")], costs)
    if latency is not None:
        with _naming_width_options(options):
            chosen = by_latency(trials, trials.best_order(trials.orders[0].time, latency), latency, costs)
    elif costs:
        latenesses = allocations(EFFORTS[options.effort], len(trials.orders), trial_macs(trials.context))
        chosen = trials.only(trials.best(latenesses, *joint(costs)))
    else:
        # The user gave every width.
        chosen = trials.only(Allocation(trials.orders[0], widest(trials.orders[0])))
    if drop is not None and not chosen.candidate.drop.value <= drop:
        rest = " ".join([*(b.describe() for b in options.budgets if b.kind != "max_drop"), *width_options(options)])
        raise BudgetError(
            f"--max-drop {drop:g} cannot be met together with {rest}: the best cut found has a drop of "
            f"{chosen.candidate.drop.value:.4g} ({chosen.candidate.drop.metric}); raise --max-drop, or cut less"
        )
    return chosen


def _check_reachable(trials: Trials, budgets: Sequence[Budget], costs: Sequence[tuple[Cost, float]]) -> None:
    """Raise BudgetError if even the narrowest model cannot meet a budget.

    Every cost grows with every width, so the narrowest model has the minimum of all costs.
    """
    for budget, (cost, target) in zip(budgets, costs, strict=True):
        least = min(cost(narrowest(pricing)) for pricing in trials.orders)
        full = sizes(trials.context.coupling)
        widths = width_options(trials.options) if cost(np.ones(len(full))) <= target else []
        if least > target:
            together = " together with ".join([budget.describe(), *([" ".join(widths)] if widths else [])])
            remedy = "relax one of them" if widths or len(budgets) > 1 else "allow at least that"
            in_bytes = budget.kind == "size" and budget.value > 1
            share = narrowest_keeps(least / cost(full), CALLED[budget.kind])
            reached = f"the narrowest model takes {math.ceil(least):,} bytes" if in_bytes else share
            raise BudgetError(f"{together} cannot be met: {reached}; {remedy}")


def width_options(options: Options) -> list[str]:
    """The options that bind widths, as the user wrote them."""
    stated = [f"--{flag} {glob}" for flag in ("only", "exclude") for glob in getattr(options, flag)]
    for flag, widths in (("keep", options.keep), ("at-least", options.at_least), ("at-most", options.at_most)):
        stated += [f"--{flag} {width.describe()}" for width in widths]
    if options.round_to is not None and options.round_to > 1:
        stated.append(f"--round {options.round_to}")
    return [*stated, f"--target {options.target}"] if options.target is not None and multiple(options) else stated


@contextmanager
def _naming_width_options(options: Options) -> Iterator[None]:
    """Add to a BudgetError which options bind the widths."""
    try:
        yield
    except BudgetError as error:
        widths = width_options(options)
        if not widths:
            raise
        raise BudgetError(f"{error}; options that limit the widths: {' '.join(widths)}") from error


def cost_of(context: Context, kind: str, value: float) -> tuple[Cost, float]:
    """(cost, target) of a budget in MACs, parameters or bytes.  ``value`` is a share of the original, or bytes."""
    if kind == "size":
        cost, full = file_size(context.coupling, context.loaded.file_bytes), float(context.loaded.file_bytes)
    elif kind == "params":
        cost, full = parameters(context.coupling), float(count_parameters(context.loaded.proto))
    else:
        cost = macs(context.coupling)
        full = cost(sizes(context.coupling))
    target = value if kind == "size" and value > 1 else value * full
    if target >= full:
        # The original meets the budget, even if arrays that a cut would split count twice.
        target = max(target, cost(sizes(context.coupling)))
    # Rounding errors must not reject a cost that is exactly at the target.
    return cost, target * (1 + 1e-12)
