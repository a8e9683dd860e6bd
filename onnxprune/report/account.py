"""The report of a finished run, and the comparison of two models: counts and measurements."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxprune import metrics
from onnxprune.budget.cost import count_parameters, macs, original_macs, sizes, units_kept
from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.open import couple
from onnxprune.engine.session import open_session
from onnxprune.errors import DataError, ModelError
from onnxprune.graph.load import LoadedModel
from onnxprune.graph.tensors import model_bytes
from onnxprune.latency.stopwatch import compare_latency
from onnxprune.measure.loss import output_loss
from onnxprune.options import Options
from onnxprune.pipeline.accuracy import accuracies
from onnxprune.pipeline.evaluator import may_hold_classes
from onnxprune.pipeline.labelled import box_scores, labelled_data
from onnxprune.pipeline.outcome import Outcome
from onnxprune.pipeline.own_metric import own_drop
from onnxprune.pipeline.setup import Context, engine_of
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.report.describe import choice_lines, group_rows
from onnxprune.report.outline import layer_rows
from onnxprune.report.samples import shown_samples
from onnxprune.result import (
    Change,
    Comparison,
    DropSource,
    Report,
)
from onnxprune.tasks.answers import answers_of
from onnxprune.tasks.interval import RESAMPLES
from onnxprune.tasks.yardstick import outputs, yardstick

Array = np.ndarray
#: If the original scores below this AP50, its class numbers differ from the labels' or its preprocessing is wrong.
POOR = 0.05


def account(
    context: Context,
    outcome: Outcome,
    labelled: Dataset,
    source: DropSource,
    target: Path | None,
    options: Options,
    stopwatch: Stopwatch,
) -> Report:
    """The report of a run, before it writes anything.  ``labelled`` gives the accuracy.

    Cost: a few seconds to measure latency, and two passes over the labelled data, if any.
    """
    original, pruned = context.loaded.proto, outcome.model
    cost = macs(context.coupling)
    latency, spread = compare_latency(original, pruned, next(context.fit.batches(1)), context.engine)
    accuracy = accuracies(original, pruned, labelled, context.engine, outcome.reader)
    scores = box_scores(original, pruned, labelled, context.engine, outcome.reader)
    models = original, pruned
    pictures = shown_samples(context.holdout, outcome.reader, models, context.engine, options.pictures)
    stopwatch.mark("measure")
    return Report(
        model=str(context.loaded.path or "model"),
        output=None if target is None else str(target),
        macs=Change(
            *(int(cost(kept)) for kept in (sizes(context.coupling), units_kept(context.coupling, outcome.keep)))
        ),
        params=Change(count_parameters(original), count_parameters(pruned)),
        bytes=Change(context.loaded.file_bytes, model_bytes(pruned)),
        latency_ms=latency,
        latency_spread=spread,
        drop=outcome.drop,
        accuracy=accuracy,
        groups=group_rows(context.coupling, outcome.keep, context.frozen),
        choices=choice_lines(context.coupling),
        verify=outcome.checks,
        seconds=stopwatch.done(),
        peak_rss_bytes=peak_rss(),
        notes=context.notes + outcome.notes + _odd_labels(scores),
        drop_source=source,
        settings=_settings(context, outcome, options),
        curves=outcome.curves,
        search=outcome.steps,
        refits=outcome.refits,
        layers=layer_rows(context.coupling, outcome.keep, context.frozen),
        budgets=options.budgets,
        rounding=outcome.rounding,
        tuning=outcome.tuning,
        scores=scores,
        pictures=pictures,
    )


def _odd_labels(scores: tuple[tuple[str, Change], ...]) -> tuple[str, ...]:
    if not scores or scores[0][1].before >= POOR:
        return ()
    return (
        f"the original itself has an AP50 of only {scores[0][1].before:.3f} on these labels: check their class "
        "numbers, --preprocess and --layout",
    )


def _settings(context: Context, outcome: Outcome, options: Options) -> dict[str, str]:
    if not outcome.select:
        # The channels come from a plan, so nothing was chosen or refitted.
        return {"data": context.fit.origin, "rules": options.rules}
    asked = {"budget": " ".join(b.describe() for b in options.budgets)} if options.budgets else {}
    return asked | {
        "data": context.fit.origin,
        "samples": f"{context.fit.count} to fit, {context.holdout.count} held out",
        "select": outcome.select,
        "refit": options.refit,
        "round": "auto" if options.round_to is None else str(options.round_to),
        "seed": str(options.seed),
        "rules": options.rules,
    }


def closed(report: Report, written: int | None, stopwatch: Stopwatch) -> Report:
    """The final report: bytes ``written`` (None if nothing was), time and memory of the whole run."""
    size = report.bytes if written is None else Change(report.bytes.before, written)
    stopwatch.mark("write")
    return replace(report, bytes=size, seconds=stopwatch.done(), peak_rss_bytes=peak_rss())


def peak_rss() -> int:
    """Peak resident memory of this process in bytes, or 0 if the system does not report it (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def comparison_of(first: LoadedModel, second: LoadedModel, dataset: Dataset, options: Options) -> Comparison:
    """Compare two models on the same data.  Outputs of the same name belong together.

    Raises:
        ModelError: the models have no output name in common, or one of them rejects the data.
        DataError: the labelled data or the user's metric is unusable.
    """
    labelled = labelled_data(options, dataset)
    engine = engine_of(options)
    sample = {name: array.shape for name, array in dataset.fetch([0]).items()}
    couplings = [couple(loaded.proto, options.shapes, sample) for loaded in (first, second)]
    costs = [int(original_macs(coupling)) for coupling in couplings]
    theirs = {output.name for output in second.proto.graph.output}
    shared = [output.name for output in first.proto.graph.output if output.name in theirs]
    if not shared:
        raise ModelError("the two models have no output of the same name to compare; rename the outputs of one")
    first_answers, second_answers = (
        answers_of(open_session(m.proto, engine), dataset, shared) for m in (first, second)
    )
    left, right = outputs(first_answers), outputs(second_answers)
    alike = [(name, x, y) for name, x, y in zip(shared, left, right, strict=True) if x.shape == y.shape]
    drop, reader = None, None
    if options.evaluate is not None:
        drop = own_drop(options.evaluate, first.proto, second.proto, dataset.count, engine)
    else:
        loss = output_loss(couplings[0], shared, left)
        measured = yardstick(first_answers, options.task, options.layout, may_hold_classes(couplings[1]), loss)
        reader = measured.reader
        if reader is not None or len(alike) == len(shared):
            # Outputs of different sizes cannot be compared: then there is no drop.
            with contextlib.suppress(DataError):
                drop = measured.drop(second_answers, RESAMPLES)
    scores: tuple[tuple[str, Change], ...] = ()
    try:
        scores = box_scores(first.proto, second.proto, labelled, engine, reader)
    except DataError:
        # Text files next to images may hold anything.  Only labels from --test must be valid.
        if options.test is not None:
            raise
    latency, spread = compare_latency(first.proto, second.proto, next(dataset.batches(1)), engine)
    return Comparison(
        a=str(first.path or "a"),
        b=str(second.path or "b"),
        macs=Change(*costs),
        params=Change(count_parameters(first.proto), count_parameters(second.proto)),
        bytes=Change(first.file_bytes, second.file_bytes),
        latency_ms=latency,
        latency_spread=spread,
        drop=drop,
        accuracy=accuracies(first.proto, second.proto, labelled, engine, reader),
        scores=scores,
        outputs=tuple((name, metrics.relative_error([x], [y])) for name, x, y in alike if x.dtype.kind == "f"),
    )
