"""Latency of two models, measured in pairs, so that a machine whose speed drifts does not decide.

A pair is the fastest of a few runs in a row of each model, one model right after the other: the pair shares the
machine's state of the moment, and a run that another process interrupted is left out.  A single thread is timed by
its own processor time where the system counts it finely, so that waiting for a busy processor does not count at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime as ort

from onnxprune.engine.session import Engine, open_timing_session, run
from onnxprune.result import Change

Array = np.ndarray
#: Seconds that one comparison may take, and the pairs that it makes at least and at most.
SECONDS, LEAST_PAIRS, MOST_PAIRS = 3.0, 7, 60
#: Seconds of one model's runs in a row, and their number at most.
ROW_SECONDS, MOST_IN_ROW = 0.04, 32
#: Seconds to which a clock of processor time must tell to be of use.
FINE = 1e-5


def compare_latency(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array], engine: Engine
) -> tuple[Change, tuple[float, float]]:
    """(milliseconds per run, ± of each in ms), from alternating rows of runs.

    ``Change.after`` is the original's median times the median ratio, so that ``ratio`` is the paired one.  ±: about
    a 90 % interval of the original's median, and of the median ratio (times the original's median).
    """
    sessions = (open_timing_session(before, engine), open_timing_session(after, engine))
    for session in sessions:
        run(session, feeds)
    clock = clock_of(engine)
    warm = min(_fastest(session, feeds, 2, clock) for session in sessions)
    in_row = int(np.clip(ROW_SECONDS / max(warm, 1e-9), 1, MOST_IN_ROW))
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < LEAST_PAIRS or (len(pairs) < MOST_PAIRS and time.perf_counter() - start < SECONDS):
        first = len(pairs) % 2
        times = [0.0, 0.0]
        for which in (first, 1 - first):
            times[which] = _fastest(sessions[which], feeds, in_row, clock)
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


def clock_of(engine: Engine) -> Callable[[], float]:
    """The clock that times runs on ``engine``."""
    alone = engine.cores() == 1 and engine.providers == ("CPUExecutionProvider",)
    return time.thread_time if alone and time.get_clock_info("thread_time").resolution <= FINE else time.perf_counter


def _fastest(session: ort.InferenceSession, feeds: Mapping[str, Array], runs: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of ``runs`` runs in a row."""
    best = np.inf
    for _ in range(runs):
        start = clock()
        session.run(None, dict(feeds))
        best = min(best, clock() - start)
    return float(best)
