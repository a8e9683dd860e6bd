"""Top-1 against MACs: onnxprune, its ablations, the literature's training-free methods and other tools.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_accuracy.py --out DIR [--peer-python /venv/bin/python]
        [--models 'resnet20_bn,vgg*'] [--kept 0.8,0.7,0.6,0.5,0.4,0.3] [--methods 'onnxprune,block-obs*'] [--samples 512]

Every method gets the same calibration images, of which it may learn from four fifths and choose by the rest; the
same MACs, within 1 % of the original's; and re-estimated statistics where they help on the holdout.  Accuracy is
that of the labelled test data, which no method sees.  Cells are kept in DIR/cells and not computed again (``--again
GLOB`` does, for the methods named); DIR/accuracy.json, DIR/accuracy.md and a plot per model are written at the end
of every model.  Peers need ``--peer-python``, an environment with torch, torch-pruning, onnx and onnxsim; plots an
environment with matplotlib, this one or that.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from baselines.workbench import Workbench, open_workbench
from bench_cell import Found
from bench_main import MODELS, Entry
from bench_methods import DEFAULT, METHODS, PEERS
from bench_table import Cell, plots, read_cells, tables, write_cell

from onnxprune.calibration.preprocess import Preprocess

KEPT = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
TOLERANCE = 0.01
FIRST = "resnet20_bn,resnet56_bn,vgg16_bn,googlenet_s_bn,resnet20_zero_channels"


def preprocess_of(entry: Entry) -> Preprocess:
    """From command-line arguments as in ``bench_main``: NAME [--mean V] [--std V]."""
    name, *rest = entry.preprocess
    given = dict(zip(rest[::2], (float(v) for v in rest[1::2]), strict=True))
    return Preprocess.named(name, given.get("--mean"), given.get("--std"))


def cells_of(bench: Workbench, model: str, method: str, kept: Sequence[float], python: str) -> Iterator[Cell]:
    """Compute cells one after the other; what fails is a cell that says why."""
    options = bench.options
    start = time.perf_counter()
    left = list(kept)

    def cell(fraction: float, macs: float, top1: float, note: str) -> Cell:
        nonlocal start
        seconds, start = time.perf_counter() - start, time.perf_counter()
        return Cell(model, method, fraction, options.samples, options.seed, macs, top1, note, round(seconds, 1))

    nan = float("nan")
    try:
        for fraction, found in METHODS[method](bench, kept, python):
            left.remove(fraction)
            if isinstance(found, Found) and abs(found.macs - fraction) <= TOLERANCE:
                yield cell(fraction, found.macs, bench.top1(found.model), found.note)
            elif isinstance(found, Found):
                yield cell(fraction, found.macs, nan, f"{found.macs:.3f} of the MACs is not within {TOLERANCE}")
            else:
                yield cell(fraction, nan, nan, found)
    except Exception as error:
        # One method that fails must not cost the others' cells: the table shows why this one has none.
        for fraction in left:
            yield cell(fraction, nan, nan, f"{type(error).__name__}: {error}")


def matching(names: Sequence[str], globs: str) -> list[str]:
    return [n for n in names if any(fnmatch.fnmatchcase(n, g) for g in globs.split(","))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=FIRST, help="globs over the file names of the assets' models")
    parser.add_argument("--kept", default=",".join(map(str, KEPT)))
    parser.add_argument("--methods", default="*", help="globs; see bench_methods.py")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--peer-python", default="", help="interpreter of an environment with torch-pruning and onnxsim"
    )
    parser.add_argument("--again", default="", help="globs over methods whose cells are computed anew")
    given = parser.parse_args()
    assets = Path(os.environ.get("ONNXPRUNE_ASSETS", "../shared/assets"))
    kept = [float(k) for k in given.kept.split(",")]
    methods = [m for m in matching(list(METHODS), given.methods) if given.peer_python or m not in PEERS]
    entries = {Path(e.model).stem: e for e in MODELS}
    for model in matching(list(entries), given.models):
        run(entries[model], assets, methods, kept, given)
        cells = read_cells(given.out, given.samples, given.seed)
        (given.out / "accuracy.json").write_text(json.dumps([c.as_json() for c in cells], indent=1) + "\n")
        text = tables(cells, list(METHODS), DEFAULT)
        (given.out / "accuracy.md").write_text(text)
        print(plots(given.out, given.peer_python or sys.executable), file=sys.stderr)
    print((given.out / "accuracy.md").read_text())
    return 0


def run(entry: Entry, assets: Path, methods: Sequence[str], kept: Sequence[float], given: argparse.Namespace) -> None:
    """All missing cells of one model."""
    model = Path(entry.model).stem
    done = {(c.method, c.kept) for c in read_cells(given.out, given.samples, given.seed) if c.model == model}
    again = set(matching(methods, given.again)) if given.again else set()
    todo = {m: [k for k in kept if m in again or (m, k) not in done] for m in methods}
    if not any(todo.values()) and ("original", 1.0) in done:
        return
    preprocess = preprocess_of(entry)
    calibration, test = (assets / part for part in entry.data)
    bench = open_workbench(assets / entry.model, calibration, test, preprocess, given.samples, given.seed)
    if ("original", 1.0) not in done:
        top1 = bench.top1(bench.work.loaded.proto)
        write_cell(given.out, Cell(model, "original", 1.0, given.samples, given.seed, 1.0, top1, "", 0.0))
    for method, fractions in todo.items():
        if fractions:
            for cell in cells_of(bench, model, method, fractions, given.peer_python):
                write_cell(given.out, cell)
                print(
                    f"{model} {method} {cell.kept:g}: {cell.top1:.2%} {cell.note} ({cell.seconds:.0f} s)",
                    file=sys.stderr,
                )


if __name__ == "__main__":
    sys.exit(main())
