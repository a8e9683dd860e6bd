"""How long a tuning may take: a time, passes over the data, or until nothing is gained."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxprune.errors import OptionError

#: Seconds that tuning takes at most where no time is stated.
LONGEST = 600.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
FORMS = "a time such as 90s, 10m or 2h, or passes over the data such as 20x"


@dataclass(frozen=True)
class Allowance:
    """``seconds`` or ``passes``; with neither, tuning ends when held-out samples gain nothing more."""

    seconds: float | None = None
    passes: float | None = None

    def __str__(self) -> str:
        if self.passes is not None:
            return f"{self.passes:g}x"
        return "auto" if self.seconds is None else f"{self.seconds:g}s"


def allowance(text: str) -> Allowance:
    """``10m``, ``90s``, ``20x``, or ``auto``.

    Raises:
        OptionError: for anything else.

    >>> allowance("10m").seconds, allowance("20x").passes
    (600.0, 20.0)
    """
    if text == "auto":
        return Allowance()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|x)", text.strip().lower())
    if found is None or not float(found[1]):
        raise OptionError(f"tune: {text!r} is no length of a tuning: give {FORMS}")
    number = float(found[1])
    return Allowance(passes=number) if found[2] == "x" else Allowance(seconds=number * _UNITS[found[2]])
