"""One candidate: a cut, its refit, its drop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.choose import Choices, keep_of
from onnxprune.effort import EFFORTS, TRIAL_SAMPLES
from onnxprune.judge import Judge
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.refit.sequential import refit
from onnxprune.result import Drop, Refitted
from onnxprune.study import DEFAULT_MEMORY, Study
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
    work: Study, choices: Choices, counts: Array, judge: Judge, options: Options, progress: Progress
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and judge; a refit that is worse than none is left out.

    Cost: see :func:`onnxprune.refit.sequential.refit`, and two passes over the holdout.
    """
    keep = keep_of(work.coupling, choices.rankings, counts)
    plain = sweep(cut(work.coupling, keep), work.loaded.proto)
    unfitted = Candidate(counts, keep, plain, judge.drop(plain))
    if options.refit == "none" or keep.all():
        return unfitted
    found = refit(
        work.coupling,
        keep,
        work.layers,
        choices.grams,
        work.fit,
        work.engine,
        options.memory or DEFAULT_MEMORY,
        options.seed,
        EFFORTS[options.effort].rounds,
        progress,
    )
    if not found.weights:
        return replace(unfitted, refits=found.layers)
    model = sweep(cut(work.coupling, keep, found.weights), work.loaded.proto)
    drop = judge.drop(model)
    if unfitted.drop.value < drop.value:
        return replace(unfitted, notes=("the refit was worse than the plain cut on the holdout, and was left out",))
    return Candidate(counts, keep, model, drop, found.layers)


def quick(work: Study, options: Options) -> tuple[Study, Options]:
    """What a trial is refitted on, and how: some of the samples, without refinement."""
    some = np.linspace(0, work.fit.count - 1, min(work.fit.count, TRIAL_SAMPLES)).round().astype(np.int64)
    return replace(work, fit=work.fit.take(some)), replace(options, effort="fast")
