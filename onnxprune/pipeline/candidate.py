"""One candidate: a cut, its refit, its drop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.budget.cost import original_macs
from onnxprune.calibration.row_rule import FIT, MOMENTS, QUICK
from onnxprune.effort import EFFORTS, refinements, trial_samples
from onnxprune.graph.view import Graph, view
from onnxprune.options import Options
from onnxprune.pipeline.allocation import keep_of
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.pricing import Pricing
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Progress
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sequential import Refit, refit
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
    context: Context,
    pricing: Pricing,
    counts: Array,
    evaluator: Evaluator,
    options: Options,
    progress: Progress,
    kept: KeptTargets | None = None,
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and measure the drop.  Drops a refit that makes the cut worse.

    A refit is worse if its drop is larger and, without a metric of the user's, its output loss is not smaller.
    ``kept`` holds the original's side of the refits of all attempts.
    Cost: see :func:`onnxprune.refit.sequential.refit`, and two to five passes over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    small = cut(context.coupling, keep)
    plain = evaluator.drop(small)
    solution = _solution(context, pricing, keep, view(small), options, progress, kept)
    # Hold one cut model at a time: each may take hundreds of megabytes.
    evaluator.forget()
    del small
    refitted = _refitted(context, counts, keep, solution, evaluator)
    if refitted.drop.value <= plain.value or not refitted.refits:
        return refitted
    unfitted = _unfitted(context, counts, keep, evaluator)
    # A task counts answers, and a few change by chance: its drop is too coarse to compare two models of one cut.
    if evaluator.metric is None and evaluator.output_loss(refitted.model) < evaluator.output_loss(unfitted.model):
        return refitted
    return replace(unfitted, notes=("the refit was worse than the plain cut on the holdout, and was left out",))


def trial(
    context: Context,
    pricing: Pricing,
    counts: Array,
    evaluator: Evaluator,
    options: Options,
    progress: Progress,
    kept: KeptTargets | None = None,
) -> Candidate:
    """A candidate for comparison only: refitted to some of the samples, as with little effort.

    ``kept`` holds the original's side of the refits of all trials.
    Cost: see :func:`onnxprune.refit.sequential.refit`, and one pass over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    some = np.linspace(0, context.fit.count - 1, trial_samples(context.fit.count)).round().astype(np.int64)
    part, fast = replace(context, fit=context.fit.take(some)), replace(options, effort="fast")
    solution = _solution(part, pricing, keep, view(cut(context.coupling, keep)), fast, progress, kept)
    return _refitted(context, counts, keep, solution, evaluator)


def _solution(
    context: Context,
    pricing: Pricing,
    keep: Array,
    pruned: Graph,
    options: Options,
    progress: Progress,
    kept: KeptTargets | None,
) -> Refit:
    """The refit of ``pruned``, the graph cut by ``keep``, with as many rows and rounds as ``options`` allow."""
    effort = EFFORTS[options.effort]
    rounds = refinements(effort, original_macs(context.coupling) * context.fit.count)
    rows = FIT if rounds else MOMENTS if effort.rounds else QUICK
    given = calibrated(context, pricing.grams, context.fit, options, rows)
    return refit(given, keep, pruned, rounds, progress, kept)


def _refitted(context: Context, counts: Array, keep: Array, solution: Refit, evaluator: Evaluator) -> Candidate:
    model = sweep(cut(context.coupling, keep, solution.weights), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model), solution.layers)


def _unfitted(context: Context, counts: Array, keep: Array, evaluator: Evaluator) -> Candidate:
    model = sweep(cut(context.coupling, keep), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model))
