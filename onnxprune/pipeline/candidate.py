"""One candidate: a cut, its refit, its drop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.effort import EFFORTS, trial_samples
from onnxprune.graph.view import view
from onnxprune.options import Options
from onnxprune.pipeline.allocation import Pricing, keep_of
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Progress
from onnxprune.refit.sequential import refit
from onnxprune.result import Drop, Refitted
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Candidate:
    """``counts``: units kept per group, (groups,); ``keep``: one boolean per unit; ``model``: cut, refitted, swept.

    ``refits``: the fits that are in ``model``; ``notes``: what the user should know about it.
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
    """Cut to ``counts`` (units kept per group), refit, and measure; a refit that is worse than none is left out.

    It is worse if its drop is larger and, without a metric of the user's, its output loss is not smaller.
    Cost: see :func:`onnxprune.refit.sequential.refit`, and two to five passes over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    # Of the plain cut only the drop is kept: a second model beside the refit may take hundreds of megabytes.
    plain = evaluator.drop(sweep(cut(context.coupling, keep), context.loaded.proto))
    found = trial(context, pricing, counts, evaluator, options, progress)
    if found.drop.value <= plain.value or not found.refits:
        return found
    worse = _unfitted(context, counts, keep, evaluator)
    # A task counts answers, and a few of them change by chance: its drop is too coarse to tell two models of one cut apart.
    if evaluator.metric is None and evaluator.damage(found.model) < evaluator.damage(worse.model):
        return found
    return replace(worse, notes=("the refit was worse than the plain cut on the holdout, and was left out",))


def trial(
    context: Context, pricing: Pricing, counts: Array, evaluator: Evaluator, options: Options, progress: Progress
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and measure.

    Cost: see :func:`onnxprune.refit.sequential.refit`, and one pass over the holdout.
    """
    keep = keep_of(context.coupling, pricing.rankings, counts)
    if options.refit == "none" or keep.all():
        return _unfitted(context, counts, keep, evaluator)
    pruned = view(cut(context.coupling, keep))
    found = refit(calibrated(context, pricing.grams, context.fit, options), keep, pruned, EFFORTS[options.effort].rounds, progress)
    del pruned
    model = sweep(cut(context.coupling, keep, found.weights), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model), found.layers)


def _unfitted(context: Context, counts: Array, keep: Array, evaluator: Evaluator) -> Candidate:
    model = sweep(cut(context.coupling, keep), context.loaded.proto)
    return Candidate(counts, keep, model, evaluator.drop(model))


def quick(context: Context, options: Options) -> tuple[Context, Options]:
    """What a trial is refitted on, and how: some of the samples, fewer rows, no refinement."""
    some = np.linspace(0, context.fit.count - 1, trial_samples(context.fit.count)).round().astype(np.int64)
    return replace(context, fit=context.fit.take(some)), replace(options, effort="fast")
