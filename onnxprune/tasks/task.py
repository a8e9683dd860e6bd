"""What a task is: a way to read outputs, and a way to tell how far two readings agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from onnxprune.tasks.answers import Answers

Kind = Literal["classify", "detect", "segment", "pose", "embed", "ctc", "regress"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Agreement:
    """How far a model is from the original in what users read off the outputs.

    ``drop``: 0 where they agree, larger is worse; ``low``, ``high``: its 95 % interval, None where none was asked for.
    ``figures``: named values that users know, such as ("AP50", 0.93).
    """

    measure: str
    drop: float
    samples: int
    low: float | None = None
    high: float | None = None
    figures: tuple[tuple[str, float], ...] = ()


class Comparer(Protocol):
    """Holds what the original says, and is asked about other models' answers on the same samples."""

    def __call__(self, found: Answers, resamples: int) -> Agreement:
        """``resamples``: of the bootstrap; 0 for no interval."""
        ...

    @property
    def basis(self) -> str:
        """How much the original says that others are held against, in words; empty where that is one answer a sample."""
        ...


class Reader(Protocol):
    """Reads the outputs of one task."""

    @property
    def kind(self) -> Kind: ...

    @property
    def measure(self) -> str:
        """What the drop is called."""
        ...

    @property
    def allowed(self) -> float:
        """The drop that is allowed where the user sets no budget."""
        ...

    @property
    def how(self) -> str:
        """What was recognised, in words."""
        ...

    @property
    def reads(self) -> tuple[int, ...]:
        """Positions of the outputs that are read."""
        ...

    def against(self, original: Answers) -> Comparer:
        """A comparer with the original.

        Raises:
            DataError: where the original says nothing on these samples that others could be held against.
        """
        ...

    def first(self, answers: Answers) -> str:
        """What the model answered on the first sample, as one clause."""
        ...


@dataclass(frozen=True)
class Guess:
    """A task told from outputs; ``reader`` is None where nothing fits.  ``because``: the reason, in words."""

    reader: Reader | None
    sure: bool
    because: str
