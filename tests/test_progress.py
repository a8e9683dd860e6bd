"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.progress import Progress as Bars

from onnxprune.cli.left import LeftColumn
from onnxprune.cli.progress import Live, Told


def bars() -> Bars:
    return Bars(console=Console(file=io.StringIO(), force_terminal=True, width=80), auto_refresh=False)


def test_a_search_is_one_bar_that_counts() -> None:
    shown = bars()
    live = Live(Told(), shown)
    live.stage("calibrate", 4)
    for _ in range(3):
        live.stage("refit", 10)
        live.advance(10)
    live.stage("verify", None)
    live.stage("verify", None)
    live.close()
    assert [(task.description, task.finished) for task in shown.tasks] == [
        ("calibrate", True),
        ("refit 3", True),
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
