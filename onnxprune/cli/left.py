"""The remaining time of a stage; it disappears when the stage ends."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

_WIDTH = len("0:00:00 left")


class LeftColumn(ProgressColumn):
    """``0:01:05 left``; empty if the stage is over or its number of steps is unknown."""

    # Same as rich's own column: nobody can read an estimate that changes ten times a second.
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None or task.time_remaining is None:
            return Text(" " * _WIDTH)
        minutes, seconds = divmod(int(task.time_remaining), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left", style="progress.remaining")
