"""Latency of two models, measured in pairs, so that a machine whose speed drifts does not decide."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort

from onnxprune.result import Change
from onnxprune.runtime.session import Engine, open_session, run

Array = np.ndarray
#: Seconds that one comparison may take, and the pairs that it makes at least and at most.
SECONDS, LEAST_PAIRS, MOST_PAIRS = 3.0, 7, 60


def compare_latency(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array], engine: Engine
) -> tuple[Change, tuple[float, float]]:
    """(milliseconds per run, half interquartile ranges in ms), from alternating runs.

    ``Change.after`` is the original's median times the median ratio, so that ``ratio`` is the paired one; the
    second range is that of the ratio, times the original's median.
    """
    sessions = (open_session(before, engine), open_session(after, engine))
    for session in sessions:
        for _ in range(2):
            run(session, feeds)
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < LEAST_PAIRS or (len(pairs) < MOST_PAIRS and time.perf_counter() - start < SECONDS):
        first = len(pairs) % 2
        times = [0.0, 0.0]
        for which in (first, 1 - first):
            times[which] = _once(sessions[which], feeds)
        pairs.append((times[0], times[1]))
    table = np.asarray(pairs)
    ratios = table[:, 1] / table[:, 0]
    base = float(np.median(table[:, 0])) * 1e3
    spread = float(np.subtract(*np.quantile(table[:, 0], (0.75, 0.25)))) * 1e3 / 2
    middle, width = float(np.median(ratios)), float(np.subtract(*np.quantile(ratios, (0.75, 0.25)))) / 2
    return Change(base, base * middle), (spread, base * width)


def _once(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    session.run(None, dict(feeds))
    return time.perf_counter() - start
