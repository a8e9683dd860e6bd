"""The measure of a run's drop: the task's if the task is stated or certain, else one that needs no task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import metrics
from onnxprune.calibration.outputs import stack
from onnxprune.errors import DataError
from onnxprune.measure.loss import OutputLoss
from onnxprune.options import AUTO
from onnxprune.result import Drop
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.layout import parse_layout
from onnxprune.tasks.guess import guess, stated
from onnxprune.tasks.task import KINDS, Comparer, Guess, Reader, TaskKind

Array = np.ndarray
#: Standard errors that a search adds to a task's drop (the rule of Breiman et al., Classification
#: and Regression Trees, 1984, section 3.4.3).  A search tries many cuts and picks the luckiest.  Average precision on few
#: objects depends much on luck: with 46 of them a detector of 3 million parameters ended at 0.95, and had 0.71 on other
#: pictures.  In other tasks a sample is one answer, and one changed answer of few is more than is usually allowed.
DOUBT: Mapping[TaskKind, float] = {"detect": 1.0}


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Measures how far answers are from the original's.

    ``reference`` holds the original's outputs, samples on axis 0.  ``loss`` is the measure without a task.  ``reader`` and
    ``compare`` belong to the task, None if no task is certain.  ``note`` describes the task to the user, or is None.
    ``likely`` is the kind of the most likely task, certain or not.
    """

    reference: tuple[Array, ...]
    loss: OutputLoss
    reader: Reader | None = None
    compare: Comparer | None = None
    note: str | None = None
    likely: TaskKind | None = None

    @property
    def measure(self) -> str:
        """The name of the drop."""
        return general(self.reference) if self.reader is None else self.reader.measure

    @property
    def allowed(self) -> float:
        """The allowed drop if the user sets no budget."""
        if self.reader is not None:
            return self.reader.allowed
        return 0.05 if self.measure == metrics.ERROR else 0.01

    @property
    def doubt(self) -> float:
        """How many standard errors a search adds to the drop: see :data:`DOUBT`."""
        return 0.0 if self.reader is None else DOUBT.get(self.reader.kind, 0.0)

    def drop(self, answers: Answers, resamples: int = 0) -> Drop:
        """The drop of ``answers``, on the same samples as the original's.  ``resamples``: number of bootstrap resamples, 0
        for no interval.

        Raises:
            DataError: if the two cannot be compared.
        """
        if self.compare is None:
            arrays = outputs(answers)
            if self.measure == metrics.VALUES:
                return metrics.drop(metrics.VALUES, self.reference, arrays, answers.samples)
            return Drop(metrics.ERROR, math.sqrt(max(self.loss.of(arrays), 0.0)), answers.samples)
        agreement = self.compare(answers, resamples)
        return Drop(
            agreement.measure,
            agreement.drop,
            agreement.samples,
            agreement.low,
            agreement.high,
            agreement.figures,
        )


def outputs(answers: Answers) -> tuple[Array, ...]:
    """Each output, stacked over the batches; flattened if the batches differ in shape."""
    return tuple(stack([np.atleast_1d(part) for part in answers.parts(i)]) for i in range(len(answers.names)))


def general(reference: Sequence[Array]) -> str:
    """The name of the measure that needs no task."""
    return metrics.VALUES if metrics.is_discrete(reference) else metrics.ERROR


def yardstick(original: Answers, task: str, layout: str, rows_are_answers: bool, loss: OutputLoss) -> Yardstick:
    """The yardstick for models whose original has these answers.

    ``task`` is :data:`AUTO` or a task that the user states.  ``layout`` is the value of ``--layout`` for a detector's
    outputs.  ``rows_are_answers`` is False if the outputs are as long as the inputs or grow with them, like waveforms:
    rows of such outputs are neither class scores nor embeddings.

    Raises:
        DataError: if the outputs do not fit the stated task, or the original's answers give nothing to compare with.
        OptionError: if the layout is invalid.
    """
    given, reference = parse_layout(layout), outputs(original)
    if task == AUTO and layout:
        task = "detect"
    if task != AUTO:
        kind = next(kind for kind in KINDS if kind == task)
        reader = stated(kind, original, given).reader
        assert reader is not None
        compare = reader.against(original)
        return Yardstick(reference, loss, reader, compare, _note(reader, compare, original, f"task {kind}", ""), kind)
    guessed = guess(original)
    if guessed.reader is None:
        return Yardstick(reference, loss)
    if not rows_are_answers and _whole_rows(guessed.reader, original):
        return Yardstick(reference, loss)
    if not guessed.sure:
        return Yardstick(reference, loss, note=_unsure(guessed, reference), likely=guessed.reader.kind)
    try:
        compare = guessed.reader.against(original)
    except DataError as error:
        note = f"task {guessed.reader.kind}: {error}; the drop is the {general(reference)} instead"
        return Yardstick(reference, loss, note=note, likely=guessed.reader.kind)
    because = f"task {guessed.reader.kind}: {guessed.because}"
    note = _note(guessed.reader, compare, original, because, "; if that is wrong, set it with --task")
    return Yardstick(reference, loss, guessed.reader, compare, note, guessed.reader.kind)


def _whole_rows(reader: Reader, original: Answers) -> bool:
    """Whether the reader takes each row of several numbers as one answer."""
    if reader.kind not in ("classify", "embed"):
        return False
    return any(
        part.ndim > 1 and part[0].size > 1
        for part in original.batches[0]
        if part.dtype.kind == "f" and len(part) and len(part) == original.counts[0]
    )


def _note(reader: Reader, compare: Comparer, original: Answers, what: str, end: str) -> str:
    basis = f"; the drop is measured against {compare.basis}" if compare.basis else ""
    left = [name for at, name in enumerate(original.names) if at not in reader.reads]
    # Scores beside a label repeat it.
    unread = f"; not read: {', '.join(left)}" if left and reader.kind != "classify" else ""
    return f"{what}; on the first held-out sample the model answers: {reader.first(original)}{basis}{unread}{end}"


def _unsure(guess: Guess, reference: Sequence[Array]) -> str | None:
    assert guess.reader is not None
    if guess.reader.kind == "regress":
        return None
    return (
        f"the outputs may be those of --task {guess.reader.kind} ({guess.because}), but this is not certain: the drop is "
        f"the {general(reference)} unless --task sets one"
    )
