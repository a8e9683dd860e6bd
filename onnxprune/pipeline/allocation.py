"""From a context to a plan: rank the units of every group, price every width, keep what the budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget.allocate import Curve, allocate
from onnxprune.budget.cost import Costing, macs, sizes
from onnxprune.budget.rounding import check_multiple, tiers
from onnxprune.budget.sensitivity import curves, survey_of
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.locks import lock_text
from onnxprune.coupling.loosened import loosened
from onnxprune.devices import TARGETS
from onnxprune.effort import EFFORTS, selectors, trial_samples
from onnxprune.errors import BudgetError
from onnxprune.latency.source import Clock, clock
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.threads import blas_threads
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.bounds import Bounds
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.plan import Cut, Plan, Rounding, fingerprint
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, evidence
from onnxprune.selection.table import SELECTORS
from onnxprune.surgery.checkpoint import tensor_cuts

Array = np.ndarray
#: Widths that run fast are given up for finer ones where those do this many times less damage, and it matters.
WORTH_IT, NEGLIGIBLE = 3.0, 0.005
#: A cost below this share of the target is more than was asked for: finer widths that do less damage are taken instead.
OVERSHOT = 0.85


@dataclass(frozen=True, eq=False)
class Pricing:
    """Per group: the order in which units stay, and what each width would cost the output.

    ``select``: the name of the selector whose order it is.  ``tiers``: the same curves with the widths that may be
    chosen, those that run fastest first.  ``time``: what says how fast they run.  ``rounding``: which those are.
    """

    select: str
    rankings: tuple[Ranking, ...]
    tiers: tuple[tuple[Curve, ...], ...]
    grams: Mapping[int, SecondMoments]
    time: Costing
    rounding: Rounding

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The finest."""
        return self.tiers[-1]


def rank(
    context: Context, options: Options, progress: Progress, compute: Compute = HERE
) -> tuple[Mapping[str, tuple[Ranking, ...]], Mapping[int, SecondMoments]]:
    """Calibrate, and order the units of every group by each selector that is to be tried, by name; also the second
    moments that this took, by layer index.

    Cost: one pass of the original over the calibration data, and what the selectors say of theirs.

    Raises:
        BudgetError: where the model has nothing to prune; the message says what holds it, or that the multiple asked
            for is too coarse.
    """
    if not context.coupling.groups:
        raise BudgetError(f"nothing in this model can be pruned: {nothing_reason(context.coupling)}")
    check_multiple(
        multiple(options), [len(group) for group in context.coupling.groups if group.id not in context.frozen]
    )
    moments = compute.moments(context, options, progress)
    effort = EFFORTS[options.effort]
    tried = selectors(effort, pricing_macs(context, options), trial_macs(context))
    names = (options.select,) if options.select != AUTO else tried
    progress.stage("select", len(context.coupling.groups))
    rankings: dict[str, list[Ranking]] = {name: [] for name in names}
    for group in context.coupling.groups:
        with blas_threads(len(group)):
            found = evidence(context.coupling, group, context.layers, moments.grams)
        for name in names:
            rankings[name].append(SELECTORS[name](found, options.seed + group.id))
        progress.advance()
    return {name: tuple(found) for name, found in rankings.items()}, moments.grams


def multiple(options: Options) -> int | None:
    """The multiple of channels asked for: by ``--round``, else by ``--target``; None where neither is given."""
    if options.round_to is None and options.target is not None:
        return TARGETS[options.target].multiple
    return options.round_to


def trial_macs(context: Context) -> float:
    """Multiply-accumulates of one quick refit: it runs the original and the cut model, and computes about as much
    again for each."""
    return float(4 * macs(context.coupling)(sizes(context.coupling)) * trial_samples(context.fit.count))


def pricing_macs(context: Context, options: Options) -> float:
    """Multiply-accumulates that pricing may take; see :class:`onnxprune.effort.Effort`."""
    one_pass = macs(context.coupling)(sizes(context.coupling)) * (context.fit.count + context.holdout.count)
    return EFFORTS[options.effort].pricing(float(one_pass))


def price(
    context: Context,
    options: Options,
    rankings: Mapping[str, Sequence[Ranking]],
    grams: Mapping[int, SecondMoments],
    progress: Progress,
    compute: Compute = HERE,
) -> tuple[Pricing, ...]:
    """Measure how each group's narrowing, by each selector's order, hurts the output on the holdout, and find the
    widths that are worth it.

    Cost: see :func:`onnxprune.budget.sensitivity.measured` and :func:`onnxprune.latency.source.clock`.
    """
    given = calibrated(context, grams, context.holdout, options)
    survey = survey_of(given, context.frozen, pricing_macs(context, options) / len(rankings))
    progress.stage("sensitivity", len(survey.asked) * len(survey.shares) * len(rankings))
    losses = compute.measured(context, options, grams, rankings, survey, progress) if survey.asked else ()
    found = curves(context.coupling, rankings, survey, losses)
    ticking = clock(context.coupling, context.layers, options, context.engine, progress)
    allowed = tiers(ticking.time, whole(context.coupling), multiple(options), ticking.blocks)
    if options.asked("latency") is not None:
        # Odd widths only ever cost time.
        allowed = allowed[:2]
    rounding = rounding_of(options, ticking)
    return tuple(
        Pricing(
            name,
            tuple(order),
            tuple(_restricted(found[name], widths, context.bounds) for widths in allowed),
            grams,
            ticking.time,
            rounding,
        )
        for name, order in rankings.items()
    )


def rounding_of(options: Options, ticking: Clock) -> Rounding:
    """What to tell about the channel counts that a run prefers."""
    asked, blocks = multiple(options), ticking.blocks
    if asked is None:
        return Rounding("" if ticking.measured else f"auto:{blocks.block}", blocks.block, blocks.because)
    return Rounding(str(asked), None, f"--round {asked}" if options.round_to is not None else f"--target {options.target}")


def _restricted(found: Sequence[Curve], widths: Sequence[Array], bounds: Bounds) -> tuple[Curve, ...]:
    pairs = enumerate(zip(found, widths, strict=True))
    return tuple(Curve(c.damage, bounds.of(g, np.intersect1d(c.widths, w))) for g, (c, w) in pairs)


def nothing_reason(coupling: Coupling) -> str:
    """What holds the first few sets of channels, for a model of which nothing can be cut."""
    if coupling.held:
        first = dict.fromkeys(f"'{held.name}': {lock_text(coupling, held)}" for held in coupling.held[:3])
        more = loosened(coupling)
        return "; ".join([*first, *([] if more is None else [str(more)])])
    return "no operator in it has channels with weights"


def keep_of(coupling: Coupling, rankings: Sequence[Ranking], kept: Array) -> Array:
    """One boolean per unit: of each group the first ``kept`` (groups,) of its ranking stay."""
    keep = np.zeros(coupling.unit_count, dtype=np.bool_)
    for group, ranking, count in zip(coupling.groups, rankings, kept, strict=True):
        keep[group.units[ranking.order[: int(count)]]] = True
    return keep


def within(pricing: Pricing, cost: Costing, target: float, lateness: float = 1.0) -> Array:
    """Units kept per group, int64 (groups,), for a cost of at most ``target`` (in the unit of ``cost``).

    Damage done late counts ``exp(lateness)`` times as much as damage done first: the refit of every later layer still
    corrects what an early cut did, and nothing comes after the last.

    Of the first tier that can meet the target, unless a later one does it at a fraction of the damage, or the first
    goes far below the target and a later one does less damage.  The last tier, of every width, is tried only where no
    other can meet the target, or where the others go far below it.

    Raises:
        BudgetError: where none can.
    """
    best: _Allocated | None = None
    late = np.exp(lateness * np.linspace(0, 1, len(pricing.rankings)))
    for number, measured in enumerate(pricing.tiers):
        tier = [Curve(c.damage * weight, c.widths) for c, weight in zip(measured, late, strict=True)]
        last = number == len(pricing.tiers) - 1
        if best is not None and last and not best.cost < OVERSHOT * target:
            break
        try:
            kept = allocate(cost, tier, target)
        except BudgetError:
            if last and best is None:
                raise
            continue
        damage = sum(float(c.damage[k]) for c, k in zip(tier, kept, strict=True))
        found = _Allocated(kept, damage, cost(kept))
        if best is None or found.replaces(best, target):
            best = found
    assert best is not None
    return best.kept


@dataclass(frozen=True, eq=False)
class _Allocated:
    """``kept`` units per group, what they are expected to do, and what they cost."""

    kept: Array
    damage: float
    cost: float

    def replaces(self, coarser: _Allocated, target: float) -> bool:
        """Whether it is worth giving up the widths that run fast."""
        worth_it = 1.0 if coarser.cost < OVERSHOT * target else WORTH_IT
        return worth_it * self.damage < coarser.damage > NEGLIGIBLE


def narrowest(pricing: Pricing) -> Array:
    """The fewest units that every group may keep, float64 (groups,)."""
    return np.asarray([c.widths[0] for c in pricing.curves], dtype=np.float64)


def widest(pricing: Pricing) -> Array:
    """The most units that every group may keep, int64 (groups,)."""
    return np.asarray([c.widths[-1] for c in pricing.curves], dtype=np.int64)


def lossless(pricing: Pricing) -> Array:
    """The narrowest widths that cost nothing at all: units without any contribution (dead channels) go."""
    return _free(pricing.curves)


def past_lossless(pricing: Pricing) -> tuple[Array, ...]:
    """Widths that run fast and at which no dead channel stays: of all groups, then of half of those where live ones
    must go for it, of a quarter, and so on, those that it costs least; the others are :func:`lossless`."""
    free, fast = lossless(pricing), pricing.tiers[:2][-1]
    past = np.asarray([max(c.widths[c.widths <= n], default=n) for c, n in zip(fast, free, strict=True)])
    price = np.asarray([c.damage[n] for c, n in zip(fast, past, strict=True)])
    order = [g for g in np.argsort(price, kind="stable") if past[g] < free[g]]
    found = []
    while order:
        counts = free.copy()
        counts[order] = past[order]
        found.append(counts)
        order = order[: len(order) // 2]
    return tuple(found)


def _free(curves: Sequence[Curve]) -> Array:
    return np.asarray([int(c.widths[np.argmax(c.damage[c.widths] <= 0.0)]) for c in curves])


def plan_of(context: Context, keep: Array, rounding: Rounding | None) -> Plan:
    """The plan of a cut, for the file."""
    cuts = []
    for group in context.coupling.groups:
        kept = np.flatnonzero(keep[group.units])
        if len(kept) < len(group):
            cuts.append(Cut(group.name, len(group), tuple(int(k) for k in kept)))
    rules = context.coupling.walked.rules
    return Plan(fingerprint(context.loaded.proto), tuple(cuts), tensor_cuts(context.coupling, keep), rules, rounding)


def whole(coupling: Coupling) -> Array:
    """Units per group of the uncut model, float64 (groups,)."""
    return sizes(coupling).astype(np.float64)
