"""One candidate: a cut, its refit, its drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.budget.cost import original_macs
from onnxprune.calibration.row_rule import FIT, MOMENTS, QUICK
from onnxprune.effort import EFFORTS, refinements, trial_samples
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph, view
from onnxprune.options import Options
from onnxprune.pipeline.allocation import Allocation
from onnxprune.pipeline.compute import HERE, Compute, RefitRequest
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sequential import Refit
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


@dataclass(frozen=True, eq=False)
class Conditions:
    """Data, evaluator and options, the same for all candidates that are compared with each other.

    ``compute`` makes their refits.  ``targets`` holds the original's activations for these, if they share them.
    """

    context: Context
    evaluator: Evaluator
    options: Options
    compute: Compute = HERE
    targets: KeptTargets | None = None


def attempt(conditions: Conditions, allocation: Allocation, progress: Progress) -> Candidate:
    """Cut, refit, and measure the drop.  Discards a refit that makes the cut worse.

    A refit is worse if its drop is larger and, without the user's own metric, its output loss is not smaller.
    Cost: see :func:`onnxprune.refit.sequential.refit`, and two to five passes over the holdout.
    """
    coupling, evaluator = conditions.context.coupling, conditions.evaluator
    keep = allocation.keep(coupling)
    if conditions.options.refit == "none" or keep.all():
        return _unfitted(conditions, allocation)
    small = cut(coupling, keep)
    plain = evaluator.drop(small)
    everything = np.arange(conditions.context.fit.count)
    solution = _solution(conditions, allocation, view(small), everything, conditions.options.effort, progress)
    # Hold one cut model at a time: each may take hundreds of megabytes.  So the refitted model is cut from the original.
    evaluator.forget()
    del small
    refitted = _refitted(conditions, allocation, solution)
    if refitted.drop.value <= plain.value or not refitted.refits:
        return refitted
    unfitted = _unfitted(conditions, allocation)
    # A task counts answers, and a few change by chance: its drop is too coarse to compare two models of one cut.
    if evaluator.metric is None and evaluator.output_loss(refitted.model) < evaluator.output_loss(unfitted.model):
        return refitted
    return replace(unfitted, notes=("the refit was worse than the plain cut on the held-out samples, and was discarded",))


def trial(conditions: Conditions, allocation: Allocation, progress: Progress) -> Candidate:
    """A candidate for comparison only: refitted to some of the samples, as with little effort.

    Cost: see :func:`onnxprune.refit.sequential.refit`, and one pass over the holdout.
    """
    context = conditions.context
    keep = allocation.keep(context.coupling)
    if conditions.options.refit == "none" or keep.all():
        return _unfitted(conditions, allocation)
    some = _spread(np.arange(context.fit.count), trial_samples(context.fit.count))
    solution = _solution(conditions, allocation, view(cut(context.coupling, keep)), some, "fast", progress)
    return _refitted(conditions, allocation, solution)


def _spread(samples: Array, count: int) -> Array:
    """``count`` of ``samples``, evenly spread."""
    return np.asarray(samples[np.linspace(0, len(samples) - 1, count).round().astype(np.int64)])


def _solution(
    conditions: Conditions, allocation: Allocation, pruned: Graph, samples: Array, level: str, progress: Progress
) -> Refit:
    """The refit of ``pruned``, the graph cut to ``allocation``.

    ``samples``: positions among the samples to fit.  The effort ``level`` sets the number of rows and of rounds.
    """
    context, effort = conditions.context, EFFORTS[level]
    rounds, count = refinements(effort, original_macs(context.coupling), len(samples))
    rows = FIT if rounds else MOMENTS if effort.rounds else QUICK
    request = RefitRequest(allocation.keep(context.coupling), _spread(samples, count), rows, rounds)
    grams, options = allocation.pricing.grams, conditions.options
    return conditions.compute.refitted(context, options, grams, request, pruned, progress, conditions.targets)


def _refitted(conditions: Conditions, allocation: Allocation, solution: Refit) -> Candidate:
    return _candidate(conditions, allocation, solution.weights, solution.layers)


def _unfitted(conditions: Conditions, allocation: Allocation) -> Candidate:
    return _candidate(conditions, allocation, {}, ())


def _candidate(
    conditions: Conditions, allocation: Allocation, weights: Mapping[Use, Array], refits: tuple[Refitted, ...]
) -> Candidate:
    coupling = conditions.context.coupling
    keep = allocation.keep(coupling)
    model = sweep(cut(coupling, keep, weights), conditions.context.loaded.proto)
    return Candidate(allocation.counts, keep, model, conditions.evaluator.drop(model), refits)
