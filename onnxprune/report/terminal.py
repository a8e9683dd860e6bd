"""Tables for people: they fit 80 columns, in colour on a terminal and plain in a pipe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxprune.report import wording
from onnxprune.report.names import shortened
from onnxprune.report.rows import Lock, biggest, left_out, locks, summary_rows
from onnxprune.result import Comparison, GroupRow, Inspection, OperatorTime, Report, Tuned, Tuning, Verification
from onnxprune.shown import for_reading, shown

FOLDED = 20
LOCKED_FOLDED = 8
_BAR = 10
_ROOM_FOR_BARS = 60
_LABEL = 10


@dataclass(frozen=True)
class View:
    """``most``, ``most_locked``: how many groups to list (None: all); ``seen``: notes that the user has already seen."""

    most: int | None = FOLDED
    most_locked: int | None = LOCKED_FOLDED
    seen: tuple[str, ...] = ()


class _Trimmed:
    """A text stream without blanks at the ends of lines, which tables leave there."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        self._file.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def console_for(file: IO[str]) -> Console:
    """A console that prints text literally: node names may look like markup."""
    console = Console(file=cast(IO[str], _Trimmed(file)), markup=False, highlight=False, emoji=False)
    console.width = min(console.width, 110)
    return console


def print_report(console: Console, report: Report, view: View) -> None:
    """Print the verdict, then the figures, then the details."""
    report, view = for_reading(report), for_reading(view)
    console.print(Text(wording.verdict(report), style="bold"))
    console.print()
    _print_summary(console, report)
    if report.tuning is not None:
        _print_tuning(console, report.tuning)
    _print_groups(console, report.groups, view, after=True)
    _print_choices(console, report.choices)
    _print_notes(console, report.notes, view)
    _print_verification(console, report.verify)
    if report.rounding is not None:
        _print_labelled(console, Text("rounded", style="dim"), Text(wording.rounding_text(report.rounding)))
    spent = [wording.spent(report.seconds)] if "total" in report.seconds else []
    if report.peak_rss_bytes:
        spent.append(f"{wording.byte_text(report.peak_rss_bytes)} of memory")
    if spent:
        _print_labelled(console, Text("took", style="dim"), Text(", ".join(spent)))
    if report.output is not None:
        print_wrote(console, "wrote", report.output)


def print_tuned(console: Console, tuned: Tuned, seen: tuple[str, ...]) -> None:
    """Print what tuning gained."""
    tuned = for_reading(tuned)
    tuning = tuned.tuning
    console.print(Text(wording.gain(tuning), style="bold"))
    console.print()
    _print_tuning(console, tuning)
    _print_notes(console, tuning.notes, View(seen=seen))
    if tuned.path is not None:
        print_wrote(console, "wrote", str(tuned.path))


def _print_tuning(console: Console, tuning: Tuning) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for stage in tuning.stages:
        table.add_row(stage.name, wording.stage(stage))
    table.add_row("tuning", wording.effort_of(tuning))
    console.print(table)
    console.print()


def print_wrote(console: Console, label: str, path: str) -> None:
    """Print ``label  path`` on one line: users copy paths."""
    console.print(Text(f"{label:<{_LABEL}}", style="dim") + Text(shown(path)), soft_wrap=True)


def print_inspection(console: Console, inspection: Inspection, view: View) -> None:
    """Print a model's size, its prunable groups and its locked channels."""
    inspection, view = for_reading(inspection), for_reading(view)
    console.print(Text(wording.prunable(inspection), style="bold"))
    console.print()
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("inputs", "\n".join(inspection.inputs))
    facts.add_row("size", wording.size_text(inspection))
    if inspection.operators:
        facts.add_row("MACs in", wording.operators(inspection))
    console.print(facts)
    console.print()
    _print_outlook(console, inspection)
    _print_groups(console, inspection.groups, view, after=False)
    _print_choices(console, inspection.choices)
    _print_notes(console, inspection.notes, view)


def _print_outlook(console: Console, inspection: Inspection) -> None:
    if not inspection.outlook:
        return
    table = _table()
    table.add_column("if every group keeps", no_wrap=True, style="dim")
    for column in inspection.outlook:
        table.add_column(f"{column.kept:.0%}", justify="right", no_wrap=True)
    table.add_row("MACs left", *(f"{column.macs:.0%}" for column in inspection.outlook))
    table.add_row("parameters left", *(f"{column.params:.0%}" for column in inspection.outlook))
    console.print(table)
    console.print()


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print two models side by side."""
    comparison = for_reading(comparison)
    console.print(Text.assemble(("A  ", "dim"), comparison.a), soft_wrap=True)
    console.print(Text.assemble(("B  ", "dim"), comparison.b), soft_wrap=True)
    console.print()
    _print_summary(console, comparison)
    if comparison.outputs:
        table = _table()
        table.add_column("output", overflow="fold")
        table.add_column("relative L2 error", justify="right")
        for name, error in comparison.outputs:
            table.add_row(name, wording.decimals(error))
        console.print(table)
    if comparison.operators:
        console.print()
        _print_operators(console, comparison.operators)


def _print_operators(console: Console, operators: Sequence[OperatorTime]) -> None:
    table = _table()
    table.add_column("operator", overflow="fold")
    for side in ("A", "B", "change"):
        table.add_column(side, justify="right", no_wrap=True)
    for row in operators:
        change = row.milliseconds
        sides = (wording.milliseconds(value) for value in (change.before, change.after))
        table.add_row(row.operator, *sides, wording.change_text(change))
    console.print(table)


def _print_summary(console: Console, report: Report | Comparison) -> None:
    table = _table()
    first, second = ("A", "B") if isinstance(report, Comparison) else ("before", "after")
    table.add_column("", style="dim")
    table.add_column(first, justify="right", no_wrap=True)
    table.add_column(second, justify="right", no_wrap=True)
    table.add_column("change", justify="right")
    styles = {True: "green", False: "red", None: ""}
    for row in summary_rows(report):
        table.add_row(row.label, row.before, row.after, Text(row.change, style=styles[row.better]))
    console.print(table)
    console.print()


def _print_groups(console: Console, groups: Sequence[GroupRow], view: View, after: bool) -> None:
    free = [row for row in groups if row.locked is None]
    if free:
        shown = biggest(free, view.most)
        largest = max(row.macs_share for row in free) or 1.0
        bars = _BAR if console.width >= _ROOM_FOR_BARS else 0
        width = _name_width(console, 42 - _BAR + bars if after else 34 - _BAR + bars)
        table = _table()
        table.add_column("group", no_wrap=True, max_width=width)
        table.add_column("channels", justify="right", no_wrap=True)
        if after:
            table.add_column("kept", no_wrap=True)
        table.add_column("MACs", justify="right", no_wrap=True)
        if not after:
            table.add_column("", no_wrap=True)
        names = shortened([row.name for row in shown], width)
        for name, row in zip(names, shown, strict=True):
            share = wording.percent(row.macs_share)
            if after:
                kept = row.after / row.before if row.before else 1.0
                cells: list[Text | str] = [name, _channels(row), _bar(kept, bars) + Text(f"{kept:5.0%}"), share]
            else:
                cells = [name, str(row.before), share, _bar(row.macs_share / largest, bars)]
            table.add_row(*cells)
        console.print(table)
        _print_left_out(console, left_out(free, shown))
    locked = [row for row in groups if row.locked is not None]
    if locked:
        _print_locked(console, locked, view)


def _print_locked(console: Console, locked: Sequence[GroupRow], view: View) -> None:
    """Print each reason below its group: a column beside it would be too narrow."""
    merged = locks(locked) if view.most_locked is not None else tuple(Lock(row, row.locked or "", 0) for row in locked)
    shown = merged[: view.most_locked]
    width = _name_width(console, 22)
    table = _table()
    table.add_column("locked, and why", overflow="fold", max_width=width)
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    ends = [f" and {lock.alike} more like it" if lock.alike else "" for lock in shown]
    names = shortened([lock.row.name for lock in shown], width - max((len(end) for end in ends), default=0))
    for name, end, lock in zip(names, ends, shown, strict=True):
        reason = Padding(Text(lock.reason, style="dim"), (0, 0, 0, 2))
        share = wording.percent(lock.row.macs_share)
        table.add_row(Group(Text.assemble(name, (end, "dim")), reason), str(lock.row.before), share)
    console.print(table)
    _print_left_out(console, left_out([lock.row for lock in merged], [lock.row for lock in shown]))


def _print_left_out(console: Console, text: str | None) -> None:
    if text is not None:
        console.print(Text(f"  {text}", style="dim"))
    console.print()


def _print_choices(console: Console, choices: Sequence[str]) -> None:
    for choice in choices:
        _print_labelled(console, Text("choice", style="dim"), Text(choice))


def _print_notes(console: Console, notes: Sequence[str], view: View) -> None:
    for note in notes:
        if note not in view.seen:
            _print_labelled(console, Text("note", style="yellow"), Text(note))


def _print_verification(console: Console, verify: Verification) -> None:
    line = Text()
    for name, good in wording.checks(verify):
        line.append(f"{name} {'ok' if good else 'FAILED'}, ", style="" if good else "red")
    line.append(f"masked equivalence {wording.decimals(verify.masked_max_rel_err)}")
    if verify.estimates:
        line.append(f"; {wording.estimates(verify)}")
    for complaint in verify.complaints:
        line.append(f"\n{complaint}", style="red")
    label = Text("verified", style="green") if verify.passed else Text("FAILED", style="bold red")
    _print_labelled(console, label, line)


def _print_labelled(console: Console, label: Text, text: Text) -> None:
    """Print a label with an indented paragraph beside it."""
    grid = Table.grid(padding=(0, 0))
    grid.add_column(width=_LABEL)
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    console.print(grid)


def _channels(row: GroupRow) -> str:
    return f"{row.before} → {row.after}" if row.after != row.before else f"{row.before}"


def _bar(share: float, width: int) -> Text:
    filled = round(max(0.0, min(1.0, share)) * width)
    return Text("█" * filled, style="cyan") + Text("░" * (width - filled), style="dim")


def _name_width(console: Console, rest: int) -> int:
    return max(16, console.width - rest)


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.padding = (0, 2, 0, 0)
    return table
