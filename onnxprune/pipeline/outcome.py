"""The outcome of a run: a verified cut, and how the run found it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.search.find import SearchResult
from onnxprune.plan import Rounding
from onnxprune.result import Drop, GroupCurve, Refitted, SearchStep, Tuning, Verification
from onnxprune.tasks.task import Reader

Array = np.ndarray


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


def outcome_of(search: SearchResult, checks: Verification, evaluator: Evaluator) -> Outcome:
    """The outcome of a search whose candidate is verified.

    Cost: see :meth:`onnxprune.pipeline.evaluator.Evaluator.with_interval`.
    """
    chosen = search.candidate
    return Outcome(
        keep=chosen.keep,
        model=chosen.model,
        drop=evaluator.with_interval(chosen.drop, chosen.model),
        checks=checks,
        curves=search.curves,
        steps=search.steps,
        refits=chosen.refits,
        notes=chosen.notes,
        select=search.select,
        reader=evaluator.yardstick.reader,
        rounding=search.rounding,
    )
