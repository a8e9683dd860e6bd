"""Labelled boxes of images: text files beside them, one box per line, or COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import DataError


@dataclass(frozen=True, eq=False)
class LabelledBoxes:
    """The labels of an image: boxes (N, 4) left, top, right, bottom, and classes (N,), starting at 0.

    Boxes are in shares of the image's sides if `shares` is set, else in pixels.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    shares: bool = False


Labelling = Callable[[Path], LabelledBoxes]


def text_file(picture: Path) -> Path | None:
    """The text file with an image's boxes: beside it, or in `labels` if the image is in `images`."""
    parts = list(picture.parts)
    for at in reversed(range(len(parts) - 1)):
        if parts[at] == "images":
            beside = Path(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
            if beside.is_file():
                return beside
            break
    own = picture.with_suffix(".txt")
    return own if own.is_file() else None


def read_text(path: Path) -> LabelledBoxes:
    """Read lines of `class x y width height` or `class x1 y1 x2 y2 x3 y3 …`, in shares of the image's sides.

    Raises DataError for any other line.
    """
    boxes, classes = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = [float("nan")]
        if not values:
            continue
        kind, rest = values[0], np.asarray(values[1:])
        if len(rest) < 4 or not np.isfinite(rest).all() or kind < 0 or kind != int(kind):
            raise DataError(
                f"{path}, line {number}: '{line.strip()[:60]}' is not a box; a line has a class number and x, y, width "
                "and height as shares of the image's sides"
            )
        if len(rest) > 5 and len(rest) % 2 == 0:
            points = rest.reshape(-1, 2)
            boxes.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
        else:
            half = rest[2:4] / 2
            boxes.append(np.concatenate([rest[:2] - half, rest[:2] + half]))
        classes.append(int(kind))
    return LabelledBoxes(np.asarray(boxes).reshape(-1, 4), np.asarray(classes, dtype=np.int64), shares=True)


def text_labels(pictures: Sequence[Path]) -> Labelling | None:
    """Labels from text files, or None if no image has one. An image without a file has no boxes."""
    if not any(text_file(picture) for picture in pictures):
        return None

    def labels(picture: Path) -> LabelledBoxes:
        path = text_file(picture)
        return LabelledBoxes(np.zeros((0, 4)), np.zeros(0, np.int64), True) if path is None else read_text(path)

    return labels


def coco_file(root: Path) -> Path | None:
    """The COCO annotation file (JSON) in a folder, if there is one.

    Raises DataError if there are several.
    """
    annotated = [path for path in sorted(root.glob("*.json")) if _is_coco(path)]
    if len(annotated) > 1:
        raise DataError(f"{root} has several annotation files: {', '.join(p.name for p in annotated)}; name one of them")
    return annotated[0] if annotated else None


def _is_coco(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"images", "annotations", "categories"} <= set(value)


def read_coco(path: Path) -> tuple[list[Path], Labelling]:
    """The images of a COCO annotation file, and their labels.

    A class is the position of its category, ordered by id, as detectors number them. Crowds are left out. Raises
    DataError if the file is malformed or its images are missing.
    """
    try:
        value = json.loads(path.read_bytes())
        order = {kind: at for at, kind in enumerate(sorted(int(c["id"]) for c in value["categories"]))}
        notes: dict[int, list[tuple[NDArray[np.float64], int]]] = {int(i["id"]): [] for i in value["images"]}
        for note in value["annotations"]:
            if not note.get("iscrowd") and int(note["image_id"]) in notes:
                left, top, width, height = (float(v) for v in note["bbox"])
                box = np.array([left, top, left + width, top + height])
                notes[int(note["image_id"])].append((box, order[int(note["category_id"])]))
        files = {int(i["id"]): str(i["file_name"]) for i in value["images"]}
        sizes = {int(i["id"]): (float(i.get("width") or 0), float(i.get("height") or 0)) for i in value["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {path} as COCO annotations ({type(error).__name__}: {error}); it needs images, annotations "
            "with a bbox, and categories"
        ) from error
    places = _places(path, files)
    known = {places[i]: (own, sizes[i]) for i, own in notes.items()}

    def labels(picture: Path) -> LabelledBoxes:
        own, (width, height) = known[picture]
        boxes = np.asarray([box for box, _ in own]).reshape(-1, 4)
        classes = np.asarray([kind for _, kind in own], dtype=np.int64)
        # A large image may be decoded at reduced size; shares do not depend on the size.
        if width and height:
            return LabelledBoxes(boxes / [width, height, width, height], classes, shares=True)
        return LabelledBoxes(boxes, classes)

    return sorted(places.values()), labels


def _places(path: Path, files: Mapping[int, str]) -> dict[int, Path]:
    """The paths of the images: beside the file, in `images`, or in a folder with the last part of its name.

    For example, `annotations/instances_val2017.json` goes with `val2017/`.
    """
    last = path.stem.rpartition("_")[2]
    folders = (path.parent, path.parent / "images", path.parent.parent / last, path.parent.parent / "images" / last)
    for folder in (*folders, path.parent.parent, path.parent.parent / "images"):
        if files and (folder / next(iter(files.values()))).is_file():
            return {key: folder / name for key, name in files.items()}
    raise DataError(
        f"the images of {path}, such as '{next(iter(files.values()), '')}', are not beside it, in 'images' or in "
        f"'{last}'; put them there"
    )
