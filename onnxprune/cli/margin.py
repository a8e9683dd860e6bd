"""A console that leaves the end of each line free."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions

#: Room for the ``^C`` of an impatient user, typed twice.
MARGIN = 4


class Margin(Console):
    """What a terminal echoes behind a bar that fills its line begins a new line, and the bar above is never erased."""

    @property
    def options(self) -> ConsoleOptions:
        found = super().options
        return found.update_width(max(found.max_width - MARGIN, 1))
