"""Apply a plan: replay its cuts on a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune.coupling.groups import Coupling
from onnxprune.errors import PlanError
from onnxprune.graph.load import LoadedModel, load
from onnxprune.graph.save import check_writable, save
from onnxprune.options import Options
from onnxprune.pipeline.notes import UNFITTED, reading_notes
from onnxprune.pipeline.outcome import Outcome
from onnxprune.pipeline.setup import set_up
from onnxprune.pipeline.stopwatch import Stopwatch
from onnxprune.pipeline.verified import verified
from onnxprune.plan import Plan, fingerprint, keep_vector
from onnxprune.progress import Progress
from onnxprune.report.account import account, closed
from onnxprune.result import Report
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep

Array = np.ndarray


def apply_plan(loaded: LoadedModel, coupling: Coupling, plan: Plan) -> tuple[onnx.ModelProto, Array]:
    """(the model cut by ``plan``, the keep vector, one boolean per unit).

    Raises:
        PlanError: the plan does not belong to the model.
    """
    if plan.model != fingerprint(loaded.proto):
        raise PlanError(
            "the plan is for another model: its nodes or the shapes of its weights differ; "
            "apply it to the file that it was made from, or prune again with --plan"
        )
    keep = keep_vector(plan, {g.name: g.units for g in coupling.groups}, coupling.unit_count)
    return sweep(cut(coupling, keep), loaded.proto), keep


def apply_file(
    path: Path, plan: Path, output: Path, options: Options, progress: Progress, stopwatch: Stopwatch
) -> Report:
    """Replay a plan on a file, verify, write the result to ``output``, whole or not at all.

    Raises:
        PlanError: the plan does not belong to the model.
    """
    check_writable(output, path)
    read, loaded = Plan.read(plan), load(path)
    stopwatch.mark("load")
    context = set_up(loaded, None, replace(options, rules=read.rules))
    # Made-up inputs only serve to run the result, so leave out their notes.
    context = replace(context, notes=(*reading_notes(context.loaded, context.coupling), UNFITTED))
    stopwatch.mark("couple")
    model, keep = apply_plan(context.loaded, context.coupling, read)
    checks = verified(context, keep, model, progress)
    stopwatch.mark("verify")
    progress.stage("measure", None)
    outcome = Outcome(keep, model, None, checks, rounding=read.rounding)
    report = account(context, outcome, context.holdout, "made up", output, options, stopwatch)
    return closed(report, save(model, output, context.loaded.external), stopwatch)
