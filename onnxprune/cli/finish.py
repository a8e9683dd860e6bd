"""The end of a run that wrote a model: write the files beside it, then print the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.command import print_json, view_of
from onnxprune.cli.files import check_report, check_side_file, model_files, weights_beside, write_text
from onnxprune.cli.streams import ResultsLost
from onnxprune.errors import OutputError
from onnxprune.shown import for_reading

if TYPE_CHECKING:
    from onnxprune.result import Report


@dataclass(frozen=True)
class SideFiles:
    """The files of a run.

    ``asked`` is the user's choice of output, or None.  ``ending`` is part of the default output name.  ``plan`` and
    ``report`` are None if not requested.  ``given`` are the other files that the run reads.
    """

    model: Path
    asked: Path | None
    plan: Path | None
    report: Path | None
    ending: str = "pruned"
    given: tuple[Path, ...] = ()

    @property
    def output(self) -> Path:
        """The user's choice, or MODEL.ENDING.onnx beside the input."""
        name = self.model.stem if self.model.suffix.lower() == ".onnx" else self.model.name
        return self.asked or self.model.with_name(f"{name}.{self.ending}.onnx")

    def check(self) -> None:
        """Raise OutputError if a file cannot be written: now rather than after minutes of work."""
        if self.output.resolve() == self.model.resolve():
            raise OutputError(f"{self.output} is the input model itself; choose another output file with -o")
        read = (*model_files(self.model, (self.output, self.plan, self.report)), *self.given)
        check_side_file(self.output, "-o", read)
        taken = (*read, self.output, weights_beside(self.output))
        check_side_file(self.plan, "--plan", taken)
        check_report(self.report, (*taken, *([self.plan] if self.plan else [])))


#: A file beside the model: its label, where to write it (None: nowhere), and what makes its text.
SideText = tuple[str, Path | None, Callable[[], str]]
#: The label and the path of a file that was written.
Written = tuple[str, Path]


def conclude(files: Sequence[SideText], tell: Callable[[Sequence[Written]], None], output: Path) -> None:
    """Write ``files``, then ``tell`` the user the results.  ``output`` is the model, which stands already.

    Raises:
        OutputError: a file cannot be written, or stdout takes no more.  Everything else is written and printed first.
    """
    failed: list[OutputError] = []
    written: list[Written] = []
    for label, path, text in files:
        if path is None:
            continue
        try:
            write_text(path, text())
            written.append((label, path))
        except OutputError as error:
            failed.append(error)
    try:
        tell(written)
        sys.stdout.flush()
    except ResultsLost as lost:
        # The model is written, so it is no failure if nobody reads the results.
        if not lost.gone:
            failed.append(lost)
    if failed:
        raise OutputError(f"{failed[0]} (the model itself is in {output})")


def finish(
    report: Report,
    plan: str,
    side: SideFiles,
    arguments: argparse.Namespace,
    line: str,
    seen: tuple[str, ...],
) -> None:
    """:func:`conclude` a run that made a ``report``; ``plan`` is the plan's JSON."""

    def page() -> str:
        from onnxprune.report.html import render

        return render(report, plan, line)

    files = ("plan", side.plan, lambda: plan), ("report", side.report, page)
    conclude(files, lambda written: _tell(report, arguments, seen, written), side.output)


def _tell(report: Report, arguments: argparse.Namespace, seen: tuple[str, ...], written: Sequence[Written]) -> None:
    if arguments.json:
        from onnxprune.report.document import of_report

        print_json(of_report(report))
    elif arguments.quiet:
        from onnxprune.report.wording import verdict

        print(for_reading(verdict(report)))
    else:
        from onnxprune.report.terminal import console_for, print_report, print_wrote

        console = console_for(sys.stdout)
        print_report(console, report, view_of(arguments, seen))
        for label, path in written:
            print_wrote(console, label, str(path))
