"""``onnxprune MODEL.onnx``: prune a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli.arguments import options_from
from onnxprune.cli.command import Command, Invocation, parser_of
from onnxprune.cli.files import given_files
from onnxprune.cli.finish import SideFiles, finish
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr

HEAD = """\
onnxprune [prune] MODEL.onnx [options]         make it smaller, without training
"""
EXAMPLES = """\
  onnxprune net.onnx --data photos/
  onnxprune net.onnx --data calib.npz --macs 0.5 --report report.html
  onnxprune net.onnx --data load.py:samples --eval score.py:f1 --max-drop 0.005
"""


def parser() -> Parser:
    return parser_of("prune", (("MODEL", str),), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    options = options_from(arguments)
    given = given_files(arguments.data, arguments.test, arguments.evaluate, arguments.latency_table)
    side = SideFiles(Path(arguments.MODEL), arguments.output, arguments.plan, arguments.report, given=given)
    side.check()
    seen = SeenNotes()
    with progress_on_stderr(seen, arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.workflows.prune import prune_file

        call.stopwatch.mark("start")
        result = prune_file(side.model, side.output, arguments.data, options, progress, call.stopwatch)
    finish(result.report, result.plan.to_json(), side, arguments, call.line, tuple(seen.notes))
    return 0


COMMAND = Command("prune", parser, run)
