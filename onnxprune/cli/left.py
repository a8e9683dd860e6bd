"""The time that a stage still takes, in words that are gone with the stage."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

_WIDTH = len("0:00:00 left")


class LeftColumn(ProgressColumn):
    """``0:01:05 left``; nothing for a stage that is over, or whose steps nobody knows."""

    # As calm as rich's own: estimates that change ten times a second cannot be read.
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None or task.time_remaining is None:
            return Text(" " * _WIDTH)
        minutes, seconds = divmod(int(task.time_remaining), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left", style="progress.remaining")
