"""The time of a run, per stage."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Stopwatch:
    """Seconds per stage, in the order in which stages end.  ``elapsed``: seconds of the run before the stopwatch started."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self.start = self._last = time.perf_counter() - elapsed
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Count all time since the last mark as ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def done(self) -> dict[str, float]:
        """Stage -> seconds, and the ``total``."""
        return {**self.seconds, "total": time.perf_counter() - self.start}


def process_seconds() -> float:
    """Seconds since this process started; 0 if the system does not say (only Linux does)."""
    try:
        # The name, in parentheses, may contain anything.  Field 22 is the start, in ticks since boot.
        after_name = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
