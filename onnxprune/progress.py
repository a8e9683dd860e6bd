"""How long-running rooms tell a caller where they are; the default tells nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """``stage`` opens the next stage (with its number of steps, where known), ``advance`` counts a step.

    ``show`` says how the running stage is doing, until it says something else.

    A search goes through one stage several times: ``turn`` is the how manieth of at most ``turns`` this one is.
    """

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def note(self, text: str) -> None: ...

    def show(self, text: str) -> None: ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        return None

    def advance(self, steps: int = 1) -> None:
        return None

    def note(self, text: str) -> None:
        return None

    def show(self, text: str) -> None:
        return None


@dataclass(frozen=True)
class Turn:
    """One turn of a search: stages within it say which, and are called ``name`` where that is given."""

    progress: Progress
    turn: int
    turns: int
    name: str = ""

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        self.progress.stage(self.name or name, steps, self.turn, self.turns)

    def advance(self, steps: int = 1) -> None:
        self.progress.advance(steps)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def show(self, text: str) -> None:
        self.progress.show(text)
