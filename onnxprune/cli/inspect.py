"""``onnxprune inspect``: show a model's groups, locks and MACs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from onnxprune.cli.arguments import options_from
from onnxprune.cli.command import Command, Invocation, parser_of, print_json, view_of
from onnxprune.cli.files import check_report, check_side_file, model_files, write_text
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr

HEAD = """\
onnxprune inspect MODEL.onnx [options]     where the MACs are, what is prunable,
                                           what is locked and why
"""
EXAMPLES = """\
  onnxprune inspect net.onnx
  onnxprune inspect net.onnx --shape images=1x3x640x640 -v
  onnxprune inspect net.onnx --json | jq '.groups[] | select(.locked)'
"""


def parser() -> Parser:
    return parser_of("inspect", (("MODEL", str),), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    options = options_from(arguments)
    read = model_files(Path(arguments.MODEL), (arguments.report, arguments.layers))
    check_report(arguments.report, read)
    check_side_file(arguments.layers, "--layers", (*read, *([arguments.report] if arguments.report else [])))
    with progress_on_stderr(SeenNotes(), arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        progress.stage("inspect", None)
        from onnxprune.api import inspect

        inspection = inspect(Path(arguments.MODEL), options.shapes, options.rules)
    if arguments.report is not None:
        from onnxprune.report.html import render_inspection

        write_text(arguments.report, render_inspection(inspection))
    if arguments.layers is not None:
        from onnxprune.workflows.inspect import layers_to_time

        write_text(arguments.layers, json.dumps(layers_to_time(Path(arguments.MODEL), options.shapes)))
    if arguments.json:
        from onnxprune.report.document import of_inspection

        print_json(of_inspection(inspection))
        return 0
    from onnxprune.report.terminal import console_for, print_inspection, print_wrote

    seen = inspection.notes if arguments.quiet else ()
    console = console_for(sys.stdout)
    print_inspection(console, inspection, view_of(arguments, seen))
    for label, path in (("report", arguments.report), ("layers", arguments.layers)):
        if path is not None:
            print_wrote(console, label, str(path))
    return 0


COMMAND = Command("inspect", parser, run)
