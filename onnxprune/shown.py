"""Make text from outside (names in a model, file names, errors of libraries) safe to show in a terminal and on a page.

A name may contain an escape sequence that repaints the terminal, or a character that reverses a line.  All text to show
passes through this module.  Text to match, or to write to a plan, does not.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

#: Control characters (C0 except the line end, DEL, C1), characters that change the text direction, other line ends, the
#: byte-order mark, and bytes of file names that are not text.
_HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: Maximum characters of a word.  Nobody reads a longer name to its end.
LONGEST = 400
#: Maximum characters of a message.
WHOLE = 4000

_T = TypeVar("_T")


def shown(text: str) -> str:
    """``text`` with invisible characters as escapes.  Line ends stay.

    >>> print(shown("red\\x1b[31m a\\u202eb"))
    red\\x1b[31m a\\u202eb
    """
    return _HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    """``text`` as one safe line.  Shortens long words, and the whole line, in the middle.

    >>> one_line("a\\n  b"), len(one_line("x" * 5000))
    ('a b', 400)
    """
    # ``split()`` without arguments would drop control characters that count as space.
    parts = [part for part in re.split("[ \t\r\n]+", text) if part]
    return _short(" ".join(_short(shown(part), LONGEST) for part in parts), WHOLE)


def for_reading(value: _T) -> _T:
    """A report, or any part of one, with every string safe to show: escaped, and with long words shortened."""
    return _mapped(value)  # type: ignore[return-value]


def in_json(document: str) -> str:
    """A JSON text with escapes in place of invisible characters: it parses to the same document."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _mapped(value: object) -> object:
    if isinstance(value, str):
        return re.sub(r"[^ \n]+", lambda match: _short(match[0], LONGEST), shown(value))
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item) for item in value)
    if isinstance(value, dict):
        return {_mapped(key): _mapped(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _mapped(getattr(value, field.name)) for field in fields(value)})
    return value


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        # Python represents a byte of a file name that is not text this way.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _short(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
