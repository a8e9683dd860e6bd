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
    for index in scores:
        values = answers.stacked(index)
        assert values is not None
        probabilities = values.min() >= 0 and np.allclose(values.sum(axis=1, dtype=np.float64), 1.0, atol=1e-3)
        if probabilities or values.shape[1] not in WIDTHS:
            continue
        rows = values.astype(np.float64)
        height = (rows.max(axis=1) - rows.mean(axis=1)) / np.maximum(rows.std(axis=1), 1e-12)
        if float(np.median(height)) < STANDS_OUT:
            because = f"rows of {values.shape[1]} numbers may be scores of classes or an embedding"
            return Guess(Classify(scores), False, because)
    return Guess(Classify(scores), True, "a row of scores per sample")


def _text(values: Array) -> bool:
    return values.dtype.kind in "US" or (values.dtype == object and all(isinstance(v, str) for v in values.flat))
