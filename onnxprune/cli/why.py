"""``onnxprune why``: what ties or locks one tensor or node."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli import arguments as shared
from onnxprune.cli.command import Command
from onnxprune.cli.parser import Parser
from onnxprune.cli.streams import stdout_to_stderr

HELP = """\
onnxprune why MODEL.onnx NAME [options] the group or lock of one tensor or node,
                                        and the path that ties or locks it

  --shape NAME=DIMS   shape of an input with dynamic dims; repeatable
  --approximate       by the rules that also narrow normalizations
  -q, --quiet         -v, --verbose         -h, --help

examples
  onnxprune why net.onnx /layer1/conv1/Conv
  onnxprune why net.onnx layer1.0.conv1.weight
"""


def parser() -> Parser:
    made = Parser("why", HELP)
    made.add_argument("MODEL")
    made.add_argument("NAME")
    shared.add_rules(made)
    shared.add_common(made)
    return made


def run(arguments: argparse.Namespace, line: str) -> int:
    options = shared.options_from(arguments)
    with stdout_to_stderr():
        from onnxprune.api import why

        answer = why(Path(arguments.MODEL), arguments.NAME, options.shapes, options.rules)
    print(answer.rstrip("\n"))
    return 0


COMMAND = Command("why", parser, run)
