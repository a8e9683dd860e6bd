"""Top-1 before and after the same tuning: cuts of onnxprune, of onnxprune without its refit, and of other tools.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_tuned_peers.py --for 16x --peer-python /venv/bin/python
        [--model resnet20_bn] [--kept 0.5] [--methods 'onnxprune,onnxprune-refit-none,torch-pruning-l2']

Every method cuts to the same MACs with the same calibration images.  Then ``onnxprune tune`` trains each result on
the original's answers, for as many passes over the same unlabelled images.  The test images are labelled; no method
sees them.  Prints a line per method and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from baselines.workbench import Workbench, open_workbench
from bench_accuracy import matching, preprocess_of
from bench_cell import Found
from bench_main import MODELS
from bench_methods import METHODS, PEERS

import onnxprune
from onnxprune.tuning.need import need_torch

USUAL = "onnxprune,onnxprune-refit-none,torch-pruning-l2,torch-pruning-hessian-global,onnxsim-l2,onnxsim-wanda"


@dataclass(frozen=True)
class Row:
    """``macs``: the share kept.  ``seconds``: processor seconds of the tuning.  ``said``: why there is no model."""

    method: str
    macs: float
    cut: float
    tuned: float
    seconds: float
    said: str = ""


def rows(
    bench: Workbench, methods: Sequence[str], kept: float, length: str, threads: int, python: str
) -> Iterator[Row]:
    nan = float("nan")
    for method in methods:
        try:
            _, found = next(iter(METHODS[method](bench, [kept], python)))
        except RuntimeError as error:
            found = str(error)
        if not isinstance(found, Found):
            yield Row(method, nan, nan, nan, 0.0, found)
            continue
        begun = time.process_time()
        tuned = onnxprune.tune(
            found.model,
            bench.path,
            str(bench.calibration),
            length=length,
            samples=2048,
            preprocess=bench.preprocess,
            threads=threads,
        )
        seconds = time.process_time() - begun
        yield Row(method, found.macs, bench.top1(found.model), bench.top1(tuned.model), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20_bn", help="file name of a model of the assets, without .onnx")
    parser.add_argument("--kept", type=float, default=0.5)
    parser.add_argument("--for", dest="length", default="16x", help="as for onnxprune tune")
    parser.add_argument("--methods", default=USUAL, help="globs; see bench_methods.py")
    parser.add_argument("--samples", type=int, default=512, help="of the cut; tuning takes all, 2048 at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", default="", help="an interpreter that has torch-pruning and onnxsim")
    given = parser.parse_args()
    need_torch()
    assets = Path(os.environ.get("ONNXPRUNE_ASSETS", "../shared/assets"))
    entry = next(e for e in MODELS if Path(e.model).stem == given.model)
    calibration, test = (assets / part for part in entry.data)
    bench = open_workbench(assets / entry.model, calibration, test, preprocess_of(entry), given.samples, 0)
    methods = [m for m in matching(list(METHODS), given.methods) if given.peer_python or m not in PEERS]
    seen = []
    for row in rows(bench, methods, given.kept, given.length, given.threads, given.peer_python):
        seen.append(row)
        print(
            f"{row.method:28} {row.macs:6.3f} {row.cut:7.2%} {row.tuned:7.2%} {row.seconds:6.0f} s {row.said}",
            flush=True,
        )
    print(json.dumps([asdict(row) for row in seen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
