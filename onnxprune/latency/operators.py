"""Where two models spend their time, by operator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnxprune.engine.session import serialize
from onnxprune.latency.device import onnxruntime_seconds, typical
from onnxprune.result import Change, OperatorTime

Array = np.ndarray
#: Times that each model is profiled, in turns; the faster profile of an operator counts.
TURNS = 3


def operator_times(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array], threads: int
) -> tuple[OperatorTime, ...]:
    """Milliseconds per operator type of both models, slowest of the first model first.

    As onnxruntime's profiler tells on the CPU, after its own fusions: a Conv may contain the Relu and the Add
    behind it.  The faster half of the runs counts, so they add up to a little less than a measured run.
    """
    models = [serialize(before), serialize(after)]
    found: list[dict[str, float]] = [{}, {}]
    for _ in range(TURNS):
        for known, model in zip(found, models, strict=True):
            for operator, seconds in _profile(model, feeds, threads).items():
                known[operator] = min(known.get(operator, np.inf), seconds)
    names = sorted({*found[0], *found[1]}, key=lambda name: (-found[0].get(name, 0.0), name))
    return tuple(OperatorTime(n, Change(*(1e3 * known.get(n, 0.0) for known in found))) for n in names)


def _profile(model: bytes, feeds: Mapping[str, Array], threads: int) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, seconds in onnxruntime_seconds(model, feeds, threads).items():
        operator = name.partition(" ")[0]
        total[operator] = total.get(operator, 0.0) + typical(seconds)
    return total
