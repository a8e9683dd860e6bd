"""Settle defaults, and write notes, once the original's answers are known."""

from __future__ import annotations

from dataclasses import replace

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.latency.table import read_table
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.notes import ALIKE, DETECTOR_PRESET, NO_SCORES
from onnxprune.result import Seen
from onnxprune.tasks.classify import Classify
from onnxprune.tasks.detect.reader import Detect


def settled(options: Options, evaluator: Evaluator, data: object | None) -> Options:
    """``options`` with the defaults for this model and these data filled in."""
    if not options.budgets and not options.keep:
        options = replace(options, budgets=(evaluator.default_budget,))
    if data is None and options.effort == "default":
        # Results on made-up inputs are not worth minutes.
        options = replace(options, effort="fast")
    if options.latency_table is not None:
        read_table(options.latency_table)
    return options


def drop_source(evaluator: Evaluator, data: object | None) -> Seen:
    """What the drop is measured on: held-out samples, made-up samples, or samples with equal answers."""
    return "made up" if data is None else "alike" if evaluator.alike else "held out"


def evaluation_notes(evaluator: Evaluator, labelled: Dataset, data: object | None, options: Options) -> tuple[str, ...]:
    """Notes about the original's answers on the held-out samples, and about the labels."""
    notes = list(evaluator.warnings) if data is not None else []
    if evaluator.alike and options.asked("max_drop") is not None:
        which = ("made-up", "give --data") if data is None else ("held-out", "give data that differ")
        notes.append(ALIKE.format(*which))
    if evaluator.yardstick.note is not None and data is not None:
        notes.append(evaluator.yardstick.note)
    pictures = evaluator.holdout.picture is not None
    if options.preprocess is None and pictures and evaluator.yardstick.likely in ("detect", "pose"):
        notes.append(DETECTOR_PRESET)
    reader = evaluator.yardstick.reader
    used = isinstance(reader, Classify) or (labelled.things is not None and isinstance(reader, Detect))
    if options.test is not None and not used and not metrics.is_scores(evaluator.reference):
        notes.append(NO_SCORES)
    return tuple(notes)
