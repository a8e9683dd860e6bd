"""The layout of a detector's outputs: how they encode boxes and classes, and the text of ``--layout`` for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.errors import OptionError
from onnxprune.spelling import nearest

#: Word of ``--layout`` → (field, value).  A word states one field; the outputs determine the others.
WORDS: Mapping[str, tuple[str, str]] = {
    "dense": ("form", "dense"),  # a prediction per place, before any suppression
    "rows": ("form", "rows"),  # final detections, one row each
    "columns": ("form", "columns"),  # final detections, one tensor per field
    "xyxy": ("box", "xyxy"),  # left, top, right, bottom
    "yxyx": ("box", "yxyx"),  # top, left, bottom, right
    "xywh": ("box", "xywh"),  # centre, width, height
    "tlwh": ("box", "tlwh"),  # left, top, width, height
    "distances": ("box", "distances"),  # from the place to the left, top, right, bottom edges
    "grid": ("box", "grid"),  # offset from the place's cell; logarithms of width and height in strides
    "priors": ("box", "priors"),  # offsets to the boxes of anchors=FILE, variances 0.1 and 0.2
    "pixels": ("unit", "pixels"),
    "normalised": ("unit", "normalised"),  # 0 … 1 over the image
    "strides": ("unit", "strides"),  # of the level of the place
    "classes": ("score", "classes"),  # one score per class
    "objectness": ("score", "objectness"),  # an objectness score, and class scores to multiply by it
    "background-first": ("score", "background-first"),
    "background-last": ("score", "background-last"),
    "probabilities": ("activation", "probabilities"),
    "sigmoid": ("activation", "sigmoid"),  # the outputs are logits
    "softmax": ("activation", "softmax"),
    "places-first": ("axis", "places-first"),  # N × fields
    "places-last": ("axis", "places-last"),  # fields × N
}
#: Words that take a value.
VALUED = ("bins", "keypoints", "order", "anchors")
#: Fields of a row of a ready detection.
FIELDS = ("batch", "box", "score", "class")


@dataclass(frozen=True)
class Layout:
    """One encoding of detections, in the words of :data:`WORDS`.

    ``bins``: values of the distribution over each distance; 1 if the output gives the distance itself.
    ``keypoints``: number per detection; they follow the classes.  ``order``: fields of a row, for ``rows``.
    ``anchors``: an .npy file of (A, 4) prior boxes: centre, width, height, normalised.
    """

    form: str = "dense"
    box: str = "xyxy"
    unit: str = "pixels"
    score: str = "classes"
    activation: str = "probabilities"
    axis: str = "places-first"
    bins: int = 1
    keypoints: int = 0
    order: tuple[str, ...] = ()
    anchors: str = ""

    def text(self) -> str:
        """The complete text for ``--layout``.

        >>> Layout(box="xywh", axis="places-last").text()
        'dense,xywh,pixels,classes,probabilities,places-last'
        """
        words = [self.form, self.box, self.unit]
        if self.form == "dense":
            words += [self.score, self.activation, self.axis]
        words += [f"bins={self.bins}"] if self.bins > 1 else []
        words += [f"keypoints={self.keypoints}"] if self.keypoints else []
        words += [f"order={'.'.join(self.order)}"] if self.order else []
        words += [f"anchors={self.anchors}"] if self.anchors else []
        return ",".join(words)

    def stated(self, given: Mapping[str, object]) -> Layout:
        """This layout, with the fields in ``given`` replaced."""
        return replace(self, **given)  # type: ignore[arg-type]


def parse_layout(text: str) -> dict[str, object]:
    """Parse ``--layout``: field of :class:`Layout` → value.

    Raises:
        OptionError: if a word is unknown, or two words contradict each other.

    >>> parse_layout("xywh,objectness,keypoints=17")
    {'box': 'xywh', 'score': 'objectness', 'keypoints': 17}
    """
    fields: dict[str, object] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if equals and name in VALUED:
            field, stated = name, _value(name, value)
        elif word in WORDS:
            field, stated = WORDS[word]
        else:
            hint = nearest(word, (*WORDS, *(f"{name}=" for name in VALUED)))
            raise OptionError(
                f"--layout: unknown word '{word}'{hint}; choose from {', '.join(WORDS)}, {'=, '.join(VALUED)}="
            )
        if fields.get(field, stated) != stated:
            raise OptionError(f"--layout says both '{fields[field]}' and '{stated}'; give one of them")
        fields[field] = stated
    return fields


def _value(name: str, text: str) -> object:
    if name == "anchors":
        read_anchors(text)
        return text
    if name == "order":
        fields = tuple(text.split("."))
        if not {"box", "score"} <= set(fields) <= set(FIELDS) or len(set(fields)) != len(fields):
            raise OptionError(
                f"--layout order={text}: name box and score once each, and class and batch if the rows have them, "
                "as in order=batch.box.class.score"
            )
        return fields
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--layout {name}={text}: give a whole number above 0")
    return int(text)


def read_anchors(path: str) -> np.ndarray:
    """Prior boxes, (A, 4) float64.

    Raises:
        OptionError: if the file holds no such array.
    """
    try:
        array = np.load(Path(path).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise OptionError(f"--layout anchors={path}: cannot read it: {error}; save them with numpy.save") from error
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind != "f":
        raise OptionError(
            f"--layout anchors={path}: got {array.dtype} {array.shape}; give an array of floats (boxes, 4): centre, "
            "width and height, normalised"
        )
    return np.asarray(array, dtype=np.float64)
