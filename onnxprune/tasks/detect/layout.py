"""How a detector's outputs say where things are and what they are: a value, and its text for ``--layout``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.errors import OptionError

#: What each word of ``--layout`` sets, and to what.  A word states one thing; the rest is read off the outputs.
WORDS: Mapping[str, tuple[str, str]] = {
    "dense": ("form", "dense"),  # a prediction per place, before any suppression
    "rows": ("form", "rows"),  # ready detections, one row each
    "columns": ("form", "columns"),  # ready detections, one tensor per field
    "xyxy": ("box", "xyxy"),  # left, top, right, bottom
    "yxyx": ("box", "yxyx"),  # top, left, bottom, right
    "xywh": ("box", "xywh"),  # centre, width, height
    "tlwh": ("box", "tlwh"),  # left, top, width, height
    "distances": ("box", "distances"),  # from the place to left, top, right, bottom
    "grid": ("box", "grid"),  # offset from the place's cell; logarithms of width and height in strides
    "priors": ("box", "priors"),  # offsets to the boxes of anchors=FILE, variances 0.1 and 0.2
    "pixels": ("unit", "pixels"),
    "normalised": ("unit", "normalised"),  # 0 … 1 over the picture
    "strides": ("unit", "strides"),  # of the level that the place is on
    "classes": ("score", "classes"),  # one score per class
    "objectness": ("score", "objectness"),  # an objectness, and scores of the classes that it multiplies
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
    """One way to write detections; the words are those of :data:`WORDS`.

    ``bins``: values of the distribution over each distance, 1 where the distance is given itself.
    ``keypoints``: per detection, behind the classes.  ``order``: fields of a row, for ``rows``.
    ``anchors``: an .npy of (A, 4) prior boxes: centre, width, height, normalised.
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
        """As ``--layout`` takes it, complete.

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
        """This layout, with what the user states in place of what was read."""
        return replace(self, **given)  # type: ignore[arg-type]


def parse_layout(text: str) -> dict[str, object]:
    """What ``--layout`` states: field of :class:`Layout` to value.

    Raises:
        OptionError: for a word that there is not, or two that contradict each other.

    >>> parse_layout("xywh,objectness,keypoints=17")
    {'box': 'xywh', 'score': 'objectness', 'keypoints': 17}
    """
    found: dict[str, object] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if equals and name in VALUED:
            field, stated = name, _value(name, value)
        elif word in WORDS:
            field, stated = WORDS[word]
        else:
            near = difflib.get_close_matches(word, (*WORDS, *(f"{name}=" for name in VALUED)), n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise OptionError(
                f"--layout has no word '{word}'{hint}; there are {', '.join(WORDS)}, {'=, '.join(VALUED)}="
            )
        if found.get(field, stated) != stated:
            raise OptionError(f"--layout says both '{found[field]}' and '{stated}'; give one of them")
        found[field] = stated
    return found


def _value(name: str, text: str) -> object:
    if name == "anchors":
        read_anchors(text)
        return text
    if name == "order":
        fields = tuple(text.split("."))
        if not {"box", "score"} <= set(fields) <= set(FIELDS) or len(set(fields)) != len(fields):
            raise OptionError(
                f"--layout order={text}: name each of box, score and, where there are such, class and batch once, "
                "as in order=batch.box.class.score"
            )
        return fields
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--layout {name}={text}: give a whole number above 0")
    return int(text)


def read_anchors(path: str) -> np.ndarray:
    """Prior boxes, (A, 4) float64.

    Raises:
        OptionError: where the file holds no such array.
    """
    try:
        array = np.load(Path(path).expanduser(), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise OptionError(f"--layout anchors={path}: cannot read it: {error}; save them with numpy.save") from error
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind != "f":
        raise OptionError(
            f"--layout anchors={path}: got {array.dtype} {array.shape}; an array of floats (boxes, 4) is needed: "
            "centre, width and height, normalised"
        )
    return np.asarray(array, dtype=np.float64)
