"""Latency of two models, measured in pairs so that drifting machine speed cancels out.

A pair is the fastest of a few consecutive runs of one model, and the same of the other right after it.  So both see
the same state of the machine, and a run that another process interrupts does not count.  A single thread is timed by
its own processor time, if the system counts that finely enough: waiting for a busy processor then does not count.
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
#: Maximum seconds of one comparison, and its minimum and maximum number of pairs.
SECONDS, MIN_PAIRS, MAX_PAIRS = 3.0, 7, 60
#: Seconds of one model's consecutive runs, and their maximum number.
ROW_SECONDS, MAX_IN_ROW = 0.04, 32
#: A clock of processor time must resolve this many seconds to be useful.
FINE = 1e-5


def compare_latency(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array], engine: Engine
) -> tuple[Change, tuple[float, float]]:
    """(milliseconds per run, ± of each in ms), from alternating blocks of runs.

    ``Change.after`` is the original's median times the median ratio of the pairs.  So ``Change.ratio`` is the paired
    ratio.  ± is about a 90 % interval: of the original's median, and of the median ratio (times the original's median).
    """
    sessions = (open_timing_session(before, engine), open_timing_session(after, engine))
    for session in sessions:
        run(session, feeds)
    clock = clock_of(engine)
    warm = min(_fastest(session, feeds, 2, clock) for session in sessions)
    in_row = int(np.clip(ROW_SECONDS / max(warm, 1e-9), 1, MAX_IN_ROW))
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < MIN_PAIRS or (len(pairs) < MAX_PAIRS and time.perf_counter() - start < SECONDS):
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
    """The clock to time runs on ``engine``: processor time for one CPU thread, else wall time."""
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
