"""What tuning gives: accuracy by minutes and samples (``rows``), and whether it runs at all (``coverage``).

    python tools/bench_tune.py rows ASSETS --for 1m,3m --samples 128,512 --only resnet20
    python tools/bench_tune.py coverage ASSETS

Prints a table, and after it one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx

import onnxprune
from onnxprune.calibration.open import open_dataset
from onnxprune.engine.session import Engine
from onnxprune.errors import OnnxPruneError
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.options import Options
from onnxprune.pipeline.setup import specs_for
from onnxprune.progress import Silent
from onnxprune.surgery.constants import with_constants
from onnxprune.tuning.need import need_torch
from onnxprune.tuning_length import TuningLength
from onnxprune.verify.checks import soundness

#: Steps of the coverage, and samples of one.
STEPS, SAMPLES = 20, 8


@dataclass(frozen=True)
class Row:
    """A model of the assets, how much of its MACs stays, its data and how they become numbers."""

    name: str
    macs: float
    data: str
    test: str
    preprocess: str


ROWS = (
    Row("cifar10/resnet20_bn", 0.5, "cifar10/calib.npz", "cifar10/test.npz", "imagenet"),
    Row("cifar10/resnet56_bn", 0.39, "cifar10/calib.npz", "cifar10/test.npz", "imagenet"),
    Row("cifar10/vgg16_bn", 0.233, "cifar10/calib.npz", "cifar10/test.npz", "imagenet"),
    Row("imagenet/mobilenetv2", 0.7, "imagenet/calib", "imagenet/test", "symmetric"),
    Row("imagenet/resnet50_bn", 0.352, "imagenet/calib", "imagenet/test", "caffe"),
)


@dataclass(frozen=True)
class Found:
    """One run: accuracy of the original, after the cut, after the refit, after tuning; processor seconds of all."""

    model: str
    macs: float
    length: str
    samples: int | None
    original: float | None
    cut: float | None
    refitted: float | None
    tuned: float | None
    gained: bool
    cpu_seconds: float


@dataclass(frozen=True)
class Covered:
    """One model of the coverage: loss of the first and of the last steps; ``told``: what was in the way."""

    model: str
    first: float | None
    last: float | None
    sound: bool
    told: str
    cpu_seconds: float

    @property
    def good(self) -> bool:
        return self.sound and self.first is not None and self.last is not None and self.last < self.first


def rows(
    assets: Path, lengths: Sequence[str], sizes: Sequence[int | None], only: str, effort: str, threads: int
) -> Iterator[Found]:
    """Prune and tune each model whose name contains ``only``: every length, with every number of samples."""
    for row in ROWS:
        if only not in row.name:
            continue
        for length, samples in product(lengths, sizes):
            begun = time.process_time()
            report = onnxprune.prune(
                assets / f"{row.name}.onnx",
                str(assets / row.data),
                macs=row.macs,
                samples=samples,
                preprocess=row.preprocess,
                test=str(assets / row.test),
                effort=effort,
                round_to=1,
                tune=length,
                threads=threads,
            ).report
            assert report.tuning is not None
            accuracy = {stage.name: stage.accuracy for stage in report.tuning.stages}
            yield Found(
                row.name,
                report.macs.ratio,
                length,
                samples,
                accuracy["original"],
                accuracy["cut"],
                accuracy["refitted"],
                accuracy["tuned"],
                report.tuning.gained,
                time.process_time() - begun,
            )


def covered(path: Path) -> Covered:
    """A model with noise in its weights, tuned for :data:`STEPS` steps on made-up inputs."""
    from onnxprune.tuning.parameters import trainable
    from onnxprune.tuning.program import program_of
    from onnxprune.tuning.tune import Request, tune

    begun = time.process_time()
    try:
        loaded = load(path)
        student = damaged(loaded.proto, trainable(program_of(loaded.proto)[0]))
        data = open_dataset(None, specs_for(loaded, None, Options()), None, 2 * SAMPLES, 0)
        fit, held = data.take(range(0, data.count, 2)), data.take(range(1, data.count, 2))
        request = Request(TuningLength(passes=STEPS * SAMPLES / fit.count), augment="none")
        model, told = tune(student, loaded.proto, fit, held, Engine(threads=1), request, Silent())
        checks = soundness(model, loaded.proto, loaded.complaints, next(fit.batches(2)), Engine(threads=1))
        losses = [p.loss for p in told.curve if np.isfinite(p.loss)]
        notes = "; ".join(note for note in told.notes if "held-out" not in note)
        return Covered(path.stem, losses[0], losses[-1], checks.passed, notes, time.process_time() - begun)
    except OnnxPruneError as error:
        return Covered(path.stem, None, None, False, str(error), time.process_time() - begun)


def damaged(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {name: view(model).constants[name] for name in names if name in view(model).constants}
    return with_constants(
        model, {n: a + 0.1 * float(a.std()) * generator.standard_normal(a.shape) for n, a in weights.items()}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rows", "coverage"))
    parser.add_argument("assets", type=Path)
    parser.add_argument("--for", dest="lengths", default="3m")
    parser.add_argument("--samples", help="numbers of samples, separated by commas (default: the tool's)")
    parser.add_argument("--only", default="")
    parser.add_argument("--effort", default="default")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    need_torch()
    if asked.what == "rows":
        found = []
        sizes = [int(size) for size in asked.samples.split(",")] if asked.samples else [None]
        for one in rows(asked.assets, asked.lengths.split(","), sizes, asked.only, asked.effort, asked.threads):
            found.append(one)
            shown = " | ".join(
                "-" if v is None else f"{100 * v:.1f}" for v in (one.original, one.cut, one.refitted, one.tuned)
            )
            run = f"| {one.model} | {one.macs:.3f} | {one.length} | {one.samples or 'default'} |"
            print(f"{run} {shown} | {one.cpu_seconds:.0f} |", flush=True)
        print(json.dumps([asdict(one) for one in found]))
        return 0
    seen = []
    for path in sorted(asked.assets.rglob("*.onnx")):
        if asked.only in path.stem:
            seen.append(covered(path))
            mark = "ok" if seen[-1].good else "--"
            first, last = ("-" if v is None else f"{v:.3g}" for v in (seen[-1].first, seen[-1].last))
            print(
                f"| {mark} | {seen[-1].model} | {first} | {last} | {seen[-1].cpu_seconds:.0f} | {seen[-1].told} |",
                flush=True,
            )
    print(json.dumps([asdict(one) for one in seen]))
    return 0 if all(one.good for one in seen) else 1


if __name__ == "__main__":
    sys.exit(main())
