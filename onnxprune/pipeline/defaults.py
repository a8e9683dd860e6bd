"""Defaults that depend on the original's answers."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.latency.table import read_table
from onnxprune.options import Options
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.result import DropSource


def with_defaults(options: Options, evaluator: Evaluator, data: object | None) -> Options:
    """``options`` with the defaults for this model and these data filled in.

    Raises:
        OnnxPruneError: the latency table is wrong.
    """
    if not options.budgets and not options.keep:
        options = replace(options, budgets=(evaluator.default_budget,))
    if data is None and options.effort == "default":
        # Results on made-up inputs are not worth minutes.
        options = replace(options, effort="fast")
    if options.latency_table is not None:
        # Refuse a wrong table now, not after minutes of work.
        read_table(options.latency_table)
    return options


def drop_source(evaluator: Evaluator, data: object | None) -> DropSource:
    """What the drop is measured on: held-out samples, made-up samples, or samples with equal answers."""
    return "made up" if data is None else "alike" if evaluator.alike else "held out"
