"""Prune a model: load, set up, calibrate, rank, price, search, verify, tune, report, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnxprune.calibration.dataset import Dataset
from onnxprune.cluster.open import computing
from onnxprune.engine.release import release_memory
from onnxprune.graph.load import LoadedModel, load
from onnxprune.graph.save import check_writable, save
from onnxprune.options import Options
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.defaults import drop_source, with_defaults
from onnxprune.pipeline.evaluation_notes import evaluation_notes
from onnxprune.pipeline.evaluator import Evaluator, evaluator_for
from onnxprune.pipeline.labelled import labelled_data, usable
from onnxprune.pipeline.outcome import outcome_of
from onnxprune.pipeline.planned import plan_of
from onnxprune.pipeline.pricing import price
from onnxprune.pipeline.ranking import rank
from onnxprune.pipeline.search.find import find
from onnxprune.pipeline.setup import Context, set_up
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.pipeline.tuned import tuned
from onnxprune.pipeline.verified import verified
from onnxprune.progress import Progress
from onnxprune.report.account import account, closed
from onnxprune.result import Result
from onnxprune.surgeon import Model
from onnxprune.tuning.need import need_device


def prune_file(
    path: Path, output: Path, data: object | None, options: Options, progress: Progress, stopwatch: Stopwatch
) -> Result:
    """Prune the file ``path`` and write the result to ``output``, whole or not at all."""
    check_writable(output, path)
    return prune_model(path, output, data, options, progress, stopwatch)


def prune_model(
    model: Model,
    target: Path | None,
    data: object | None,
    options: Options,
    progress: Progress,
    stopwatch: Stopwatch,
) -> Result:
    """Prune ``model``.  Writes the result to ``target``; ``None``: nowhere.

    Raises:
        OnnxPruneError: see :func:`onnxprune.api.prune`.
    """
    if options.tune is not None:
        need_device(options.device)
    loaded = load(model)
    stopwatch.mark("load")
    with computing(loaded, data, options) as compute:
        ready = _set_up(loaded, data, options, progress)
        context, evaluator, options = ready.context, ready.evaluator, ready.options
        stopwatch.mark("couple")
        grams = calibrate(context, options, progress, compute)
        stopwatch.mark("calibrate")
        rankings = rank(context, options, grams, progress, compute)
        release_memory()
        orders = price(context, options, rankings, grams, progress, compute)
        stopwatch.mark("select")
        release_memory()
        search = find(context, orders, evaluator, options, progress, compute)
        stopwatch.mark("refit")
        # Nothing reads the second moments any more.  For wide layers they take more memory than the model.
        del grams, rankings, orders
        release_memory()
        checks = verified(context, search.candidate.keep, search.candidate.model, progress)
        stopwatch.mark("verify")
    outcome = outcome_of(search, checks, evaluator)
    if options.tune is not None:
        if target is not None:
            # If the user ends the run from here on, only the tuning is lost.
            save(outcome.model, target, loaded.external)
        outcome = tuned(context, outcome, evaluator, ready.labelled, options, progress)
        stopwatch.mark("tune")
    progress.stage("measure", None)
    report = account(context, outcome, ready.labelled, drop_source(evaluator, data), target, options, stopwatch)
    written = None if target is None else save(outcome.model, target, loaded.external)
    plan = plan_of(context, outcome.keep, outcome.rounding, options)
    return Result(outcome.model, plan, closed(report, written, stopwatch), target)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The inputs of a run.  ``labelled``: the data for accuracy.  ``options``: with all defaults filled in."""

    context: Context
    evaluator: Evaluator
    labelled: Dataset
    options: Options


def _set_up(loaded: LoadedModel, data: object | None, options: Options, progress: Progress) -> Prepared:
    """Set up the run.  Wrong data, or a metric that fails, raise here, before anything that takes long."""
    context = set_up(loaded, data, options)
    evaluator = evaluator_for(context, options)
    options = with_defaults(options, evaluator, data)
    labelled, unusable = usable(labelled_data(options, context.holdout), evaluator, options)
    notes = (*context.notes, *unusable, *evaluation_notes(evaluator, labelled, data, options))
    for note in notes:
        progress.note(note)
    return Prepared(replace(context, notes=notes), evaluator, labelled, options)
