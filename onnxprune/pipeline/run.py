"""One run, from a context to a verified cut: calibrate, rank, price, search, verify."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.budget.curve import Curve
from onnxprune.engine.release import release_memory
from onnxprune.errors import VerificationError
from onnxprune.options import Options
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.pricing import price
from onnxprune.pipeline.ranking import rank
from onnxprune.pipeline.search.find import find
from onnxprune.pipeline.setup import Context
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.plan import Rounding
from onnxprune.progress import Progress
from onnxprune.result import CurvePoint, Drop, GroupCurve, Refitted, SearchStep, Tuning, Verification
from onnxprune.tasks.task import Reader
from onnxprune.verify.checks import verify

Array = np.ndarray
#: Calibration samples on which to compare a result with the masked original.
VERIFY_SAMPLES = 4
#: Maximum points of a group's curve in a report.
POINTS = 33


@dataclass(frozen=True, eq=False)
class Outcome:
    """A verified cut, and how the run found it.

    ``keep`` holds one boolean per unit.  ``drop`` is None if none was measured.  ``select`` names the selector; it is
    empty if a plan gave the channels.  ``reader`` belongs to the task, if known.  ``rounding`` describes the preferred
    channel counts, None if unknown.  ``tuning`` is None without tuning.
    """

    keep: Array
    model: onnx.ModelProto
    drop: Drop | None
    checks: Verification
    curves: tuple[GroupCurve, ...] = ()
    steps: tuple[SearchStep, ...] = ()
    refits: tuple[Refitted, ...] = ()
    notes: tuple[str, ...] = ()
    select: str = ""
    reader: Reader | None = None
    tuning: Tuning | None = None
    rounding: Rounding | None = None


def run(
    context: Context,
    evaluator: Evaluator,
    options: Options,
    progress: Progress,
    stopwatch: Stopwatch,
    compute: Compute = HERE,
) -> Outcome:
    """Find the cut for the budget of ``options``, refit it and verify it.

    Raises:
        BudgetError: if no cut meets the budget.
        VerificationError: if the result is not sound.
    """
    rankings, grams = rank(context, options, progress, compute)
    stopwatch.mark("calibrate")
    release_memory()
    orders = price(context, options, rankings, grams, progress, compute)
    stopwatch.mark("select")
    release_memory()
    result = find(context, orders, evaluator, options, progress, compute)
    chosen, steps, select = result.candidate, result.steps, result.pricing.select
    rounding = result.pricing.rounding
    curves = group_curves(context, result.pricing.curves)
    # Nothing reads the second moments any more.  For wide layers they take more memory than the model.
    del rankings, grams, orders, result
    release_memory()
    for note in chosen.notes:
        progress.note(note)
    stopwatch.mark("refit")
    checks = verified(context, chosen.keep, chosen.model, progress)
    stopwatch.mark("verify")
    return Outcome(
        chosen.keep,
        chosen.model,
        evaluator.with_interval(chosen.drop, chosen.model),
        checks,
        curves,
        steps,
        chosen.refits,
        chosen.notes,
        select,
        evaluator.yardstick.reader,
        rounding=rounding,
    )


def verified(context: Context, keep: Array, model: onnx.ModelProto, progress: Progress) -> Verification:
    """The checks of a cut, all passed.

    Raises:
        VerificationError: if a check failed.
    """
    progress.stage("verify", None)
    feeds = next(context.fit.batches(VERIFY_SAMPLES))
    checks = verify(context.coupling, keep, model, context.loaded.complaints, feeds, context.engine)
    if not checks.passed:
        raise VerificationError("the result failed verification and was not written: " + "; ".join(checks.complaints))
    return checks


def group_curves(context: Context, curves: tuple[Curve, ...]) -> tuple[GroupCurve, ...]:
    """The output loss of narrowing each group that may be cut, at up to :data:`POINTS` widths."""
    group_curves = []
    for group, curve in zip(context.coupling.groups, curves, strict=True):
        if group.id not in context.frozen:
            picks = np.unique(np.linspace(0, len(curve.widths) - 1, POINTS).astype(int))
            points = tuple(CurvePoint(int(k), float(curve.loss[k])) for k in curve.widths[picks])
            group_curves.append(GroupCurve(group.name, points))
    return tuple(group_curves)
