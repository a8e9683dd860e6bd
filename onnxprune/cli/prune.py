"""``onnxprune MODEL.onnx``: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli import arguments as shared
from onnxprune.cli import values
from onnxprune.cli.command import Command
from onnxprune.cli.files import given_files
from onnxprune.cli.finish import SideFiles, finish
from onnxprune.cli.parser import Parser
from onnxprune.cli.progress import Told, progress_on_stderr
from onnxprune.cli.streams import stdout_to_stderr

HELP = """\
onnxprune [prune] MODEL.onnx [options]         make it smaller, without training

  -o, --output FILE    default: MODEL.pruned.onnx beside it
data
  --data SRC           folder of images, .npz, .npy, FILE.py:FUNC, module:FUNC,
                       hf:NAME[:SPLIT[:COLUMN]]; left out: made-up inputs
  --samples N          at most; default: 64 to 2048, by the cost of one
  --preprocess P       imagenet, unit, symmetric, caffe or raw; parts of it with
                       --mean A,B,C  --std A,B,C  --resize N  --crop N|HxW --bgr
  --test SRC           labelled data, for the accuracy in the report only
  --task T             classify, detect, segment, pose, embed, ctc or regress;
                       left out: told from the outputs (onnxprune help tasks)
  --layout WORDS       how a detector writes, such as xywh,objectness
budget, one of         R is the fraction KEPT; default: --max-drop 0.01 (0.05
                       for detectors and masks, 0.02 for embeddings)
  --macs R | --params R | --latency R | --size R-or-BYTES
  --max-drop X         the smallest model whose drop on held-out samples stays
                       within X: share of answers changed, AP50 or IoU lost ...
  --eval FILE.py:FUNC  your metric, f(session_runner) -> float, not the drop
how
  --select METHOD      auto, qr, obs, magnitude or random (auto)
  --refit METHOD       lstsq or none (lstsq)
  --effort LEVEL       fast, default or best: computing spent on accuracy;
                       without --data the default is fast
  --round auto|N       channel counts are multiples of N (auto: fastest here)
  --latency-table FILE fastest on the device that the table was measured on
  --exclude GLOB, --only GLOB    nodes, tensors or groups; repeatable
  --shape NAME=1x3x224x224       for dynamic inputs; repeatable
  --approximate        also narrow layer and RMS normalizations: their mean and
                       variance change, so masked equivalence does not hold
  --providers LIST (cpu)  --threads N (all)  --memory BYTES  --seed N (0)
output
  --plan FILE          write the plan (JSON)
  --report FILE.html   write the report
  --json               one JSON document on stdout, nothing else
  -q, --quiet  only the verdict     -v, --verbose  everything     -h, --help

examples
  onnxprune net.onnx --data photos/
  onnxprune net.onnx --data calib.npz --macs 0.5 --report report.html
  onnxprune net.onnx --data load.py:samples --eval score.py:f1 --max-drop 0.005
"""


def parser() -> Parser:
    made = Parser("prune", HELP)
    made.add_argument("MODEL")
    made.add_argument("-o", "--output", type=values.output)
    shared.add_data(made)
    shared.add_pruning(made)
    shared.add_engine(made)
    made.add_argument("--plan", type=values.output)
    made.add_argument("--report", type=values.output)
    shared.add_json(made)
    shared.add_common(made)
    return made


def run(arguments: argparse.Namespace, line: str) -> int:
    options = shared.options_from(arguments)
    given = given_files(arguments.data, arguments.test, arguments.evaluate, arguments.latency_table)
    side = SideFiles(Path(arguments.MODEL), arguments.output, arguments.plan, arguments.report, given=given)
    side.check()
    told = Told()
    with progress_on_stderr(told, arguments.quiet, arguments.verbose) as progress, stdout_to_stderr():
        from onnxprune.api import prune_file

        result = prune_file(side.model, side.output, arguments.data, options, progress)
    finish(result.report, result.plan.to_json(), side, arguments, line, tuple(told.notes))
    return 0


COMMAND = Command("prune", parser, run)
