"""``onnxprune compare``: two models side by side."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.arguments import check_drop, options_from
from onnxprune.cli.command import Command, Invocation, parser_of, print_json
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import SeenNotes, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr
from onnxprune.errors import VerificationError

if TYPE_CHECKING:
    from onnxprune.result import Comparison

HEAD = """\
onnxprune compare A.onnx B.onnx [options]  size, speed and outputs side by side;
                                           accuracy if the data has labels
"""
EXAMPLES = """\
  onnxprune compare net.onnx net.pruned.onnx
  onnxprune compare net.onnx small.onnx --data test.npz --preprocess unit --json
  onnxprune compare net.onnx small.onnx --data photos/ --max-drop 0.02 || exit 1
"""


def parser() -> Parser:
    return parser_of("compare", (("A", str), ("B", str)), HEAD, EXAMPLES)


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    options = options_from(arguments)
    if arguments.gate is not None and options.evaluate is None:
        check_drop(arguments.gate)
    with progress_on_stderr(SeenNotes(), arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.workflows.compare import compare_models

        pair = Path(arguments.A), Path(arguments.B)
        comparison = compare_models(*pair, arguments.data, options, progress)
        if arguments.per_op:
            from onnxprune.workflows.compare import compare_operators

            comparison = replace(comparison, operators=compare_operators(*pair, arguments.data, options))
    try:
        _tell(comparison, arguments.json)
    finally:
        # The exit code must be right even if nobody reads the table.
        _gate(comparison, arguments.gate)
    return 0


def _tell(comparison: Comparison, json: bool) -> None:
    if json:
        from onnxprune.report.document import of_comparison

        print_json(of_comparison(comparison))
    else:
        from onnxprune.report.terminal import console_for, print_comparison

        print_comparison(console_for(sys.stdout), comparison)
    sys.stdout.flush()


def _gate(comparison: Comparison, most: float | None) -> None:
    """Raise VerificationError (exit code 1) if the drop is above ``most`` or could not be measured."""
    if most is None:
        return
    if comparison.drop is None:
        raise VerificationError("the drop could not be measured: the outputs differ in shape")
    if comparison.drop.value > most:
        raise VerificationError(f"the drop, {comparison.drop.value:.4g}, is above --max-drop {most:g}")


COMMAND = Command("compare", parser, run)
