"""``onnxprune why``: show what ties or locks one tensor or node."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from pathlib import Path

from onnxprune.cli.arguments import options_from
from onnxprune.cli.command import Command, Invocation, parser_of
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr
from onnxprune.shown import for_reading

HEAD = """\
onnxprune why MODEL.onnx NAME [options] the group or lock of one tensor or node,
                                        and the path that ties or locks it
"""
EXAMPLES = """\
  onnxprune why net.onnx /layer1/conv1/Conv
  onnxprune why net.onnx layer1.0.conv1.weight
"""


def parser() -> Parser:
    return parser_of("why", (("MODEL", str), ("NAME", str)), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    options = options_from(arguments)
    with progress_on_stderr(SeenNotes(), arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        progress.stage("why", None)
        from onnxprune.api import why

        answer = why(Path(arguments.MODEL), arguments.NAME, options.shapes, options.rules)
    print(_wrapped(for_reading(answer.rstrip("\n"))))
    return 0


def _wrapped(answer: str) -> str:
    """Wrap and indent long lines on a terminal; leave them alone in a pipe."""
    if not sys.stdout.isatty():
        return answer
    width = shutil.get_terminal_size().columns
    lines = []
    for line in answer.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        wrapped = textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines.append(wrapped or line)
    return "\n".join(lines)


COMMAND = Command("why", parser, run)
