"""Text and speech recognizers: scores of characters over time, with a blank (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.tasks.answers import Answers
from onnxprune.tasks.interval import wilson
from onnxprune.tasks.task import Agreement, Guess, TaskKind

Array = np.ndarray
MEASURE = "strings changed"
#: Minimum share of time steps at which the blank is the best character.
BLANK = 0.3
#: Minimum time steps of a word, and minimum characters of an alphabet.
STEPS, ALPHABET = 4, 8


@dataclass(frozen=True)
class Ctc:
    """``output``: position of the scores.  ``time``: its time axis, 0 or 1; the other is the sample axis.  ``blank``: the
    class of the blank."""

    output: int
    time: int
    blank: int

    @property
    def kind(self) -> TaskKind:
        return "ctc"

    @property
    def measure(self) -> str:
        return MEASURE

    @property
    def allowed(self) -> float:
        return 0.01

    @property
    def how(self) -> str:
        return f"characters over time, blank {self.blank}"

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.output,)

    def strings(self, answers: Answers) -> list[tuple[int, ...]]:
        """The best path of each sample, with repeats merged and blanks removed."""
        strings = []
        for part in answers.parts(self.output):
            best = np.moveaxis(part.argmax(axis=-1), self.time, 1)
            strings += [_collapsed(row, self.blank) for row in best]
        return strings

    def against(self, original: Answers) -> CtcComparer:
        return CtcComparer(self, self.strings(original))

    def first(self, answers: Answers) -> str:
        text = self.strings(answers)[0]
        if not text:
            return "an empty string"
        return f"{len(text)} character{'' if len(text) == 1 else 's'}: {' '.join(map(str, text[:12]))}"


@dataclass(frozen=True, eq=False)
class CtcComparer:
    """The share of strings that change, and the edits per character of the original's strings."""

    reader: Ctc
    strings: Sequence[tuple[int, ...]]

    @property
    def basis(self) -> str:
        return ""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        pairs = list(zip(self.strings, self.reader.strings(answers), strict=True))
        changed = np.array([a != b for a, b in pairs])
        edits = sum(edit_distance(a, b) for a, b in pairs)
        errors = edits / max(sum(len(a) for a, _ in pairs), 1)
        drop = float(changed.mean())
        low, high = wilson(drop, len(pairs)) if resamples else (None, None)
        return Agreement(
            MEASURE, drop, len(pairs), low, high, (("strings kept", 1 - drop), ("character error", errors))
        )


def _collapsed(best: Array, blank: int) -> tuple[int, ...]:
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    return tuple(int(c) for c in best[starts] if c != blank)


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Minimum insertions, deletions and replacements from ``a`` to ``b`` (Levenshtein).  Cost: len(a) · len(b).

    >>> edit_distance((1, 2, 3), (1, 3, 4))
    2
    """
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


def ctc(answers: Answers) -> Guess:
    """Guess: scores (samples, times, characters) or (times, samples, characters) with a blank.

    The blank is the first or the last character.  It is the best character at many time steps, but not at all of them.
    If hardly any character but the blank is found, the guess is unsure.
    """
    if answers.tokens:
        return Guess(None, False, "the inputs are tokens, and scores of tokens over positions have no blank")
    empty = Guess(None, False, "no scores over time with a blank")
    for index in range(len(answers.names)):
        parts = answers.parts(index)
        if parts[0].ndim != 3 or parts[0].dtype.kind != "f" or parts[0].shape[-1] < ALPHABET:
            continue
        time = _time(parts, answers.counts)
        if time is None or parts[0].shape[time] < STEPS:
            continue
        best = np.concatenate([part.argmax(axis=-1).ravel() for part in parts])
        for blank in (0, parts[0].shape[-1] - 1):
            share = float(np.mean(best == blank))
            if share < BLANK or not _scores(parts):
                continue
            because = f"scores of {parts[0].shape[-1]} characters, blank {blank}"
            if share < 1 and len(np.unique(best)) > 3:
                return Guess(Ctc(index, time, blank), True, because)
            empty = Guess(Ctc(index, time, blank), False, f"{because}; hardly any of these samples holds text")
    return empty


def _time(parts: Sequence[Array], counts: Sequence[int]) -> int | None:
    for time, samples in ((1, 0), (0, 1)):
        if all(part.shape[samples] == count for part, count in zip(parts, counts, strict=True)):
            return time
    return None


def _scores(parts: Sequence[Array]) -> bool:
    """Whether these are probabilities, their logarithms, or logits whose best value stands out, and not a plain table."""
    rows = parts[0].reshape(-1, parts[0].shape[-1]).astype(np.float64)
    sums = (rows if rows.min() >= 0 else np.exp(np.minimum(rows, 50.0))).sum(axis=1)
    if np.allclose(sums, 1.0, atol=1e-2):
        return True
    if rows.min() >= 0 and rows.max() <= 1:
        # Values in 0 … 1 that do not sum to one are independent, such as notes that sound together.
        return False
    two = np.sort(rows, axis=1)[:, -2:]
    return bool(np.median(two[:, 1] - two[:, 0]) > rows.std(axis=1).mean())
