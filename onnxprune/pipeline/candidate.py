"""One candidate: a cut, its refit, its drop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.budget.cost import original_macs
from onnxprune.calibration.row_rule import FIT, MOMENTS, QUICK
from onnxprune.effort import EFFORTS, refinements, trial_samples
from onnxprune.graph.view import view
from onnxprune.options import Options
from onnxprune.pipeline.allocation import keep_of
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.pricing import Pricing
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Progress
from onnxprune.refit.sequential import refit
from onnxprune.result import Drop, Refitted
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Candidate:
    """One cut with its refitted model and its drop.

    ``counts`` (groups,) holds the units kept per group, ``keep`` one boolean per unit.  ``model`` is cut, refitted and
    swept.  ``refits`` are the fits in ``model``.  ``notes`` are for the user.
    """

    counts: Array
    keep: Array
    model: onnx.ModelProto
    drop: Drop
    refits: tuple[Refitted, ...] = ()
    notes: tuple[str, ...] = ()


def attempt(
    context: Context, pricing: Pricing, counts: Array, evaluator: Evaluator, options: Options, progress: Progress
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and measure the drop.  Drops a refit that makes the cut worse.

    A refit is worse if its drop is larger and, without a metric of the user's, its output loss is not smaller.
    Cost: see :func:`onnxprune.refit.sequential.refit`, and two to five passes over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    # Keep only the drop of the plain cut: a second model during the refit may take hundreds of megabytes.
    plain = evaluator.drop(sweep(cut(context.coupling, keep), context.loaded.proto))
    refitted = fitted(context, pricing, counts, evaluator, options, progress)
    if refitted.drop.value <= plain.value or not refitted.refits:
        return refitted
    unfitted = _unfitted(context, counts, keep, evaluator)
    # A task counts answers, and a few change by chance: its drop is too coarse to compare two models of one cut.
    if evaluator.metric is None and evaluator.output_loss(refitted.model) < evaluator.output_loss(unfitted.model):
        return refitted
    return replace(unfitted, notes=("the refit was worse than the plain cut on the holdout, and was left out",))


def fitted(
    context: Context, pricing: Pricing, counts: Array, evaluator: Evaluator, options: Options, progress: Progress
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and measure the drop.

    Cost: see :func:`onnxprune.refit.sequential.refit`, and one pass over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    pruned = view(cut(context.coupling, keep))
    effort = EFFORTS[options.effort]
    rounds = refinements(effort, original_macs(context.coupling) * context.fit.count)
    rows = FIT if rounds else MOMENTS if effort.rounds else QUICK
    solution = refit(calibrated(context, pricing.grams, context.fit, options, rows), keep, pruned, rounds, progress)
    del pruned
    model = sweep(cut(context.coupling, keep, solution.weights), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model), solution.layers)


def _unfitted(context: Context, counts: Array, keep: Array, evaluator: Evaluator) -> Candidate:
    model = sweep(cut(context.coupling, keep), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model))


def trial(
    context: Context, pricing: Pricing, counts: Array, evaluator: Evaluator, options: Options, progress: Progress
) -> Candidate:
    """A candidate for comparison only: refitted to some of the samples, as with little effort."""
    some = np.linspace(0, context.fit.count - 1, trial_samples(context.fit.count)).round().astype(np.int64)
    part = replace(context, fit=context.fit.take(some))
    return fitted(part, pricing, counts, evaluator, replace(options, effort="fast"), progress)
