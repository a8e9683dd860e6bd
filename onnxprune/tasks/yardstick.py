"""What a run's drop is measured in: a task's agreement where one is stated or sure, else a measure that needs none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import metrics
from onnxprune.calibration.outputs import stack
from onnxprune.errors import DataError
from onnxprune.measure.loss import OutputLoss
from onnxprune.result import Drop
from onnxprune.tasks.answers import Answers
from onnxprune.tasks.detect.layout import parse_layout
from onnxprune.tasks.guess import guess, stated
from onnxprune.tasks.task import KINDS, Comparer, Guess, Kind, Reader

Array = np.ndarray
#: The value of ``--task`` that leaves it to the outputs.
AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Holds the original's answers, and tells how far others are from them.

    ``reference``: the original's outputs, samples on axis 0; ``loss``: how far others are from them where no task is
    known; ``reader``, ``compare``: of the task, None where none is sure; ``note``: what the user should know of the task,
    None where there is nothing; ``likely``: the kind of the most likely task, sure or not.
    """

    reference: tuple[Array, ...]
    loss: OutputLoss
    reader: Reader | None = None
    compare: Comparer | None = None
    note: str | None = None
    likely: Kind | None = None

    @property
    def measure(self) -> str:
        """What the drop is called."""
        return general(self.reference) if self.reader is None else self.reader.measure

    @property
    def allowed(self) -> float:
        """The drop that is allowed where the user sets no budget."""
        if self.reader is not None:
            return self.reader.allowed
        return 0.05 if self.measure == metrics.ERROR else 0.01

    def drop(self, found: Answers, resamples: int = 0) -> Drop:
        """How far answers on the same samples are from the original's.  ``resamples``: of the bootstrap, 0 for no
        interval.

        Raises:
            DataError: where the two cannot be compared.
        """
        if self.compare is None:
            answers = outputs(found)
            if self.measure == metrics.VALUES:
                return metrics.drop(metrics.VALUES, self.reference, answers, found.samples)
            return Drop(metrics.ERROR, math.sqrt(max(self.loss.of(answers), 0.0)), found.samples)
        told = self.compare(found, resamples)
        return Drop(told.measure, told.drop, told.samples, told.low, told.high, told.figures)


def outputs(answers: Answers) -> tuple[Array, ...]:
    """Each output stacked over the batches, flattened where these differ in shape."""
    return tuple(stack([np.atleast_1d(part) for part in answers.parts(i)]) for i in range(len(answers.names)))


def general(reference: Sequence[Array]) -> str:
    """The measure that needs no task."""
    return metrics.VALUES if metrics.is_discrete(reference) else metrics.ERROR


def yardstick(original: Answers, task: str, layout: str, rows_are_answers: bool, loss: OutputLoss) -> Yardstick:
    """The yardstick for models whose original answers so.

    ``task``: :data:`AUTO`, or one that the user states; ``layout``: what ``--layout`` says of a detector's outputs.
    ``rows_are_answers``: False where the outputs are as long as what is fed or grow with it, as waveforms do: rows of
    such outputs are no classes and no embeddings.

    Raises:
        DataError: where the stated task cannot be read off the outputs, or the original says nothing in it.
        OptionError: for a layout that says nothing.
    """
    given, reference = parse_layout(layout), outputs(original)
    if task == AUTO and layout:
        task = "detect"
    if task != AUTO:
        kind = next(kind for kind in KINDS if kind == task)
        reader = stated(kind, original, given).reader
        assert reader is not None
        held = reader.against(original)
        return Yardstick(reference, loss, reader, held, _told(reader, held, original, f"task {kind}", ""), kind)
    found = guess(original)
    if found.reader is None:
        return Yardstick(reference, loss)
    if not rows_are_answers and _whole_rows(found.reader, original):
        return Yardstick(reference, loss)
    if not found.sure:
        return Yardstick(reference, loss, note=_unsure(found, reference), likely=found.reader.kind)
    try:
        compare = found.reader.against(original)
    except DataError as error:
        note = f"task {found.reader.kind}: {error}; the drop is the {general(reference)} instead"
        return Yardstick(reference, loss, note=note, likely=found.reader.kind)
    because = f"task {found.reader.kind}: {found.because}"
    note = _told(found.reader, compare, original, because, "; --task states another")
    return Yardstick(reference, loss, found.reader, compare, note, found.reader.kind)


def _whole_rows(reader: Reader, original: Answers) -> bool:
    """Whether rows of several numbers are read as one answer each."""
    if reader.kind not in ("classify", "embed"):
        return False
    return any(
        part.ndim > 1 and part[0].size > 1
        for part in original.batches[0]
        if part.dtype.kind == "f" and len(part) and len(part) == original.counts[0]
    )


def _told(reader: Reader, compare: Comparer, original: Answers, what: str, end: str) -> str:
    basis = f"; the drop is told from {compare.basis}" if compare.basis else ""
    left = [name for at, name in enumerate(original.names) if at not in reader.reads]
    # Scores beside a label say the same again.
    unread = f"; not read: {', '.join(left)}" if left and reader.kind != "classify" else ""
    return f"{what}; on the first held-out sample the model answers: {reader.first(original)}{basis}{unread}{end}"


def _unsure(found: Guess, reference: Sequence[Array]) -> str | None:
    assert found.reader is not None
    if found.reader.kind == "regress":
        return None
    return (
        f"the outputs may be those of --task {found.reader.kind} ({found.because}), which is not sure: the drop is the "
        f"{general(reference)} until --task states one"
    )
