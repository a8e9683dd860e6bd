"""Price the widths of every group: the output loss at each width, measured on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.budget.cost import Costing, original_macs, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.probe import KeptMeasure
from onnxprune.budget.rounding import tiers
from onnxprune.budget.sensitivity import Measured, Survey, curves, merged, survey_of
from onnxprune.coupling.groups import Coupling
from onnxprune.effort import EFFORTS
from onnxprune.latency.source import time_model
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.bounds import Bounds
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.rounding import multiple, rounding_of
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.plan import Rounding
from onnxprune.progress import Progress
from onnxprune.result import CurvePoint, GroupCurve
from onnxprune.selection.base import Ranking

Array = np.ndarray
#: Maximum points of a group's curve in a report.
POINTS = 33


@dataclass(frozen=True, eq=False)
class Pricing:
    """Per group: the order of its units, and the output loss at each width.

    ``select`` names the selector that gave the order.  ``tiers`` holds the same curves with different sets of allowed
    widths, the fastest first.  ``time`` is the cost in time.  ``rounding`` describes the fast widths.  ``losses`` is
    what was measured of each group of ``survey``.  ``kept``: the measure, for more surveys.
    """

    select: str
    rankings: tuple[Ranking, ...]
    tiers: tuple[tuple[Curve, ...], ...]
    grams: Mapping[int, SecondMoments]
    time: Costing
    rounding: Rounding
    survey: Survey
    losses: tuple[Measured, ...]
    kept: KeptMeasure

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves of the finest tier."""
        return self.tiers[-1]


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
    kept = KeptMeasure()
    losses = compute.measured(context, options, grams, rankings, survey, progress, kept) if survey.groups else ()
    curves_of = curves(context.coupling, rankings, survey, losses)
    timing = time_model(context.coupling, context.layers, options, context.engine, progress)
    allowed = tiers(timing.time, full_widths(context.coupling), multiple(options), timing.blocks)
    if options.budget("latency") is not None:
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
            kept,
        )
        for name, order in rankings.items()
    )


def sharpened(
    context: Context, options: Options, pricing: Pricing, counts: Array, progress: Progress, compute: Compute = HERE
) -> Pricing:
    """``pricing``, corrected by a measurement of each group at ``counts`` (units kept, (groups,)).

    Interpolation is good between measured widths.  But an allocation picks the widths with the least estimated loss, so it
    finds those at which a curve is too low: a few channels off every group, or nearly all of one.
    Cost: see :func:`onnxprune.budget.sensitivity.measured`, one width per group.
    """
    more = pricing.survey.at(counts, full_widths(context.coupling))
    if not more.groups:
        return pricing
    orders = {pricing.select: pricing.rankings}
    progress.stage("sensitivity", more.steps)
    found = compute.measured(context, options, pricing.grams, orders, more, progress, pricing.kept)
    measured = dict(zip(more.groups, found, strict=True))
    losses = tuple(
        {name: [*points, *measured.get(group, {}).get(name, ())] for name, points in one.items()}
        for group, one in zip(pricing.survey.groups, pricing.losses, strict=True)
    )
    survey = merged(pricing.survey, more)
    better = curves(context.coupling, orders, survey, losses)[pricing.select]
    changed = tuple(
        tuple(Curve(new.loss, old.widths) for new, old in zip(better, tier, strict=True)) for tier in pricing.tiers
    )
    return replace(pricing, tiers=changed, survey=survey, losses=losses)


def _restricted(measured: Sequence[Curve], widths: Sequence[Array], bounds: Bounds) -> tuple[Curve, ...]:
    pairs = enumerate(zip(measured, widths, strict=True))
    return tuple(Curve(c.loss, bounds.of(g, np.intersect1d(c.widths, w))) for g, (c, w) in pairs)


def group_curves(context: Context, curves: Sequence[Curve]) -> tuple[GroupCurve, ...]:
    """The output loss of narrowing each group that may be cut, at up to :data:`POINTS` widths: for the report."""
    shown = []
    for group, curve in zip(context.coupling.groups, curves, strict=True):
        if group.id not in context.frozen:
            picks = np.unique(np.linspace(0, len(curve.widths) - 1, POINTS).astype(int))
            points = tuple(CurvePoint(int(k), float(curve.loss[k])) for k in curve.widths[picks])
            shown.append(GroupCurve(group.name, points))
    return tuple(shown)


def full_widths(coupling: Coupling) -> Array:
    """Units per group of the uncut model, float64 (groups,)."""
    return sizes(coupling).astype(np.float64)
