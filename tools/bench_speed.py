"""What a run costs: seconds per stage, peak memory, and how many plain passes of onnxruntime it is worth.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_speed.py --peers /path/to/peers/bin/python [--samples 256]

For each model the command line is run as a user would (``--macs 0.7``), and onnxruntime alone once over the same
calibration images, before and after it (the faster one counts; reading images is not part of it).  "work" is the same
ratio in processor seconds of all threads, which other processes do not disturb.  Beside it, what torch-pruning and
onnxsim take to cut the same model.  Then one small model over 64 … 4,096 samples: seconds must
grow linearly, memory not at all.  Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from baselines.peers import run_peer
from bench_latency import PEERS, Entry, Light, Place, source_of

from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.engine.session import Engine, open_session
from onnxprune.graph.load import load
from onnxprune.options import Options
from onnxprune.pipeline.setup import set_up, specs_of

MACS = "0.7"
BATCH = 8
GROWTH = (64, 128, 256, 512, 1024, 2048, 4096)
SMALL = Entry("ResNet-20", "cifar10/resnet20_bn.onnx", 1.0)
MODELS = (
    Entry("ResNet-18", "resnet18", 1.0),
    Entry("ResNet-50", "imagenet/resnet50_bn.onnx", 1.0),
    Entry("MobileNetV2", "imagenet/mobilenetv2.onnx", 1.0),
    Entry("EfficientNet-Lite0", "imagenet/efficientnet_lite0_bn.onnx", 1.0),
    Entry("VGG-16", "vgg16", 1.0),
)


@dataclass(frozen=True)
class Run:
    """One run: ``stages`` in seconds; ``plain``: seconds of onnxruntime alone over the same images; ``work`` and
    ``plain_work``: processor seconds of both."""

    model: str
    samples: int
    seconds: float
    stages: dict[str, float]
    gigabytes: float
    plain: float
    work: float
    plain_work: float
    peers: dict[str, float]

    @property
    def passes(self) -> float:
        return self.seconds / self.plain

    @property
    def work_passes(self) -> float:
        return self.work / self.plain_work


def plain_pass(path: Path, data: Path, samples: int, threads: int) -> tuple[float, float]:
    """(seconds, processor seconds) of onnxruntime over the images, in batches."""
    loaded = load(path)
    dataset = open_dataset(str(data), specs_of(loaded), Preprocess.named("imagenet"), samples, 0)
    session = open_session(loaded.proto, Engine(threads=threads))
    total = work = 0.0
    for feeds in dataset.batches(min(BATCH, dataset.batch_limit or BATCH)):
        start, worked = time.perf_counter(), time.process_time()
        session.run(None, dict(feeds))
        total, work = total + time.perf_counter() - start, work + time.process_time() - worked
    return total, work


def run(name: str, path: Path, data: Path, samples: int, threads: int, extra: Sequence[str]) -> Run:
    before = plain_pass(path, data, samples, threads)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "onnxprune", str(path), "--data", str(data), "--samples", str(samples),
            "--preprocess", "imagenet", "--macs", MACS, "--threads", str(threads), "-o", f"{folder}/out.onnx",
            "--json", "-q", *extra,
        ]  # fmt: skip
        worked = children()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        worked = children() - worked
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    plain, plain_work = (min(pair) for pair in zip(before, plain_pass(path, data, samples, threads), strict=True))
    stages = {stage: round(s, 2) for stage, s in found["seconds"].items() if stage != "total"}
    return Run(
        name, samples, found["seconds"]["total"], stages, found["peak_rss_bytes"] / 1e9, plain, worked, plain_work, {}
    )


def children() -> float:
    """Processor seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peer_seconds(path: Path, python: str, threads: int) -> dict[str, float]:
    """Seconds of one cut by each peer, its own search for the share of MACs included; those that fail are left out."""
    work = set_up(load(path), None, Options(samples=8, threads=threads))
    found = {}
    for name, peer in PEERS.items():
        start = time.perf_counter()
        try:
            run_peer(Light(path, work), peer, python, [float(MACS)])  # type: ignore[arg-type]
        except RuntimeError as error:
            print(f"{path.stem}, {name}: {error}", file=sys.stderr)
            continue
        found[name] = time.perf_counter() - start
    return found


def show(found: Run) -> None:
    stages = "  ".join(f"{stage} {seconds:.1f}" for stage, seconds in found.stages.items() if seconds >= 0.05)
    peers = "".join(f"  {name} {seconds:.0f} s" for name, seconds in found.peers.items())
    print(
        f"{found.model:20} {found.samples:5} images {found.seconds:7.1f} s = {found.passes:5.1f} passes of "
        f"{found.plain:6.1f} s, work {found.work_passes:5.1f}   {found.gigabytes:5.2f} GB   ({stages}){peers}",
        flush=True,
    )


def growth(assets: Path, sizes: Sequence[int], threads: int, extra: Sequence[str]) -> list[Run]:
    """The small model over ever more samples, repeated where the file has too few."""
    with tempfile.TemporaryDirectory() as folder:
        images = np.load(assets / "cifar10" / "calib.npz")["input"]
        data = Path(folder) / "many.npz"
        np.savez(data, input=np.concatenate([images] * -(-max(sizes) // len(images)))[: max(sizes)])
        found = []
        for samples in sizes:
            found.append(run(SMALL.name, assets / SMALL.source, data, samples, threads, extra))
            show(found[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--growth", type=int, nargs="*", default=list(GROWTH))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peers", default="", metavar="PYTHON", help="of an environment with the peers")
    parser.add_argument("--out", type=Path, default=Path("/tmp/bench_latency"), help="where exported models are kept")
    parser.add_argument("rest", nargs="*", help="further arguments for onnxprune, after --")
    arguments = parser.parse_args()
    assets = Path(os.environ["ONNXPRUNE_ASSETS"])
    runs: list[Run] = []
    for entry in MODELS:
        if not fnmatch.fnmatch(entry.name, arguments.only):
            continue
        place = Place(arguments.out / entry.name)
        place.folder.mkdir(parents=True, exist_ok=True)
        path = source_of(entry, place, arguments.peers)
        found = run(
            entry.name, path, assets / "imagenet" / "calib", arguments.samples, arguments.threads, arguments.rest
        )
        if arguments.peers:
            found = Run(**{**asdict(found), "peers": peer_seconds(path, arguments.peers, arguments.threads)})
        show(found)
        runs.append(found)
    if arguments.growth:
        runs += growth(assets, arguments.growth, arguments.threads, arguments.rest)
    print(json.dumps([asdict(r) | {"passes": r.passes, "work_passes": r.work_passes} for r in runs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
