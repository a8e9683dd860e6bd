"""The end of ``prune`` and ``apply``: side files first, then what the user reads."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.command import print_json, view_of
from onnxprune.cli.files import check_side_file, write_text
from onnxprune.errors import OutputError

if TYPE_CHECKING:
    from onnxprune.result import Report


@dataclass(frozen=True)
class SideFiles:
    """Where everything goes; ``asked`` is the user's choice of output; None where nothing is asked for."""

    model: Path
    asked: Path | None
    plan: Path | None
    report: Path | None

    @property
    def output(self) -> Path:
        """MODEL.pruned.onnx beside the input, unless the user said otherwise."""
        return self.asked or self.model.with_name(f"{self.model.name.removesuffix('.onnx')}.pruned.onnx")

    def check(self) -> None:
        """Raise OutputError now rather than after minutes of work."""
        if self.output.resolve() == self.model.resolve():
            raise OutputError(f"{self.output} is the input model itself; choose another output file with -o")
        check_side_file(self.output, "-o", (self.model,))
        check_side_file(self.plan, "--plan", (self.model, self.output))
        taken = (self.model, self.output, *([self.plan] if self.plan else []))
        check_side_file(self.report, "--report", taken)


def finish(
    report: Report,
    plan: str,
    side: SideFiles,
    arguments: argparse.Namespace,
    line: str,
    told: tuple[str, ...],
) -> None:
    """Write what was asked for, and say what happened; ``plan`` is the plan's JSON."""
    if side.plan is not None:
        write_text(side.plan, plan)
    if side.report is not None:
        from onnxprune.report.html import render

        write_text(side.report, render(report, plan, line))
    if arguments.json:
        from onnxprune.report.document import of_report

        print_json(of_report(report))
    elif arguments.quiet:
        from onnxprune.report.wording import verdict

        print(verdict(report))
    else:
        from onnxprune.report.terminal import console_for, print_report, print_wrote

        console = console_for(sys.stdout)
        print_report(console, report, view_of(arguments, told))
        for label, path in (("plan", side.plan), ("report", side.report)):
            if path is not None:
                print_wrote(console, label, str(path))
