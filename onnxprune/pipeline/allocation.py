"""Allocation: rank the units of every group, price every width, and choose the widths that the budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.budget.allocate import allocate
from onnxprune.budget.cost import Costing, original_macs, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.rounding import check_multiple, tiers
from onnxprune.budget.sensitivity import Measured, Survey, curves, joined, survey_of
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.locks import lock_text
from onnxprune.coupling.loosened import loosened
from onnxprune.devices import TARGETS
from onnxprune.effort import EFFORTS, selectors, trial_samples
from onnxprune.errors import BudgetError
from onnxprune.latency.source import TimeModel, time_model
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.threads import blas_threads
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.bounds import Bounds
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.plan import Asked, Cut, Plan, Rounding, fingerprint
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, evidence
from onnxprune.selection.table import SELECTORS
from onnxprune.surgery.checkpoint import tensor_cuts

Array = np.ndarray
#: A finer tier of widths replaces the fast one if it divides the output loss by WORTH_IT and the loss is above
#: NEGLIGIBLE.
WORTH_IT, NEGLIGIBLE = 3.0, 0.005
#: A cost below this share of the target overshoots it.  Then finer widths with less output loss replace the fast ones.
OVERSHOT = 0.85


@dataclass(frozen=True, eq=False)
class Pricing:
    """Per group: the order of its units, and the output loss at each width.

    ``select`` names the selector that gave the order.  ``tiers`` holds the same curves with different sets of allowed
    widths, the fastest first.  ``time`` is the cost in time.  ``rounding`` describes the fast widths.  ``losses`` is
    what was measured of each group that ``survey`` asks.
    """

    select: str
    rankings: tuple[Ranking, ...]
    tiers: tuple[tuple[Curve, ...], ...]
    grams: Mapping[int, SecondMoments]
    time: Costing
    rounding: Rounding
    survey: Survey
    losses: tuple[Measured, ...]

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves of the finest tier."""
        return self.tiers[-1]


def rank(
    context: Context, options: Options, progress: Progress, compute: Compute = HERE
) -> tuple[Mapping[str, tuple[Ranking, ...]], Mapping[int, SecondMoments]]:
    """Calibrate, and rank the units of every group with each selector to try.

    Returns the rankings per selector name, and the second moments per layer index.
    Cost: one pass of the original over the calibration data, plus the cost of the selectors.

    Raises:
        BudgetError: the model has nothing to prune, or the requested multiple is too coarse.  The message gives the
            reason.
    """
    if not context.coupling.groups:
        raise BudgetError(f"nothing in this model can be pruned: {nothing_reason(context.coupling)}")
    check_multiple(
        multiple(options), [len(group) for group in context.coupling.groups if group.id not in context.frozen]
    )
    moments = compute.moments(context, options, progress)
    effort = EFFORTS[options.effort]
    tried = selectors(effort, trial_macs(context))
    names = (options.select,) if options.select != AUTO else tried
    progress.stage("select", len(context.coupling.groups))
    rankings: dict[str, list[Ranking]] = {name: [] for name in names}
    for group in context.coupling.groups:
        with blas_threads(len(group)):
            known = evidence(context.coupling, group, context.layers, moments.grams)
        for name in names:
            rankings[name].append(SELECTORS[name](known, options.seed + group.id))
        progress.advance()
    return {name: tuple(ranked) for name, ranked in rankings.items()}, moments.grams


def multiple(options: Options) -> int | None:
    """The multiple of channels from ``--round`` or else ``--target``; None if neither is given, or ``--round auto:N``."""
    if options.round_to is None and options.block is None and options.target is not None:
        return TARGETS[options.target].multiple
    return options.round_to


def trial_macs(context: Context) -> float:
    """Multiply-accumulates of one trial.

    A trial runs the original and the cut model, and its refit costs about the same again for each.
    """
    return float(4 * original_macs(context.coupling) * trial_samples(context.fit.count))


def pricing_macs(context: Context, options: Options) -> float:
    """Multiply-accumulates that pricing may take (see :class:`onnxprune.effort.Effort`)."""
    one_pass = original_macs(context.coupling) * (context.fit.count + context.holdout.count)
    return EFFORTS[options.effort].pricing(float(one_pass))


def price(
    context: Context,
    options: Options,
    rankings: Mapping[str, Sequence[Ranking]],
    grams: Mapping[int, SecondMoments],
    progress: Progress,
    compute: Compute = HERE,
) -> tuple[Pricing, ...]:
    """Price the widths of every group: measure the output loss on the holdout, for each selector's order.

    Cost: see :func:`onnxprune.budget.sensitivity.measured` and :func:`onnxprune.latency.source.time_model`.
    """
    given = calibrated(context, grams, context.holdout, options)
    allowance, most = pricing_macs(context, options) / len(rankings), EFFORTS[options.effort].probes
    survey = survey_of(given, context.frozen, allowance, most)
    progress.stage("sensitivity", survey.steps * len(rankings))
    losses = compute.measured(context, options, grams, rankings, survey, progress) if survey.asked else ()
    curves_of = curves(context.coupling, rankings, survey, losses)
    timing = time_model(context.coupling, context.layers, options, context.engine, progress)
    allowed = tiers(timing.time, whole(context.coupling), multiple(options), timing.blocks)
    if options.asked("latency") is not None:
        # The finest tier has odd widths, which only cost time.
        allowed = allowed[:2]
    rounding = rounding_of(options, timing)
    return tuple(
        Pricing(
            name,
            tuple(order),
            tuple(_restricted(curves_of[name], widths, context.bounds) for widths in allowed),
            grams,
            timing.time,
            rounding,
            survey,
            tuple({name: one[name]} for one in losses),
        )
        for name, order in rankings.items()
    )


def sharpened(
    context: Context, options: Options, pricing: Pricing, counts: Array, progress: Progress, compute: Compute = HERE
) -> Pricing:
    """``pricing`` after a measurement of each group at ``counts`` (units kept, (groups,)).

    Interpolation is good between widths that were measured.  An allocation goes where the output loss is least by the
    curves, so it finds the places where they are too low: a few channels of every group, or nearly all of one.
    Cost: see :func:`onnxprune.budget.sensitivity.measured`, one width per group.
    """
    more = pricing.survey.at(counts, whole(context.coupling))
    if not more.asked:
        return pricing
    orders = {pricing.select: pricing.rankings}
    progress.stage("sensitivity", more.steps)
    measured = dict(zip(more.asked, compute.measured(context, options, pricing.grams, orders, more, progress), strict=True))
    losses = tuple(
        {name: [*points, *measured.get(group, {}).get(name, ())] for name, points in one.items()}
        for group, one in zip(pricing.survey.asked, pricing.losses, strict=True)
    )
    survey = joined(pricing.survey, more)
    better = curves(context.coupling, orders, survey, losses)[pricing.select]
    changed = tuple(
        tuple(Curve(new.loss, old.widths) for new, old in zip(better, tier, strict=True)) for tier in pricing.tiers
    )
    return replace(pricing, tiers=changed, survey=survey, losses=losses)


def rounding_of(options: Options, timing: TimeModel) -> Rounding:
    """Describe the channel counts that the run prefers."""
    asked, blocks = multiple(options), timing.blocks
    if asked is None:
        return Rounding("" if timing.measured else f"auto:{blocks.block}", blocks.block, blocks.because)
    return Rounding(str(asked), None, f"--round {asked}" if options.round_to is not None else f"--target {options.target}")


def _restricted(measured: Sequence[Curve], widths: Sequence[Array], bounds: Bounds) -> tuple[Curve, ...]:
    pairs = enumerate(zip(measured, widths, strict=True))
    return tuple(Curve(c.loss, bounds.of(g, np.intersect1d(c.widths, w))) for g, (c, w) in pairs)


def nothing_reason(coupling: Coupling) -> str:
    """Why nothing in a model can be cut: the locks of the first few sets of channels."""
    if coupling.held:
        first = dict.fromkeys(f"'{held.name}': {lock_text(coupling, held)}" for held in coupling.held[:3])
        more = loosened(coupling)
        return "; ".join([*first, *([] if more is None else [str(more)])])
    return "no operator has weights with channels"


def keep_of(coupling: Coupling, rankings: Sequence[Ranking], kept: Array) -> Array:
    """One boolean per unit: each group keeps the first ``kept`` (groups,) units of its ranking."""
    keep = np.zeros(coupling.unit_count, dtype=np.bool_)
    for group, ranking, count in zip(coupling.groups, rankings, kept, strict=True):
        keep[group.units[ranking.order[: int(count)]]] = True
    return keep


def within(pricing: Pricing, cost: Costing, target: float, lateness: float = 1.0) -> Array:
    """Units to keep per group, int64 (groups,), for a cost of at most ``target`` (in the unit of ``cost``).

    Output loss in the last group counts ``exp(lateness)`` times as much as in the first.  The refit of later layers
    corrects an early cut, but nothing corrects the last one.

    The first tier that meets the target wins, with two exceptions: a later tier has only a fraction of its output loss,
    or the first tier goes far below the target and a later one loses less.  The last tier allows every width.  It is
    tried only if no other tier meets the target, or if the others go far below it.

    Raises:
        BudgetError: no tier meets the target.
    """
    best: _Allocated | None = None
    late = np.exp(lateness * np.linspace(0, 1, len(pricing.rankings)))
    for number, measured in enumerate(pricing.tiers):
        tier = [Curve(c.loss * weight, c.widths) for c, weight in zip(measured, late, strict=True)]
        last = number == len(pricing.tiers) - 1
        if best is not None and last and not best.cost < OVERSHOT * target:
            break
        try:
            kept = allocate(cost, tier, target)
        except BudgetError:
            if last and best is None:
                raise
            continue
        loss = sum(float(c.loss[k]) for c, k in zip(tier, kept, strict=True))
        found = _Allocated(kept, loss, cost(kept))
        if best is None or found.replaces(best, target):
            best = found
    assert best is not None
    return best.kept


@dataclass(frozen=True, eq=False)
class _Allocated:
    """``kept`` units per group, what they are expected to do, and what they cost."""

    kept: Array
    loss: float
    cost: float

    def replaces(self, coarser: _Allocated, target: float) -> bool:
        """Whether it is worth giving up the widths that run fast."""
        worth_it = 1.0 if coarser.cost < OVERSHOT * target else WORTH_IT
        return worth_it * self.loss < coarser.loss > NEGLIGIBLE


def narrowest(pricing: Pricing) -> Array:
    """The minimum width of every group, float64 (groups,)."""
    return np.asarray([c.widths[0] for c in pricing.curves], dtype=np.float64)


def widest(pricing: Pricing) -> Array:
    """The maximum width of every group, int64 (groups,)."""
    return np.asarray([c.widths[-1] for c in pricing.curves], dtype=np.int64)


def lossless(pricing: Pricing) -> Array:
    """The narrowest widths without any output loss: only dead channels (units without contribution) leave."""
    return _free(pricing.curves)


def past_lossless(pricing: Pricing) -> tuple[Array, ...]:
    """Starting points that drop all dead channels and run fast, the narrowest first.

    Some groups reach their next fast width only if live channels leave too.  In the first starting point all of them
    do so, in the second the cheaper half, then the cheapest quarter, and so on.  All other groups keep their
    :func:`lossless` width.
    """
    free, fast = lossless(pricing), pricing.tiers[:2][-1]
    past = np.asarray([max(c.widths[c.widths <= n], default=n) for c, n in zip(fast, free, strict=True)])
    price = np.asarray([c.loss[n] for c, n in zip(fast, past, strict=True)])
    order = [g for g in np.argsort(price, kind="stable") if past[g] < free[g]]
    starts = []
    while order:
        counts = free.copy()
        counts[order] = past[order]
        starts.append(counts)
        order = order[: len(order) // 2]
    return tuple(starts)


def _free(curves: Sequence[Curve]) -> Array:
    return np.asarray([int(c.widths[np.argmax(c.loss[c.widths] <= 0.0)]) for c in curves])


def plan_of(context: Context, keep: Array, rounding: Rounding | None, options: Options) -> Plan:
    """The plan of a cut that ``options`` asked for."""
    cuts = []
    for group in context.coupling.groups:
        kept = np.flatnonzero(keep[group.units])
        if len(kept) < len(group):
            cuts.append(Cut(group.name, len(group), tuple(int(k) for k in kept)))
    rules = context.coupling.walked.rules
    tensors = tensor_cuts(context.coupling, keep)
    return Plan(fingerprint(context.loaded.proto), tuple(cuts), tensors, rules, rounding, _asked(options))


def _asked(options: Options) -> dict[str, Asked]:
    """What a plan records of the options: those that decide how many channels stay."""
    said: dict[str, Asked] = {budget.kind.replace("_", "-"): budget.value for budget in options.budgets}
    for name, widths in (("keep", options.keep), ("at-least", options.at_least), ("at-most", options.at_most)):
        said[name] = tuple(width.describe() for width in widths)
    said |= {"only": options.only, "exclude": options.exclude, "target": options.target or ()}
    return {name: value for name, value in said.items() if value != ()}


def whole(coupling: Coupling) -> Array:
    """Units per group of the uncut model, float64 (groups,)."""
    return sizes(coupling).astype(np.float64)
