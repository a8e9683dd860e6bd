"""What an exporter wrote into a model's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx

#: The key under which detector exporters write the size of the pictures that they trained with: "640" or "[480, 640]".
PICTURE_SIZE = "imgsz"
#: The key under which they write the names of the classes: "{0: 'cat', 1: 'dog'}", the same as JSON, or a list.
CLASS_NAMES = "names"
_SIDES = re.compile(r"[\[(]?\s*(\d{1,5})\s*(?:,\s*(\d{1,5})\s*)?[\])]?")

_NAME = r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\""""
_NUMBERED = re.compile(rf"""["']?(\d{{1,6}})["']?\s*:\s*(?:{_NAME})""")
_LISTED = re.compile(_NAME)


def picture_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """(height, width) in pixels that the metadata states; None if it states none, or something else.

    >>> model = onnx.ModelProto()
    >>> model.metadata_props.add(key="imgsz", value="[480, 640]").key, picture_size(model)
    ('imgsz', (480, 640))
    """
    for entry in model.metadata_props:
        sides = _SIDES.fullmatch(entry.value.strip()) if entry.key == PICTURE_SIZE else None
        if sides is not None:
            height, width = int(sides[1]), int(sides[2] or sides[1])
            return (height, width) if min(height, width) else None
    return None


def class_names(entries: Mapping[str, str]) -> dict[int, str]:
    """Class number to name, as the metadata ``entries`` state them; empty if they state none.

    Matches text and evaluates nothing: a model is not trusted.

    >>> class_names({"names": "{0: 'cat', 1: 'guide dog'}"}), class_names({"names": '["cat", "guide dog"]'})
    ({0: 'cat', 1: 'guide dog'}, {0: 'cat', 1: 'guide dog'})
    >>> class_names({"names": "hal.onnx"}), class_names({})
    ({}, {})
    """
    text = entries.get(CLASS_NAMES, "").strip()
    if text.startswith("{"):
        return {int(number): single or double for number, single, double in _NUMBERED.findall(text)}
    if text.startswith("["):
        return {number: single or double for number, (single, double) in enumerate(_LISTED.findall(text))}
    return {}
