"""How much faster cuts of the same MACs are: onnxprune's, torch-pruning's and onnxsim's, on onnxruntime and OpenVINO.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_latency.py --peers /path/to/peers/bin/python

Only speed is measured, so models are cut on a few synthetic samples and nothing is refitted.  Speeds are paired
(see onnxprune/latency/stopwatch.py).  Models are kept in ``--out``; those that are there already are not cut again.
Prints a table and one JSON line; exit code 1 where a goal is missed: never below 1.0 times; from 0.7 of the MACs
down, 0.85 / kept for dense and 0.7 / kept for depthwise models; a latency of 0.6 lands at 0.63 at most.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from baselines.peers import Peer, run_peer

from onnxprune.engine.session import Engine
from onnxprune.errors import OnnxPruneError
from onnxprune.graph.load import load
from onnxprune.latency.stopwatch import compare_latency
from onnxprune.options import Options
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.evaluator import evaluator_for
from onnxprune.pipeline.pricing import Pricing, price
from onnxprune.pipeline.ranking import rank
from onnxprune.pipeline.search.find import find
from onnxprune.pipeline.setup import Context, set_up
from onnxprune.progress import Silent
from onnxprune.target import Budget

SHAPE = (1, 3, 224, 224)
KEPT = (0.95, 0.9, 0.8, 0.7, 0.5)
LATENCY, LANDED = 0.6, 0.63
PEERS = {
    "torch-pruning": Peer("peer_torch_pruning.py", {"importance": "l2", "global": False}, (True,)),
    "onnxsim": Peer("peer_onnxsim.py", {"method": "l2", "global": False}, (True,)),
}


@dataclass(frozen=True)
class Entry:
    """``source``: a file of the assets, or a model of torchvision; ``share``: of 1/kept that speed should reach."""

    name: str
    source: str
    share: float


DENSE, DEPTHWISE = 0.85, 0.7
MODELS = (
    Entry("MobileNetV2", "imagenet/mobilenetv2.onnx", DEPTHWISE),
    Entry("EfficientNet-Lite0", "imagenet/efficientnet_lite0_bn.onnx", DEPTHWISE),
    Entry("ResNet-18", "resnet18", DENSE),
    Entry("ResNet-50", "imagenet/resnet50_bn.onnx", DENSE),
    Entry("VGG-16", "vgg16", DENSE),
    Entry("SqueezeNet", "squeezenet1_1", DENSE),
)


@dataclass(frozen=True)
class Cell:
    """Speed of cuts of one model to one share of its MACs, times the original's; None where there is no cut."""

    model: str
    kept: float
    goal: float
    ours: float | None
    openvino: float | None
    torch_pruning: float | None
    onnxsim: float | None

    @property
    def met(self) -> bool:
        return self.ours is not None and self.ours >= self.goal


@dataclass(frozen=True, eq=False)
class Light:
    """As much of a workbench as :func:`run_peer` asks for."""

    path: Path
    work: Context


@dataclass(frozen=True)
class Place:
    """Where the models of one entry are: ``file(maker, what)``."""

    folder: Path

    def file(self, maker: str, what: object) -> Path:
        return self.folder / f"{maker} {what}.onnx"


def source_of(entry: Entry, place: Place, python: str) -> Path:
    if entry.source.endswith(".onnx"):
        return Path(os.environ["ONNXPRUNE_ASSETS"]) / entry.source
    target = place.file("original", entry.source)
    if not target.exists():
        script = Path(__file__).parent / "baselines" / "export_torchvision.py"
        subprocess.run([python, str(script), entry.source, str(target)], check=True, capture_output=True)
    return target


def cut_ours(path: Path, place: Place, kept: Sequence[float], engine: Engine, samples: int) -> None:
    """Cuts for every share of MACs, and one for the latency; only those that are missing."""
    jobs = [Budget("macs", k) for k in kept if not place.file("onnxprune", k).exists()]
    jobs += [Budget("latency", LATENCY)] if not place.file("onnxprune", "latency").exists() else []
    options = Options(samples=samples, refit="none", threads=engine.threads)
    if not jobs:
        return
    work = set_up(load(path), None, options)
    grams = calibrate(work, options, Silent())
    rankings = rank(work, options, grams, Silent())
    known: dict[bool, tuple[Pricing, ...]] = {}
    for budget in jobs:
        asked = replace(options, budgets=(budget,))
        timed = budget.kind == "latency"
        if timed not in known:
            known[timed] = price(work, asked, rankings, grams, Silent())
        try:
            found = find(work, known[timed], evaluator_for(work, asked), asked, Silent())
        except OnnxPruneError as error:
            print(f"{path.stem} {budget.describe()}: {error}", file=sys.stderr)
            continue
        onnx.save(found.candidate.model, place.file("onnxprune", "latency" if timed else budget.value))


def cut_peers(path: Path, place: Place, kept: Sequence[float], python: str, engine: Engine) -> None:
    work = set_up(load(path), None, Options(samples=8, threads=engine.threads))
    for name, peer in PEERS.items():
        if place.file(name, "whole").exists():
            continue
        try:
            outcome = run_peer(Light(path, work), peer, python, kept)  # type: ignore[arg-type]
        except RuntimeError as error:
            print(f"{path.stem}, {name}: {error}", file=sys.stderr)
            continue
        for fraction, models in outcome.models.items():
            for model in models.values():
                onnx.save(model, place.file(name, fraction))
        onnx.save(outcome.whole, place.file(name, "whole"))


def speed(before: Path, after: Path, engine: Engine) -> float | None:
    """Times as fast as before; None where there is no such model, or it does not run."""
    if not (before.exists() and after.exists()):
        return None
    try:
        first, second = (load(path).proto for path in (before, after))
        feeds = {first.graph.input[0].name: np.random.default_rng(0).random(SHAPE, dtype=np.float32)}
        return 1 / compare_latency(first, second, feeds, engine)[0].ratio
    except OnnxPruneError as error:
        print(f"{after}: {error}", file=sys.stderr)
        return None


def openvino_speeds(pairs: Sequence[tuple[Path, Path]], python: str, engine: Engine) -> list[float]:
    script = Path(__file__).parent / "baselines" / "time_openvino.py"
    job = {"pairs": [[str(p) for p in pair] for pair in pairs], "shape": SHAPE, "threads": engine.cores()}
    done = subprocess.run([python, str(script), json.dumps(job)], check=True, capture_output=True, text=True)
    return [float(s) for s in json.loads(done.stdout.splitlines()[-1])]


def measured(entry: Entry, path: Path, place: Place, kept: Sequence[float], python: str, engine: Engine) -> list[Cell]:
    """The cells of one model; the last one, at ``LATENCY``, stands for the budget in latency."""
    mine = {k: place.file("onnxprune", k) for k in kept} | {LATENCY: place.file("onnxprune", "latency")}
    there = [k for k, file in mine.items() if file.exists()]
    under = (
        dict(zip(there, openvino_speeds([(path, mine[k]) for k in there], python, engine), strict=True))
        if python
        else {}
    )
    cells = []
    for k, file in mine.items():
        goal = 1 / LANDED if k == LATENCY else max(1.0, entry.share / k) if k <= 0.7 else 1.0
        others = [
            speed(place.file(name, "whole"), place.file(name, k), engine) if k != LATENCY else None for name in PEERS
        ]
        cells.append(Cell(entry.name, k, goal, speed(path, file, engine), under.get(k), *others))
    return cells


def show(cells: Sequence[Cell]) -> None:
    def number(value: float | None) -> str:
        return f"{value:6.2f}x" if value is not None else "      –"

    for cell in cells:
        what = f"latency {cell.kept}" if cell.kept == LATENCY else f"MACs {cell.kept}"
        print(
            f"{cell.model:20} {what:12} {number(cell.ours)} {'ok    ' if cell.met else 'MISSED'} (goal {cell.goal:.2f}x)"
            f"   OpenVINO {number(cell.openvino)}   torch-pruning {number(cell.torch_pruning)}"
            f"   onnxsim {number(cell.onnxsim)}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--kept", type=float, nargs="+", default=list(KEPT))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--peers", default="", metavar="PYTHON", help="of an environment with the peers and OpenVINO")
    parser.add_argument("--out", type=Path, default=Path("/tmp/bench_latency"))
    arguments = parser.parse_args()
    engine = Engine(threads=arguments.threads)
    cells: list[Cell] = []
    for entry in MODELS:
        if not fnmatch.fnmatch(entry.name, arguments.only):
            continue
        place = Place(arguments.out / entry.name)
        place.folder.mkdir(parents=True, exist_ok=True)
        path = source_of(entry, place, arguments.peers)
        cut_ours(path, place, arguments.kept, engine, arguments.samples)
        if arguments.peers:
            cut_peers(path, place, arguments.kept, arguments.peers, engine)
        found = measured(entry, path, place, arguments.kept, arguments.peers, engine)
        show(found)
        cells += found
    print(json.dumps([asdict(cell) for cell in cells]))
    return 0 if all(cell.met for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
