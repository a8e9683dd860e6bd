"""The nearest spelling of a word."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)``, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
