"""The time of two models by operator type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxprune.engine.loadable import serialize
from onnxprune.latency.device import onnxruntime_seconds, typical
from onnxprune.paths import temporary_files
from onnxprune.result import Change, OperatorTime

Array = np.ndarray
#: How often each model is profiled, taking turns.  The fastest profile of an operator counts.
TURNS = 3


def operator_times(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array], threads: int
) -> tuple[OperatorTime, ...]:
    """Milliseconds per operator type of both models, the slowest of the first model first.

    The times come from onnxruntime's profiler on the CPU, after its fusions: a Conv may include the Relu and the Add
    after it.  Only the faster half of the runs counts, so the sum is a little less than the latency of the model.
    """
    models = [serialize(before), serialize(after)]
    fastest: list[dict[str, float]] = [{}, {}]
    for _ in range(TURNS):
        for known, model in zip(fastest, models, strict=True):
            for operator, seconds in _profile(model, feeds, threads).items():
                known[operator] = min(known.get(operator, np.inf), seconds)
    names = sorted({*fastest[0], *fastest[1]}, key=lambda name: (-fastest[0].get(name, 0.0), name))
    return tuple(OperatorTime(n, Change(*(1e3 * known.get(n, 0.0) for known in fastest))) for n in names)


def _profile(model: bytes, feeds: Mapping[str, Array], threads: int) -> dict[str, float]:
    total: dict[str, float] = {}
    with temporary_files():
        profiled = onnxruntime_seconds(model, feeds, threads)
    for name, seconds in profiled.items():
        operator = name.partition(" ")[0]
        total[operator] = total.get(operator, 0.0) + typical(seconds)
    return total
