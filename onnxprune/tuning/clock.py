"""The progress of one cosine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """The progress of one cosine: counted in steps if ``steps`` is known, else in time."""

    steps: int | None
    seconds: float
    now: Callable[[], float] = time.monotonic
    begun: float = field(default=0.0)

    def start(self) -> None:
        self.begun = self.now()

    def elapsed(self) -> float:
        return self.now() - self.begun

    def share(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        return min(self.elapsed() / self.seconds, 1.0)

    def part(self, seconds: float) -> float:
        """``seconds`` as a share of the cosine; 0 if it counts steps, so that time decides nothing."""
        return 0.0 if self.steps is not None else seconds / self.seconds
