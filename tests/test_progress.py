"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress as Bars

from onnxprune.cli.left import LeftColumn
from onnxprune.cli.margin import Margin
from onnxprune.cli.progress import Live, SeenNotes
from onnxprune.progress import Turn


def bars() -> Bars:
    return Bars(console=Console(file=io.StringIO(), force_terminal=True, width=80), auto_refresh=False)


def test_a_search_is_one_bar_that_counts() -> None:
    shown = bars()
    live = Live(SeenNotes(), shown)
    live.stage("calibrate", 4)
    search = [Turn(live, turn, 4) for turn in (1, 2, 3)]
    for turn in search:
        turn.stage("refit", 10)
        turn.advance(9)
    assert (shown.tasks[1].completed, shown.tasks[1].total) == (29, 40)
    Turn(live, 1, 2, "trial").stage("refit", 5)
    live.stage("verify", None)
    live.stage("verify", None)
    live.close()
    assert [(task.description, task.finished) for task in shown.tasks] == [
        ("calibrate", True),
        ("refit 3/4", True),
        ("trial 1/2", True),
        ("verify", True),
        ("verify", True),
    ]


def test_time_left_is_shown_while_it_is_known() -> None:
    shown = bars()
    shown.add_task("refit", total=200)
    task = shown.tasks[0]
    assert str(LeftColumn().render(task)).strip() == ""
    seconds = iter(range(1000))
    shown.get_time = lambda: float(next(seconds))
    for _ in range(5):
        shown.advance(task.id, 1)
    assert re.fullmatch(r"0:0[1-9]:\d\d left", str(LeftColumn().render(task)))
    shown.update(task.id, completed=200)
    assert str(LeftColumn().render(task)).strip() == ""


def test_an_echoed_interrupt_does_not_begin_a_line() -> None:
    """It would behind a bar as wide as the terminal, and what rich then erases is one line too few."""
    drawn = io.StringIO()
    shown = Bars(BarColumn(None), console=Margin(file=drawn, force_terminal=True, width=80), auto_refresh=False)
    shown.add_task("", total=2)
    with shown:
        shown.refresh()
    widths = [len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) for line in re.split("[\r\n]", drawn.getvalue())]
    assert max(widths) == 80 - len("^C^C")
