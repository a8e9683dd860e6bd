"""How long-running functions report their progress.  By default they report nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """``stage`` starts the next stage, with its number of steps if known.  ``advance`` counts a step.

    ``note`` tells the user something that stays.  ``show`` replaces the status text of the running stage.
    A search repeats a stage: ``turn`` counts from 1 to at most ``turns``.
    """

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def note(self, text: str) -> None: ...

    def show(self, text: str) -> None: ...


class Silent:
    """Reports nothing."""

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
    """One turn of a search: adds ``turn`` and ``turns`` to its stages, and renames them to ``name`` if given."""

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
