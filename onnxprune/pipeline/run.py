"""One run, from a context to a verified cut: calibrate, rank, price, search, verify."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.budget.curve import Curve
from onnxprune.engine.release import release_memory
from onnxprune.errors import VerificationError
from onnxprune.options import Options
from onnxprune.pipeline.allocation import price, rank
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.search.find import find
from onnxprune.pipeline.setup import Context
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.plan import Rounding
from onnxprune.progress import Progress
from onnxprune.result import CurvePoint, Drop, GroupCurve, Refitted, SearchStep, Tuning, Verification
from onnxprune.tasks.task import Reader
from onnxprune.verify.checks import verify

Array = np.ndarray
#: Calibration samples on which a result is run and compared with the masked original.
VERIFY_SAMPLES = 4
#: Most points of a group's curve in a report.
POINTS = 33


@dataclass(frozen=True, eq=False)
class Outcome:
    """A verified cut, and how the run found it.

    ``keep``: one boolean per unit.  ``drop``: None where none was measured.  ``select``: the order of channels that was
    taken, empty where a plan gave the channels.  ``reader``: of the task, where it is known.  ``rounding``: the channel counts
    that were preferred, None where nobody knows.
    ``tuning``: None where none was asked for.
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
    """Find the cut that the budget of ``options`` asks for, refit and verify it.

    Raises:
        BudgetError: where no cut meets the budget.
        VerificationError: where the result is not sound.
    """
    rankings, grams = rank(context, options, progress, compute)
    stopwatch.mark("calibrate")
    release_memory()
    orders = price(context, options, rankings, grams, progress, compute)
    stopwatch.mark("select")
    release_memory()
    found = find(context, orders, evaluator, options, progress, compute)
    chosen, steps, select = found.candidate, found.steps, found.pricing.select
    rounding = found.pricing.rounding
    curves = group_curves(context, found.pricing.curves)
    # Second moments outweigh the model where layers are wide, and nothing reads them any more.
    del rankings, grams, orders, found
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
    """The checks of a cut, all of them passed.

    Raises:
        VerificationError: where one failed.
    """
    progress.stage("verify", None)
    feeds = next(context.fit.batches(VERIFY_SAMPLES))
    checks = verify(context.coupling, keep, model, context.loaded.complaints, feeds, context.engine)
    if not checks.passed:
        raise VerificationError("the result failed verification and was not written: " + "; ".join(checks.complaints))
    return checks


def group_curves(context: Context, curves: tuple[Curve, ...]) -> tuple[GroupCurve, ...]:
    """The output loss of narrowing each group that may be cut, at :data:`POINTS` widths at most."""
    found = []
    for group, curve in zip(context.coupling.groups, curves, strict=True):
        if group.id not in context.frozen:
            picks = np.unique(np.linspace(0, len(curve.widths) - 1, POINTS).astype(int))
            points = tuple(CurvePoint(int(k), float(curve.damage[k])) for k in curve.widths[picks])
            found.append(GroupCurve(group.name, points))
    return tuple(found)
