"""Embeddings: rows to compare by the angle between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import DataError
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.interval import bootstrap
from onnxprune.tasks.task import Agreement, Guess, TaskKind

Array = np.ndarray
#: Maximum distance from one of the norm of a row of unit length.  Rows of fewer than MIN_LENGTH numbers are directions, not
#: embeddings.
NEAR, MIN_LENGTH = 1e-2, 8
MEASURE = "cosine distance"


@dataclass(frozen=True)
class Embed:
    """``output``: position of the output with a row per sample."""

    output: int

    @property
    def kind(self) -> TaskKind:
        return "embed"

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def allowed(self) -> float:
        return 0.02

    @property
    def how(self) -> str:
        return "one embedding per sample"

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.output,)

    def rows(self, answers: Answers) -> Array:
        """(n, D) float64 rows of unit length.  Rows of zeros stay zero; NaN and infinity count as zero."""
        values = answers.stacked(self.output)
        if values is None:
            raise DataError(f"output '{answers.names[self.output]}' has no sample axis, so it is not an embedding")
        rows = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64), posinf=0.0, neginf=0.0)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def against(self, original: Answers) -> EmbedComparer:
        return EmbedComparer(self, self.rows(original))

    def first(self, answers: Answers) -> str:
        rows = self.rows(answers)
        if len(rows) < 2:
            return f"an embedding of {rows.shape[1]} numbers"
        near = rows[1:] @ rows[0]
        return f"an embedding of {rows.shape[1]} numbers, nearest sample {int(near.argmax()) + 1} at cosine {near.max():.3f}"


@dataclass(frozen=True, eq=False)
class EmbedComparer:
    """One minus the mean cosine of a sample's two embeddings, and how often its nearest other sample stays the same."""

    reader: Embed
    rows: Array

    @property
    def basis(self) -> str:
        return ""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        rows = self.reader.rows(answers)
        # A row of zeros has no direction.  Rounding may keep the cosine of equal rows from being one.
        distance = np.clip(1.0 - (rows * self.rows).sum(axis=1), 0.0, 2.0)
        distance[distance < 1e-12] = 0.0
        drop = float(distance.mean())
        low, high = None, None
        if resamples:
            low, high = bootstrap(lambda chosen: float(distance[chosen].mean()), len(rows), resamples)
        figures = [("mean cosine", 1.0 - drop)]
        if len(rows) > 2:
            figures.append(("nearest neighbour kept", float(np.mean(nearest_rows(rows) == nearest_rows(self.rows)))))
        return Agreement(MEASURE, drop, len(rows), low, high, tuple(figures))


def nearest_rows(rows: Array) -> Array:
    """(n,): the position of each row's nearest other row, by cosine.  Memory: n × n numbers."""
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -np.inf)
    return np.asarray(cosine.argmax(axis=1))


def embed(answers: Answers) -> Guess:
    """Guess: rows of unit length with some numbers below zero."""
    for index in range(len(answers.names)):
        row = answers.row(index)
        if not row or answers.batches[0][index].dtype.kind != "f" or math.prod(row) != max(row):
            continue
        values = np.concatenate(answers.parts(index))
        rows = values.reshape(len(values), -1).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        if rows.shape[1] >= MIN_LENGTH and np.abs(norms - 1).max() <= NEAR and (rows < 0).mean() > 0.05:
            return Guess(Embed(index), True, f"rows of {rows.shape[1]} numbers of unit length")
    return Guess(None, False, "no rows of unit length")
