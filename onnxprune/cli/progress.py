"""Progress on stderr: a bar with the time left on a terminal, lines with ``-v`` in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxprune.progress import Progress, Silent
from onnxprune.shown import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class SeenNotes:
    """The notes that the user has already seen.  The report does not repeat them."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def hear(self, text: str) -> bool:
        """Remember a note; returns True the first time."""
        if text in self.notes:
            return False
        self.notes.append(text)
        return True


def _counted(name: str, turn: int, turns: int) -> str:
    return f"{name} {turn}/{turns}" if turns > 1 else name


class Lines:
    """For a pipe: prints notes immediately, and one line per stage if ``stages`` is set."""

    def __init__(self, seen: SeenNotes, stages: bool) -> None:
        self._seen = seen
        self._stages = stages
        self._start = time.monotonic()

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        if self._stages:
            line = f"[{time.monotonic() - self._start:7.1f} s] {_counted(name, turn, turns)}"
            print(line, file=sys.stderr, flush=True)

    def advance(self, steps: int = 1) -> None:
        return None

    def note(self, text: str) -> None:
        if self._seen.hear(text):
            print(f"note: {one_line(text)}", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        if self._stages:
            print(f"[{time.monotonic() - self._start:7.1f} s]   {text}", file=sys.stderr, flush=True)


class Live:
    """For a terminal: one bar for the running stage, below the finished ones.

    All rounds of a search share one bar, which shows the time left for the whole search.
    """

    def __init__(self, seen: SeenNotes, bars: Bars) -> None:
        self._seen = seen
        self._bars = bars
        self._task: TaskID | None = None
        self._name = ""

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        again = turn > 1 and name == self._name
        self._name = name
        total, done = (None, 0) if steps is None else (steps * turns, steps * (turn - 1))
        if self._task is None or not again:
            self.close()
            self._task = self._bars.add_task("", total=total)
        self._bars.update(self._task, total=total, completed=done, description=_counted(name, turn, turns))

    def advance(self, steps: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        if self._seen.hear(text):
            self._bars.console.print(f"note: {one_line(text)}", style="dim", markup=False, highlight=False)

    def show(self, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, description=f"{self._name}: {text}")

    def close(self) -> None:
        """Stop the clock of the running stage and fill its bar."""
        if self._task is None:
            return
        task = next(task for task in self._bars.tasks if task.id == self._task)
        total = task.total if task.total is not None else max(task.completed, 1)
        self._bars.update(self._task, total=total, completed=total)


@contextmanager
def progress_on_stderr(seen: SeenNotes, quiet: bool, verbose: bool) -> Iterator[Progress]:
    """The right kind of progress for stderr.  On exit, all bars are erased or complete."""
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines(seen, stages=verbose)
    else:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        from onnxprune.cli.left import LeftColumn
        from onnxprune.cli.margin import Margin

        bars = Bars(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            LeftColumn(),
            console=Margin(file=sys.stderr),
            transient=not verbose,
            redirect_stdout=False,
            # Output of the user's functions scrolls above the bars instead of breaking them.
            redirect_stderr=True,
        )
        with bars:
            live = Live(seen, bars)
            yield live
            live.close()
