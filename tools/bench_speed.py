"""What a run costs: processor seconds and passes per stage, and peak memory.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_speed.py [--only GLOB] [--samples 256] [--effort default]

A pass is the same images through the original in plain onnxruntime, with the same threads, in the same process: the
faster of one before and one after the run.  Processor seconds count all threads, so that other processes of the
machine disturb them little.  Models that the assets do not hold are listed as skipped.  ``--growth 64 256 1024`` then
runs one small model over ever more samples: seconds must grow linearly, memory not at all.  ``--workers 2`` compares
wall-clock seconds of one process with those of 2 workers, and says whether both write the same file.  Its memory is that
of the first process alone.  Prints a line per stage and model, and one JSON line.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.engine.session import Engine, open_session
from onnxprune.graph.load import load
from onnxprune.pipeline.setup import specs_of
from onnxprune.progress import Silent

BATCH = 8


@dataclass(frozen=True)
class Row:
    """One model of the table: where its file and its images are, how these are fed, and the share of MACs kept."""

    name: str
    source: str
    data: str = "imagenet/calib"
    preprocess: str = "imagenet"
    macs: float = 0.7


CIFAR = "cifar10/calib.npz"
ROWS = (
    Row("ResNet-18", "imagenet/resnet18.onnx"),
    Row("ResNet-50", "imagenet/resnet50_bn.onnx", preprocess="caffe", macs=0.58),
    Row("EfficientNet-Lite0", "imagenet/efficientnet_lite0_bn.onnx"),
    Row("VGG-16", "imagenet/vgg16.onnx"),
    Row("NanoDet", "zoo/nanodet_m.onnx", macs=0.8),
    Row("YOLOv8n", "zoo/nudenet_yolov8n.onnx", preprocess="unit", macs=0.8),
    Row("ViT", "zoo/vit_pgd_2_3_16.onnx", CIFAR, macs=0.8),
    Row("VGG-16, 32 pixels", "cifar10/vgg16_bn.onnx", CIFAR, macs=0.5),
    Row("ResNet-56, 32 pixels", "cifar10/resnet56_bn.onnx", CIFAR, macs=0.5),
)
SMALL = Row("ResNet-20, 32 pixels", "cifar10/resnet20_bn.onnx", CIFAR, macs=0.5)


@dataclass
class Stages(Silent):
    """Progress that takes the seconds of ``clock`` by stage."""

    clock: Callable[[], float] = time.process_time
    seconds: dict[str, float] = field(default_factory=dict)
    name: str = "set up"
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def stage(self, name: str, steps: int | None, turn: int = 1, turns: int = 1) -> None:
        now = self.clock()
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self.since
        self.name, self.since = name, now


@dataclass(frozen=True)
class Task:
    """What one child process is asked to measure.  ``clock``: a name in the module ``time``."""

    model: str
    data: str
    preprocess: str
    macs: float
    samples: int
    effort: str
    threads: int
    clock: str = "process_time"
    workers: int = 0


@dataclass(frozen=True)
class Cost:
    """Seconds by stage and of one plain pass.  ``drop``: what the run reported.  ``digest``: a checksum of its model."""

    name: str
    samples: int
    stages: dict[str, float]
    plain: float
    gigabytes: float
    drop: float
    digest: str

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())

    @property
    def passes(self) -> float:
        return self.seconds / self.plain


def measure(task: Task) -> dict[str, object]:
    """Run ``task`` in this process, between two plain passes."""
    preprocess = Preprocess.named(task.preprocess)
    loaded = load(Path(task.model))
    dataset = open_dataset(task.data, specs_of(loaded), preprocess, task.samples, 0)
    session = open_session(loaded.proto, Engine(threads=task.threads))

    clock: Callable[[], float] = getattr(time, task.clock)

    def plain() -> float:
        total = 0.0
        for feeds in dataset.batches(min(BATCH, dataset.batch_limit or BATCH)):
            start = clock()
            session.run(None, dict(feeds))
            total += clock() - start
        return total

    before, stages = plain(), Stages(clock)
    result = onnxprune.prune(
        task.model,
        task.data,
        macs=task.macs,
        samples=task.samples,
        preprocess=preprocess,
        effort=task.effort,
        threads=task.threads,
        workers=task.workers,
        round_to=8,
        progress=stages,
    )
    stages.stage("end", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    drop = result.report.drop.value if result.report.drop is not None else 0.0
    digest = hashlib.sha256(result.model.SerializeToString(deterministic=True)).hexdigest()[:12]
    return {
        "stages": stages.seconds,
        "plain": min(before, plain()),
        "gigabytes": peak / 1e9,
        "drop": drop,
        "digest": digest,
    }


def task_of(row: Row, assets: Path, data: Path, arguments: argparse.Namespace, samples: int) -> Task:
    return Task(
        str(assets / row.source), str(data), row.preprocess, row.macs, samples, arguments.effort, arguments.threads
    )


def run(name: str, task: Task) -> Cost:
    command = [sys.executable, __file__, "--child", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()}")
    return Cost(name, task.samples, **json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, task: Task, workers: int) -> list[Cost]:
    """Wall-clock seconds of ``task`` in one process and with ``workers``."""
    task = replace(task, clock="perf_counter")
    alone = run(name, task)
    spread = run(f"{name}, {workers} workers", replace(task, workers=workers))
    print(f"{name:22} {task.samples:5} images       1 process   {workers} workers")
    for stage in {**alone.stages, **spread.stages}:
        print(f"    {stage:14} {alone.stages.get(stage, 0.0):25.1f} s {spread.stages.get(stage, 0.0):9.1f} s")
    same = "same file" if alone.digest == spread.digest else "ANOTHER FILE"
    ratio = alone.seconds / spread.seconds
    print(f"    {'all':14} {alone.seconds:25.1f} s {spread.seconds:9.1f} s, {ratio:.2f} times as fast, {same}")
    return [alone, spread]


def show(cost: Cost) -> None:
    print(
        f"{cost.name:22} {cost.samples:5} images {cost.seconds:7.1f} s = {cost.passes:6.1f} passes of {cost.plain:.2f} s, "
        f"{cost.gigabytes:.2f} GB, drop {cost.drop:.4f}"
    )
    for stage, seconds in cost.stages.items():
        print(f"    {stage:14} {seconds:7.1f} s = {seconds / cost.plain:6.1f} passes")
    sys.stdout.flush()


def growth(assets: Path, sizes: Sequence[int], arguments: argparse.Namespace) -> list[Cost]:
    """The small model over ever more samples, repeated where the file has too few."""
    with tempfile.TemporaryDirectory() as folder:
        images = np.load(assets / SMALL.data)["input"]
        data = Path(folder) / "many.npz"
        np.savez(data, input=np.concatenate([images] * -(-max(sizes) // len(images)))[: max(sizes)])
        found = []
        for samples in sizes:
            found.append(run(SMALL.name, task_of(SMALL, assets, data, arguments, samples)))
            show(found[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--effort", default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--growth", type=int, nargs="*", default=[])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(Task(**json.loads(arguments.child)))))
        return 0
    assets = Path(os.environ["ONNXPRUNE_ASSETS"])
    costs: list[Cost] = []
    for row in ROWS:
        if not fnmatch.fnmatch(row.name, arguments.only):
            continue
        if not (assets / row.source).exists():
            print(f"{row.name:22} skipped: the assets have no {row.source}")
            continue
        task = task_of(row, assets, assets / row.data, arguments, arguments.samples)
        if arguments.workers:
            costs += compare(row.name, task, arguments.workers)
        else:
            costs.append(run(row.name, task))
            show(costs[-1])
    if arguments.growth:
        costs += growth(assets, arguments.growth, arguments)
    print(json.dumps([asdict(cost) | {"passes": cost.passes} for cost in costs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
