"""Names made short: as much of them as there is room for, and still told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

#: A beginning or an end is left out where at least this share of the names has it.
SHARED = 0.75
#: Where the middle is cut out, in the order of preference: the share of the room that the beginning gets.
_HEADS = (1 / 3, 0.0, 2 / 3, 1 / 2)


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Each name in ``width`` characters at most, whole where all of them fit, different where the names are."""
    best: list[str] = []
    for pool in (names, _last_parts(names)):
        for head in _HEADS:
            found = [elide(name, width, head) for name in pool]
            if len(set(found)) == len(set(names)):
                return found
            best = max(best, found, key=lambda texts: len(set(texts)))
    return best


def essential(names: Sequence[str]) -> list[str]:
    """Names without what most of them begin or end with, different where the names are."""
    found = _last_parts(names)
    for pattern in (r"^/?[^/]+/", r"[/._][^/._]*$"):
        while True:
            fewer = _without(found, re.compile(pattern))
            if fewer == found:
                break
            found = fewer
    return found


def elide(text: str, width: int, head: float = 1 / 3) -> str:
    """``text``, its middle replaced by ``…`` where it is longer than ``width``: names differ at both ends."""
    if len(text) <= width:
        return text
    begin = int((width - 1) * head)
    end = text[len(text) - (width - 1 - begin) :]
    slash = end.find("/")
    if not begin and 0 < slash < len(end) // 2:
        end = end[slash:]
    return f"{text[:begin]}…{end}"


def _last_parts(names: Sequence[str]) -> list[str]:
    """TensorFlow joins the names of the nodes that it fuses by ``;``, the layer's own last."""
    return _if_distinct(names, lambda name: name.rpartition(";")[2] or name)


def _without(names: list[str], pattern: re.Pattern[str]) -> list[str]:
    found = [match[0] for name in names if (match := pattern.search(name)) and match[0] != name]
    part, count = Counter(found).most_common(1)[0] if found else ("", 0)
    if count < max(2, SHARED * len(names)):
        return names
    begins = pattern.pattern.startswith("^")

    def cut(name: str) -> str:
        return (name.removeprefix(part) if begins else name.removesuffix(part)) or name

    return _if_distinct(names, cut)


def _if_distinct(names: Sequence[str], change: Callable[[str], str]) -> list[str]:
    changed = [change(name) for name in names]
    return changed if len(set(changed)) == len(set(names)) else list(names)
