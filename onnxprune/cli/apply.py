"""``onnxprune apply``: replay a plan: the same channels, no refit."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli.arguments import options_from
from onnxprune.cli.command import Command, Invocation, parser_of
from onnxprune.cli.finish import SideFiles, finish
from onnxprune.cli.parser import Parser, UsageError
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr
from onnxprune.json_file import MAX_BYTES
from onnxprune.paths import read_ordinary

HEAD = """\
onnxprune apply MODEL.onnx PLAN.json [options]                 replay a plan

A plan lists groups and the channels to keep. 'prune --plan' writes one, or you
write it by hand. It stays valid after fine-tuning the model. A plan holds no
weights, so 'apply' cuts the model but does not refit it as 'prune' does.
"""
EXAMPLES = """\
  onnxprune net.onnx --macs 0.5 --plan plan.json
  onnxprune apply net.onnx plan.json -o small.onnx
"""


def parser() -> Parser:
    return parser_of("apply", (("MODEL", str), ("PLAN", Path)), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    options = options_from(arguments)
    source: Path = arguments.PLAN
    # Do not use prune's output name: this would overwrite its refitted result.
    side = SideFiles(Path(arguments.MODEL), arguments.output, None, arguments.report, "applied")
    side.check()
    if source.resolve() in {side.output.resolve(), side.report.resolve() if side.report else None}:
        raise UsageError(f"{source} is the plan itself; choose another file with -o or --report")
    seen = SeenNotes()
    with progress_on_stderr(seen, arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.workflows.apply import apply_file

        call.stopwatch.mark("start")
        report = apply_file(side.model, source, side.output, options, progress, call.stopwatch)
    finish(report, read_ordinary(source, MAX_BYTES).decode("utf-8"), side, arguments, call.line, tuple(seen.notes))
    return 0


COMMAND = Command("apply", parser, run)
