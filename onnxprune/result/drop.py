"""The drop: how far the pruned model's outputs are from the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What the drop was measured on: held-out samples of the user, made-up samples, or samples that the original answers
#: alike.  The last two make the drop nearly meaningless.
DropSource = Literal["held out", "made up", "alike"]


@dataclass(frozen=True)
class Drop:
    """How far the pruned model's outputs are from the original's, on held-out samples.

    ``metric`` names the task's metric, such as "AP50 lost", or "values changed", "output error", or the user's own.
    ``low`` and ``high`` are a 95 % interval of the value, or None.
    ``figures`` are the usual figures of the task, such as ("AP50", 0.93).
    """

    metric: str
    value: float
    samples: int
    low: float | None = None
    high: float | None = None
    figures: tuple[tuple[str, float], ...] = ()
