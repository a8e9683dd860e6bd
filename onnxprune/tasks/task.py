"""A task: a way to read outputs, and a way to measure how far two readings agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from onnxprune.tasks.answers import Answers

TaskKind = Literal["classify", "detect", "segment", "pose", "embed", "ctc", "regress"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


@dataclass(frozen=True)
class Agreement:
    """How far a model is from the original in what users read from the outputs.

    ``drop`` is 0 if they agree; larger is worse.  ``low`` and ``high`` are its 95 % interval, None if none was requested.
    ``figures`` are the usual figures of the task, such as ("AP50", 0.93).
    """

    measure: str
    drop: float
    samples: int
    low: float | None = None
    high: float | None = None
    figures: tuple[tuple[str, float], ...] = ()


class Comparer(Protocol):
    """Compares answers of other models with those of the original, on the same samples."""

    def __call__(self, answers: Answers, resamples: int) -> Agreement:
        """``resamples``: number of bootstrap resamples; 0 for no interval."""
        ...

    @property
    def basis(self) -> str:
        """What the drop is measured against, in words; empty if that is one answer per sample."""
        ...


class Reader(Protocol):
    """Reads the outputs of one task."""

    @property
    def kind(self) -> TaskKind: ...

    @property
    def measure(self) -> str:
        """The name of the drop."""
        ...

    @property
    def allowed(self) -> float:
        """The allowed drop if the user sets no budget."""
        ...

    @property
    def how(self) -> str:
        """What the reader recognised, in words."""
        ...

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions of the outputs read."""
        ...

    def against(self, original: Answers) -> Comparer:
        """A comparer with the original.

        Raises:
            DataError: if the original's answers on these samples give nothing to compare with.
        """
        ...

    def first(self, answers: Answers) -> str:
        """The answer for the first sample, as one clause."""
        ...


@dataclass(frozen=True)
class Guess:
    """A task guessed from outputs.  ``reader`` is None if no task fits.  ``because`` is the reason, in words."""

    reader: Reader | None
    sure: bool
    because: str
