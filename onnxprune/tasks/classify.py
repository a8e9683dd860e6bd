"""Classifiers: scores of classes, labels, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.interval import bootstrap, wilson
from onnxprune.tasks.task import Agreement, Guess, TaskKind

Array = np.ndarray
TOP1 = "top-1 changed"
#: Usual widths of embeddings.  Rows of such a width may be embeddings or class scores.
WIDTHS = (64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
#: The largest of that many normal numbers is about this many standard deviations above their mean.  The winning class
#: of a classifier stands out by more.
STANDS_OUT = 4.0
#: In rows of at least WIDE scores the best stands out by more than √(2 ln C) standard deviations, which the largest of C
#: normal numbers hardly reaches.  Landmarks of faces had 1.8 where that is 3.1.  Shorter rows have no room for it: no
#: number of a row of C is more than √(C − 1) standard deviations above the mean.
WIDE = 32
#: Maximum difference of two logits of a row, median over rows.  In float32 a softmax of more is exactly 0 and 1.
LOGITS = 104.0
#: Maximum distance of a row's mean from zero, in standard errors, median over rows.  A softmax ignores the mean of its
#: logits and training leaves it near zero: classifiers of 10 classes had 0.03.  Rows of fewer than NARROW numbers may be
#: a position, three angles, a quaternion: for them, half as much, which unrelated numbers seldom satisfy.
CENTRED, NARROW = 1.0, 5
#: Minimum share of independent probabilities in the outer tenths of 0 … 1.  Coordinates have most values in between.
DECIDED = 0.75
PLAIN = "plain numbers, such as coordinates (--task regress)"


@dataclass(frozen=True)
class Classify:
    """Reads ``outputs`` (positions): scores (n, C), a probability (n,) or (n, 1), or labels (n,) or (n, 1)."""

    outputs: tuple[int, ...]

    @property
    def kind(self) -> TaskKind:
        return "classify"

    @property
    def measure(self) -> str:
        return TOP1

    @property
    def allowed(self) -> float:
        return 0.01

    @property
    def how(self) -> str:
        several = len(self.outputs) > 1
        return f"{len(self.outputs)} labels per sample" if several else "one label per sample"

    @property
    def reads(self) -> tuple[int, ...]:
        return self.outputs

    def labels(self, answers: Answers) -> Array:
        """(n, outputs): the class of each sample, by each output.  Text labels stay text."""
        columns = []
        for index in self.outputs:
            values = answers.stacked(index)
            if values is None:
                raise DataError(f"output '{answers.names[index]}' has no sample axis, so it holds no labels")
            columns.append(label(values))
        return np.stack(columns, axis=1)

    def against(self, original: Answers) -> ClassifyComparer:
        return ClassifyComparer(self, self.labels(original))

    def first(self, answers: Answers) -> str:
        values = answers.stacked(self.outputs[0])
        assert values is not None
        first = label(values[:1])[0]
        named = answers.called(int(first)) if isinstance(first, np.integer) else f"class {first}"
        if values.dtype.kind != "f":
            return named
        row = values[0].ravel().astype(np.float64)
        second = f", next best {np.sort(row)[-2]:.3g}" if row.size > 1 else ""
        return f"{named}, score {row.max():.3g}{second}"


@dataclass(frozen=True, eq=False)
class ClassifyComparer:
    """The share of samples whose label changes; for several labels, the mean share."""

    reader: Classify
    labels: Array

    @property
    def basis(self) -> str:
        return ""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        changed = (self.reader.labels(answers) != self.labels).mean(axis=1)
        drop = float(changed.mean())
        low, high = None, None
        if resamples and self.labels.shape[1] == 1:
            low, high = wilson(drop, len(changed))
        elif resamples:
            low, high = bootstrap(lambda chosen: float(changed[chosen].mean()), len(changed), resamples)
        return Agreement(TOP1, drop, len(changed), low, high, (("labels kept", 1 - drop),))


def label(values: Array) -> Array:
    """The class of each sample: the best of scores (n, C), 1 for a probability (n, 1) of at least 0.5, labels unchanged."""
    rows = values.reshape(len(values), -1)
    if values.dtype.kind != "f":
        return rows[:, 0]
    if rows.shape[1] == 1:
        return np.asarray((rows[:, 0] >= 0.5).astype(np.int64))
    # NaN is no answer.  argmax would take it for the best class.
    return np.where(np.isnan(rows).any(axis=1), -1, rows.argmax(axis=1))


def classify(answers: Answers) -> Guess:
    """Guess: class scores, labels, or both, as sklearn's exporters write them."""
    scores: list[int] = []
    labels: list[int] = []
    for index in range(len(answers.names)):
        row = answers.row(index)
        if row is None or math.prod(row) != (row[0] if row else 1):
            return Guess(None, False, f"output '{answers.names[index]}' is not a row of scores per sample")
        values = np.concatenate(answers.parts(index))
        if values.dtype == object and not _text(values):
            # sklearn's exporter writes a map from class to probability.  The label beside it is enough.
            continue
        rows = row[0] if row else 1
        if _text(values) or (values.dtype.kind in "iub" and rows == 1):
            labels.append(index)
        elif values.dtype.kind == "f" and rows > 1:
            scores.append(index)
        else:
            return Guess(None, False, f"output '{answers.names[index]}' holds neither scores nor a label")
    if labels:
        # Scores beside a label repeat it.
        return Guess(Classify(tuple(labels)), True, "a label per sample")
    return _by_scores(answers, tuple(scores)) if scores else Guess(None, False, "no scores and no label")


def _by_scores(answers: Answers, scores: tuple[int, ...]) -> Guess:
    """Certain if every row shows that it holds scores.  Rows of coordinates, angles or frequencies have the same shape."""
    for index in scores:
        values = answers.stacked(index)
        assert values is not None
        doubt = _doubt(values.astype(np.float64))
        if doubt:
            return Guess(Classify(scores), False, f"rows of {values.shape[1]} numbers may be scores of classes or {doubt}")
    return Guess(Classify(scores), True, "a row of scores per sample")


def _doubt(rows: Array) -> str:
    """What else than scores the rows (n, C) may be; empty if they show that they are scores."""
    if _sums_to_one(rows):
        return ""
    width = rows.shape[1]
    spread = np.maximum(rows.std(axis=1), 1e-12)
    if rows.min() >= 0 and rows.max() <= 1:
        return "" if float(np.mean((rows < 0.1) | (rows > 0.9))) >= DECIDED else PLAIN
    span = float(np.median(rows.max(axis=1) - rows.min(axis=1)))
    if span > LOGITS or float(np.median(rows.min(axis=1))) >= 0 or float(np.median(rows.max(axis=1))) <= 0:
        return PLAIN
    height = float(np.median((rows.max(axis=1) - rows.mean(axis=1)) / spread))
    if width in WIDTHS:
        return "" if height >= STANDS_OUT else "an embedding"
    if width >= WIDE:
        return "" if height >= math.sqrt(2 * math.log(width)) else PLAIN
    off = float(np.median(np.abs(rows.mean(axis=1)) / spread))
    return "" if off <= (CENTRED if width >= NARROW else CENTRED / 2) / math.sqrt(width) else PLAIN


def _sums_to_one(rows: Array) -> bool:
    """Whether these are probabilities or their logarithms."""
    shares = rows if rows.min() >= 0 else np.exp(np.minimum(rows, 1.0))
    return bool(np.allclose(shares.sum(axis=1), 1.0, atol=1e-3))


def _text(values: Array) -> bool:
    return values.dtype.kind in "US" or (values.dtype == object and all(isinstance(v, str) for v in values.flat))
