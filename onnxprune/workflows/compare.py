"""Compare two models: side by side, and operator by operator."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.calibration.open import open_dataset
from onnxprune.graph.load import load
from onnxprune.latency.operators import operator_times
from onnxprune.options import Options
from onnxprune.pipeline.setup import check_inputs, engine_of, samples_of, specs_for
from onnxprune.progress import Progress
from onnxprune.report.account import comparison_of
from onnxprune.result import Comparison, OperatorTime
from onnxprune.surgeon import Model


def compare_models(
    a: Model,
    b: Model,
    data: object | None,
    options: Options,
    progress: Progress,
) -> Comparison:
    """Compare two models; see :func:`onnxprune.api.compare`.  Outputs are compared on the data, by name.

    Raises:
        ModelError: the models take different inputs, or have no output in common.
    """
    first, second = load(a), load(b)
    check_inputs(first, second, ("the first", "the second"), "compare two that can be fed alike")
    dataset = open_dataset(data, specs_for(first, data, options), options.preprocess, samples_of(data, options), options.seed)
    progress.stage("compare", None)
    return replace(comparison_of(first, second, dataset, options), drop_source="made up" if data is None else "held out")


def compare_operators(a: Model, b: Model, data: object | None, options: Options) -> tuple[OperatorTime, ...]:
    """The time of two models by operator: see :func:`onnxprune.latency.operators.operator_times`."""
    first, second = load(a), load(b)
    dataset = open_dataset(data, specs_for(first, data, options), options.preprocess, 1, options.seed)
    feeds = next(dataset.batches(1))
    return operator_times(first.proto, second.proto, feeds, engine_of(options).cores())
