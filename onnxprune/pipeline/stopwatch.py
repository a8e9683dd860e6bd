"""Where the time of a run goes."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds per stage, in the order in which stages end."""

    def __init__(self) -> None:
        self.start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Everything since the last mark was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def done(self) -> dict[str, float]:
        """Stage -> seconds, and their ``total``."""
        return {**self.seconds, "total": time.perf_counter() - self.start}
