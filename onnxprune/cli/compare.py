"""``onnxprune compare``: two models side by side."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import arguments as shared
from onnxprune.cli import values
from onnxprune.cli.command import Command, print_json
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import Told, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr
from onnxprune.errors import VerificationError

if TYPE_CHECKING:
    from onnxprune.result import Comparison

HELP = """\
onnxprune compare A.onnx B.onnx [options]  size, speed and outputs side by side;
                                           accuracy where the data has labels

  --data SRC          folder of images, .npz, .npy, FILE.py:FUNC, module:FUNC,
                      hf:NAME[:SPLIT[:COLUMN]]; left out: synthetic inputs
  --samples N         how many samples to use (256)      --seed N (0)
  --preprocess P      imagenet, unit, symmetric, caffe or raw; parts of it with
                      --mean A,B,C  --std A,B,C  --resize N  --crop N|HxW  --bgr
  --eval FILE.py:FUNC your metric, f(session_runner) -> float, higher is better
  --test SRC          labelled data, for the accuracy
  --task T            classify, detect, segment, pose, embed, ctc or regress;
                      left out: told from the outputs (onnxprune help tasks)
  --layout WORDS      how a detector writes, such as xywh,objectness
  --per-op            where both spend their time, by operator (CPU)
  --max-drop X        a gate for CI: exit code 1 where the drop is above X
  --shape NAME=DIMS   shape of an input with dynamic dims; repeatable
  --providers LIST (cpu)   --threads N (all)   --memory BYTES
  --json              one JSON document on stdout, nothing else
  -q, --quiet  no progress, no notes     -v, --verbose     -h, --help

examples
  onnxprune compare net.onnx net.pruned.onnx
  onnxprune compare net.onnx small.onnx --data test.npz --preprocess unit --json
  onnxprune compare net.onnx small.onnx --data photos/ --max-drop 0.02 || exit 1
"""


def parser() -> Parser:
    made = Parser("compare", HELP)
    made.add_argument("A")
    made.add_argument("B")
    shared.add_data(made)
    made.add_argument("--per-op", action="store_true")
    made.add_argument("--max-drop", dest="gate", type=values.drop, metavar="X")
    shared.add_engine(made)
    shared.add_json(made)
    shared.add_common(made)
    return made


def run(arguments: argparse.Namespace, line: str) -> int:
    options = shared.options_from(arguments)
    if arguments.gate is not None and options.evaluate is None:
        shared.check_drop(arguments.gate)
    with progress_on_stderr(Told(), arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.api import compare_models

        pair = Path(arguments.A), Path(arguments.B)
        comparison = compare_models(*pair, arguments.data, options, progress)
        if arguments.per_op:
            from onnxprune.api import operators

            comparison = replace(comparison, operators=operators(*pair, arguments.data, options))
    try:
        _tell(comparison, arguments.json)
    finally:
        # The gate's answer counts, whoever still reads the table.
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
    """Raise VerificationError (exit code 1) where the drop is above ``most``, or could not be measured."""
    if most is None:
        return
    if comparison.drop is None:
        raise VerificationError("the drop could not be measured: the outputs differ in shape")
    if comparison.drop.value > most:
        raise VerificationError(f"the drop, {comparison.drop.value:.4g}, is above --max-drop {most:g}")


COMMAND = Command("compare", parser, run)
