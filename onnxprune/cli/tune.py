"""``onnxprune tune``: recover accuracy by training on the original's outputs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.arguments import options_from
from onnxprune.cli.command import Command, Invocation, parser_of, print_json
from onnxprune.cli.files import given_files
from onnxprune.cli.finish import SideFiles, Written, conclude
from onnxprune.cli.parser import Parser, UsageError
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr
from onnxprune.tuning_length import TuningLength

if TYPE_CHECKING:
    from onnxprune.result import Tuned

HEAD = """\
onnxprune tune SMALL.onnx --teacher NET.onnx --data SRC    recover accuracy by
                           training on the original's outputs; no labels needed
"""
EXAMPLES = """\
  onnxprune tune net.pruned.onnx --teacher net.onnx --data photos/
  onnxprune tune small.onnx --teacher net.onnx --data calib.npz --for 30m
"""


def parser() -> Parser:
    return parser_of("tune", (("MODEL", str),), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    if arguments.teacher is None:
        raise UsageError("--teacher is missing; give the original model, whose outputs are the targets")
    if arguments.data is None:
        raise UsageError("--data is missing; give samples like those that the model will see; they need no labels")
    options = options_from(arguments)
    options = options if options.tune is not None else replace(options, tune=TuningLength())
    given = (arguments.teacher, *given_files(arguments.data, arguments.test))
    side = SideFiles(Path(arguments.MODEL), arguments.output, None, arguments.report, "tuned", given)
    side.check()
    seen = SeenNotes()
    # torchrun starts several processes.  Only the first one prints and writes.
    first = os.environ.get("RANK", "0") == "0"
    with progress_on_stderr(seen, arguments.quiet or not first, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.workflows.tune import tune_file

        output = side.output if first else None
        tuned = tune_file(side.model, arguments.teacher, output, arguments.data, options, progress)
    if first:
        files = (("report", side.report, lambda: _page(tuned, side, call.line)),)
        conclude(files, lambda written: _tell(tuned, side, arguments, tuple(seen.notes), written), side.output)
    return 0


def _page(tuned: Tuned, side: SideFiles, line: str) -> str:
    from onnxprune.report.html import render_tuned

    return render_tuned(tuned, str(side.model), line)


def _tell(
    tuned: Tuned, side: SideFiles, arguments: argparse.Namespace, seen: tuple[str, ...], written: Sequence[Written]
) -> None:
    if arguments.json:
        from onnxprune.report.document import of_tuned

        print_json(of_tuned(str(side.model), tuned))
    elif arguments.quiet:
        from onnxprune.report.wording import gain

        print(gain(tuned.tuning))
    else:
        from onnxprune.report.terminal import console_for, print_tuned, print_wrote

        console = console_for(sys.stdout)
        print_tuned(console, tuned, seen)
        for label, path in written:
            print_wrote(console, label, str(path))


COMMAND = Command("tune", parser, run)
