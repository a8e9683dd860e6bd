"""How long-running rooms tell a caller where they are; the default tells nobody."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """``stage`` opens the next stage (with its number of steps, where known), ``advance`` counts a step."""

    def stage(self, name: str, steps: int | None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, steps: int | None) -> None:
        return None

    def advance(self, steps: int = 1) -> None:
        return None

    def note(self, text: str) -> None:
        return None
