"""What an exporter wrote into a model's metadata."""

from __future__ import annotations

import re

import onnx

#: The key under which detector exporters write the size of the pictures that they trained with: "640" or "[480, 640]".
PICTURE_SIZE = "imgsz"
_SIDES = re.compile(r"[\[(]?\s*(\d{1,5})\s*(?:,\s*(\d{1,5})\s*)?[\])]?")


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
