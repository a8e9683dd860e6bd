"""Short names that stay distinct."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

#: Drop a prefix or suffix that at least this share of the names has.
SHARED = 0.75
#: The share of the width that the beginning gets when the middle is cut out, in order of preference.
_HEADS = (1 / 3, 0.0, 2 / 3, 1 / 2)


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Each name in at most ``width`` characters.  Distinct names stay distinct if possible."""
    best: list[str] = []
    for pool in (names, _last_parts(names)):
        for head in _HEADS:
            texts = [elide(name, width, head) for name in pool]
            if len(set(texts)) == len(set(names)):
                return texts
            best = max(best, texts, key=lambda texts: len(set(texts)))
    return best


def essential(names: Sequence[str]) -> list[str]:
    """Names without the prefixes and suffixes that most of them share.  Distinct names stay distinct."""
    short = _last_parts(names)
    for pattern in (r"^/?[^/]+/", r"[/._][^/._]*$"):
        while True:
            shorter = _without(short, re.compile(pattern))
            if shorter == short:
                break
            short = shorter
    return short


def elide(text: str, width: int, head: float = 1 / 3) -> str:
    """``text`` in at most ``width`` characters, with ``…`` for its middle: names differ at both ends."""
    if len(text) <= width:
        return text
    begin = int((width - 1) * head)
    end = text[len(text) - (width - 1 - begin) :]
    slash = end.find("/")
    if not begin and 0 < slash < len(end) // 2:
        end = end[slash:]
    return f"{text[:begin]}…{end}"


def _last_parts(names: Sequence[str]) -> list[str]:
    """The name of the layer itself: TensorFlow joins the names of fused nodes with ``;``, the layer last."""
    return _if_distinct(names, lambda name: name.rpartition(";")[2] or name)


def _without(names: list[str], pattern: re.Pattern[str]) -> list[str]:
    parts = [match[0] for name in names if (match := pattern.search(name)) and match[0] != name]
    part, count = Counter(parts).most_common(1)[0] if parts else ("", 0)
    if count < max(2, SHARED * len(names)):
        return names
    begins = pattern.pattern.startswith("^")

    def cut(name: str) -> str:
        return (name.removeprefix(part) if begins else name.removesuffix(part)) or name

    return _if_distinct(names, cut)


def _if_distinct(names: Sequence[str], change: Callable[[str], str]) -> list[str]:
    changed = [change(name) for name in names]
    return changed if len(set(changed)) == len(set(names)) else list(names)
