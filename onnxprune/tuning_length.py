"""How long tuning may take: a time, passes over the data, or until it gains nothing more."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxprune.errors import OptionError

#: Maximum seconds of tuning if the user states no time.
LONGEST = 600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
FORMS = "a time such as 90s, 10m or 2h, or passes over the data such as 20x"


@dataclass(frozen=True)
class TuningLength:
    """``seconds`` or ``passes``.  With neither, tuning ends when the held-out samples gain nothing more."""

    seconds: float | None = None
    passes: float | None = None

    def __str__(self) -> str:
        if self.passes is not None:
            return f"{self.passes:g}x"
        return "auto" if self.seconds is None else f"{self.seconds:g}s"


def parse_length(text: str) -> TuningLength:
    """Parse ``10m``, ``90s``, ``20x``, or ``auto``.

    Raises:
        OptionError: if ``text`` is anything else.

    >>> parse_length("10m").seconds, parse_length("20x").passes
    (600.0, 20.0)
    """
    if text == "auto":
        return TuningLength()
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|x)", text.strip().lower())
    if parts is None or not float(parts[1]):
        raise OptionError(f"tune: {text!r} is not a duration: give {FORMS}")
    number = float(parts[1])
    return TuningLength(passes=number) if parts[2] == "x" else TuningLength(seconds=number * _UNITS[parts[2]])
