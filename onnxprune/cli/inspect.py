"""``onnxprune inspect``: what a model is made of, before anything is done to it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from onnxprune.cli import arguments as shared
from onnxprune.cli import values
from onnxprune.cli.command import Command, print_json, view_of
from onnxprune.cli.files import check_side_file, model_files, write_text
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import Told, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr

HELP = """\
onnxprune inspect MODEL.onnx [options]     where the MACs are, what is prunable,
                                           what is locked and why

  --shape NAME=DIMS   shape of an input with dynamic dims; repeatable
  --approximate       by the rules that also narrow normalizations
  --report FILE.html  the same as a page, with a picture of the graph
  --layers FILE.json  write its layers, to be timed on a device by
                      tools/measure_latency_table.py, for
                      --latency-table FILE
  --json              one JSON document on stdout, nothing else
  -v, --verbose       every group, not only the biggest
  -q, --quiet         no notes
  -h, --help

examples
  onnxprune inspect net.onnx
  onnxprune inspect net.onnx --shape images=1x3x640x640 -v
  onnxprune inspect net.onnx --json | jq '.groups[] | select(.locked)'
"""


def parser() -> Parser:
    made = Parser("inspect", HELP)
    made.add_argument("MODEL")
    made.add_argument("--report", type=values.output)
    made.add_argument("--layers", type=values.output)
    shared.add_json(made)
    shared.add_rules(made)
    shared.add_common(made)
    return made


def run(arguments: argparse.Namespace, line: str) -> int:
    options = shared.options_from(arguments)
    read = model_files(Path(arguments.MODEL), (arguments.report, arguments.layers))
    check_side_file(arguments.report, "--report", read)
    check_side_file(arguments.layers, "--layers", (*read, *([arguments.report] if arguments.report else [])))
    with progress_on_stderr(Told(), arguments.quiet, False) as progress, stdout_to_stderr():
        progress.stage("inspect", None)
        from onnxprune.api import inspect

        inspection = inspect(Path(arguments.MODEL), options.shapes, options.rules)
    if arguments.report is not None:
        from onnxprune.report.html import render_inspection

        write_text(arguments.report, render_inspection(inspection))
    if arguments.layers is not None:
        from onnxprune.api import layers_to_time

        write_text(arguments.layers, json.dumps(layers_to_time(Path(arguments.MODEL), options.shapes)))
    if arguments.json:
        from onnxprune.report.document import of_inspection

        print_json(of_inspection(inspection))
        return 0
    from onnxprune.report.terminal import console_for, print_inspection, print_wrote

    told = inspection.notes if arguments.quiet else ()
    console = console_for(sys.stdout)
    print_inspection(console, inspection, view_of(arguments, told))
    for label, path in (("report", arguments.report), ("layers", arguments.layers)):
        if path is not None:
            print_wrote(console, label, str(path))
    return 0


COMMAND = Command("inspect", parser, run)
