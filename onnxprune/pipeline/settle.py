"""What defaults come to, and what to tell, once the original's answers are known."""

from __future__ import annotations

from dataclasses import replace

from onnxprune import metrics
from onnxprune.latency.table import read_table
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.notes import ALIKE, NO_SCORES
from onnxprune.result import Seen
from onnxprune.target import USUAL, USUAL_ERROR


def settled(options: Options, evaluator: Evaluator, data: object | None) -> Options:
    """``options`` with what their defaults come to for this model and these data."""
    if options.budget is None:
        options = replace(options, budget=USUAL_ERROR if evaluator.relative else USUAL)
    if data is None and options.effort == "default":
        # What made-up inputs teach is not worth minutes.
        options = replace(options, effort="fast")
    if options.latency_table is not None:
        read_table(options.latency_table)
    return options


def seen(evaluator: Evaluator, data: object | None) -> Seen:
    """What the drop is measured on."""
    return "made up" if data is None else "alike" if evaluator.alike else "held out"


def evaluation_notes(evaluator: Evaluator, data: object | None, options: Options) -> tuple[str, ...]:
    """What the original's answers on the held-out samples give reason to say."""
    notes = list(evaluator.odd) if data is not None else []
    if evaluator.alike and options.goal.kind == "max_drop":
        which = ("made-up", "give --data") if data is None else ("held-out", "give data that differ")
        notes.append(ALIKE.format(*which))
    if options.test is not None and not metrics.is_scores(evaluator.reference):
        notes.append(NO_SCORES)
    return tuple(notes)
