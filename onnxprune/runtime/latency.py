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
    """(milliseconds per run, ± of each in ms), from alternating runs.

    ``Change.after`` is the original's median times the median ratio, so that ``ratio`` is the paired one.  ±: about
    a 90 % interval of the original's median, and of the median ratio (times the original's median).
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
    return Change(base, base * float(np.median(ratios))), (notch(table[:, 0]) * 1e3, base * notch(ratios))


def notch(values: Array) -> float:
    """Half-width of a box plot's notch, 1.57 · interquartile range / √n: about a 90 % interval of the median.

    McGill, Tukey, Larsen: Variations of box plots, The American Statistician 32 (1978).
    """
    high, low = np.quantile(values, (0.75, 0.25))
    return float(1.57 * (high - low) / np.sqrt(len(values)))


def _once(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    session.run(None, dict(feeds))
    return time.perf_counter() - start
