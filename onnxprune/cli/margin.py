"""A console that leaves the end of each line free."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions

#: Room for the ``^C`` of an impatient user, typed twice.
MARGIN = 4


class Margin(Console):
    """Keeps bars from filling the line.  Otherwise an echoed ``^C`` wraps, and rich never erases the bar above it."""

    @property
    def options(self) -> ConsoleOptions:
        options = super().options
        return options.update_width(max(options.max_width - MARGIN, 1))
