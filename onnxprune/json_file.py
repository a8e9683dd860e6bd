"""Read JSON from outside within bounds, and check it against a schema of this package."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxprune.paths import read_ordinary

#: Maximum bytes of a plan or table.  The plan of a model with 20,000 channels has less than a megabyte.
MAX_BYTES = 1 << 28
#: Maximum digits of a number.  No size has more, and longer numbers take long to read.
DIGITS = 30


def read_json(path: str | Path) -> Any:
    """The document in a file.

    Raises:
        OSError: the file is unreadable or not a regular file.
        ValueError: if it is not JSON; one line.
    """
    return parse_json(read_ordinary(path, MAX_BYTES).decode("utf-8"))


def parse_json(text: str) -> Any:
    """Parse ``text``.

    Raises:
        ValueError: if ``text`` is not JSON, or contains NaN, infinity, a number of too many digits, or too deep nesting.
    """
    try:
        return json.loads(text, parse_int=_integer, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def check(document: object, schema: Mapping[str, Any], where: str = "") -> None:
    """Check a document against a JSON Schema.  Supports the keywords that the schemas of this package use.

    Raises:
        ValueError: if the document does not fit; names the first such place.
    """
    for key, value in schema.items():
        if key in _NOTES:
            continue
        fault = _RULES[key](document, value)
        if fault:
            raise ValueError(f"{where or 'the document'} {fault}")
    if isinstance(document, dict):
        for name, item in document.items():
            place = f"{where}.{name}" if where else str(name)
            if "propertyNames" in schema:
                check(name, schema["propertyNames"], f"the name in {place}")
            known = schema.get("properties", {})
            if name in known:
                check(item, known[name], place)
            elif "additionalProperties" in schema:
                check(item, schema["additionalProperties"], place)
    if isinstance(document, list) and "items" in schema:
        for position, item in enumerate(document):
            check(item, schema["items"], f"{where}[{position}]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    # In JSON, 1.0 is an integer and true is not a number.
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: Mapping[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": _is_integer,
}


def _equal(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _unique(value: object, wanted: bool) -> str:
    if not wanted or not isinstance(value, list):
        return ""
    distinct = {json.dumps(int(item) if _is_integer(item) else item, sort_keys=True) for item in value}
    return "" if len(distinct) == len(value) else "has an item twice"


def _missing(value: object, names: list[str]) -> str:
    missing = [name for name in names if isinstance(value, dict) and name not in value]
    return f"lacks '{missing[0]}'" if missing else ""


_RULES: Mapping[str, Callable[[Any, Any], str]] = {
    "type": lambda value, kind: "" if _TYPES[kind](value) else f"is {_brief(value)}, which is not of type {kind}",
    "required": _missing,
    "const": lambda value, wanted: "" if _equal(value, wanted) else f"is {_brief(value)}, not {wanted!r}",
    "enum": lambda value, known: (
        "" if any(_equal(value, one) for one in known) else f"is {_brief(value)}; choose from {', '.join(known)}"
    ),
    "pattern": lambda value, pattern: (
        "" if not isinstance(value, str) or re.search(pattern, value) else f"has the wrong form: {_brief(value)}"
    ),
    "minLength": lambda value, least: "is empty" if isinstance(value, str) and len(value) < least else "",
    "minimum": lambda value, least: f"is {value}, below {least}" if _is_number(value) and value < least else "",
    "minItems": lambda value, least: "is empty" if isinstance(value, list) and len(value) < least else "",
    "minProperties": lambda value, least: "is empty" if isinstance(value, dict) and len(value) < least else "",
    "uniqueItems": _unique,
}
_NOTES = frozenset(
    ["$schema", "$id", "title", "description", "properties", "items", "propertyNames", "additionalProperties"]
)


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
