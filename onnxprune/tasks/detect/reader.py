"""The reader of detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.dense import decode
from onnxprune.tasks.detect.detections import Detections
from onnxprune.tasks.detect.layout import Layout
from onnxprune.tasks.detect.precision import Truth, precision, truth
from onnxprune.tasks.detect.ready import Ready, decode_ready, recognise_ready
from onnxprune.tasks.detect.recognise import Recognised, recognise
from onnxprune.tasks.task import Agreement, Guess, TaskKind

#: Detections of the original with at least this score count as ground truth.  Demo programs of detectors show boxes
#: above 0.25, 0.35 or 0.5.
CONFIDENT = 0.25
UNREAD = (
    "they are not detections in a known layout; describe the layout with --layout, or give your own metric with "
    "--eval"
)


@dataclass(frozen=True, eq=False)
class Detect:
    """Reads detections.  ``read`` is the reading of dense or ready outputs, ``size`` the (height, width) of the image fed."""

    read: Recognised | Ready
    size: tuple[int, int]

    @property
    def kind(self) -> TaskKind:
        return "detect"

    @property
    def measure(self) -> str:
        return "AP50 lost"

    @property
    def allowed(self) -> float:
        return 0.05

    @property
    def layout(self) -> Layout:
        return self.read.layout

    @property
    def how(self) -> str:
        return f"detections, --layout {self.layout.text()}"

    @property
    def reads(self) -> tuple[int, ...]:
        return self.read.reads

    def detections(self, answers: Answers) -> list[Detections]:
        """The detections on each sample: at most 100, the most confident first."""
        detections: list[Detections] = []
        for batch, count in zip(answers.batches, answers.counts, strict=True):
            if isinstance(self.read, Ready):
                detections += decode_ready(batch, self.read, self.size, count)
            else:
                detections += decode(batch, self.read.wiring, self.layout, self.read.levels, self.size, count)
        return detections

    def against(self, original: Answers) -> DetectComparer:
        there = [one.above(CONFIDENT) for one in self.detections(original)]
        if not any(len(one) for one in there):
            raise DataError(
                f"the original detects nothing above a score of {CONFIDENT:g} on {original.samples} held-out samples: "
                "check --data, --preprocess and --layout ('onnxprune help tasks' lists what exporters expect)"
            )
        return DetectComparer(self, truth(there))

    def first(self, answers: Answers) -> str:
        first = self.detections(replace(answers, batches=answers.batches[:1], counts=answers.counts[:1]))[0]
        if not len(first):
            return "no detection"
        sure = np.count_nonzero(first.scores >= CONFIDENT)
        many = f"{sure} detection{'' if sure == 1 else 's'} above {CONFIDENT:g}"
        return f"{many}, best '{answers.called(int(first.classes[0]))}' {first.scores[0]:.2f}"


@dataclass(frozen=True, eq=False)
class DetectComparer:
    """AP50 and AP50-95 of detections, with the original's confident detections as ground truth."""

    reader: Detect
    there: Truth

    @property
    def basis(self) -> str:
        boxes, samples = self.there.boxes, self.there.samples
        return f"{boxes} detection{'' if boxes == 1 else 's'} of the original on {samples} held-out samples"

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        score = precision(self.there, self.reader.detections(answers), resamples)
        low, high = (None, None) if score.low is None or score.high is None else (1 - score.high, 1 - score.low)
        figures = (("AP50", score.ap50), ("AP50-95", score.ap))
        return Agreement(self.reader.measure, 1 - score.ap50, answers.samples, low, high, figures)


def detect(answers: Answers, given: Mapping[str, object]) -> Guess:
    """A reader of detections, if the outputs hold detections.  ``given`` holds what ``--layout`` states."""
    if answers.size is None:
        return Guess(None, False, "no input is an image, so there are no boxes")
    ready = recognise_ready(answers, given)
    if ready is not None:
        return Guess(Detect(ready, answers.size), True, f"ready detections ({ready.layout.text()})")
    dense = recognise(answers, given) if given.get("form", "dense") == "dense" else None
    if dense is None:
        return Guess(None, False, UNREAD)
    because = f"a prediction per place ({dense.layout.text()})"
    if dense.doubts:
        doubts = "; nor ".join(dense.doubts)
        return Guess(Detect(dense, answers.size), False, f"{because}; their values do not show {doubts}")
    return Guess(Detect(dense, answers.size), True, because)
