"""Prune every model of the assets' table ``main`` and print what became of it.

    ONNXPRUNE_ASSETS=/path/to/assets python tools/bench_main.py [--macs 0.7] [--only GLOB] [--samples N]

Runs the command line, as a user would, one model after the other; prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

CIFAR, IMAGENET = ("cifar10/calib.npz", "cifar10/test.npz"), ("imagenet/calib", "imagenet/test")
LITE = ["raw", "--mean", "127", "--std", "128"]


@dataclass(frozen=True)
class Entry:
    """A model of the table, its data (calibration, test) and its ``--preprocess`` arguments."""

    model: str
    data: tuple[str, str]
    preprocess: list[str]


MODELS = (
    Entry("cifar10/resnet20_bn.onnx", CIFAR, ["imagenet"]),
    Entry("cifar10/resnet20_folded.onnx", CIFAR, ["imagenet"]),
    Entry("cifar10/resnet20_zero_channels.onnx", CIFAR, ["symmetric"]),
    Entry("cifar10/resnet56_bn.onnx", CIFAR, ["imagenet"]),
    Entry("cifar10/resnet56_folded.onnx", CIFAR, ["imagenet"]),
    Entry("cifar10/vgg16_bn.onnx", CIFAR, ["imagenet"]),
    Entry("cifar10/googlenet_s_bn.onnx", CIFAR, ["imagenet"]),
    Entry("imagenet/mobilenetv2.onnx", IMAGENET, ["symmetric"]),
    Entry("imagenet/efficientnet_lite0_bn.onnx", IMAGENET, LITE),
    Entry("imagenet/resnet50_bn.onnx", IMAGENET, ["caffe"]),
)


@dataclass(frozen=True)
class Row:
    """One run; ``error`` is the tool's own last line where it failed."""

    model: str
    macs: float
    top1_before: float
    top1_after: float
    drop: float
    latency: float
    masked: float
    seconds: float
    gigabytes: float
    error: str = ""


def prune(entry: Entry, assets: Path, extra: list[str]) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "onnxprune", str(assets / entry.model), "--data", str(assets / entry.data[0]),
            "--test", str(assets / entry.data[1]), "--preprocess", *entry.preprocess,
            "-o", str(Path(folder) / "out.onnx"), "--json", *extra,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        nan = float("nan")
        return Row(entry.model, nan, nan, nan, nan, nan, nan, nan, nan, done.stderr.strip().splitlines()[-1])
    found = json.loads(done.stdout)
    accuracy = found["accuracy"] or {"before": float("nan"), "after": float("nan")}
    latency = found["latency_ms"] or {"before": 1.0, "after": float("nan")}
    return Row(
        entry.model,
        found["macs"]["after"] / found["macs"]["before"],
        accuracy["before"],
        accuracy["after"],
        found["drop"]["value"],
        latency["before"] / latency["after"],
        found["verify"]["masked_max_rel_err"],
        found["seconds"]["total"],
        found["peak_rss_bytes"] / 1e9,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", default="0.7")
    parser.add_argument("--samples", default="", help="calibration samples; left out, as many as the tool takes")
    parser.add_argument("--only", default="*")
    parser.add_argument("rest", nargs="*", help="further arguments for onnxprune, after --")
    arguments = parser.parse_args()
    assets = Path(os.environ.get("ONNXPRUNE_ASSETS", "../shared/assets"))
    print(
        f"{'model':38} {'MACs':>6} {'before':>7} {'after':>7} {'drop':>6} {'speed':>6} {'masked':>8} {'s':>5} {'GB':>5}"
    )
    rows = []
    for entry in MODELS:
        if not fnmatch.fnmatch(entry.model, arguments.only):
            continue
        samples = ["--samples", arguments.samples] if arguments.samples else []
        row = prune(entry, assets, ["--macs", arguments.macs, *samples, *arguments.rest])
        rows.append(row)
        print(
            f"{row.model:38} {row.macs:6.3f} {row.top1_before:7.2%} {row.top1_after:7.2%} {row.drop:6.1%} "
            f"{row.latency:5.2f}x {row.masked:8.1e} {row.seconds:5.0f} {row.gigabytes:5.2f} {row.error}",
            flush=True,
        )
    print(json.dumps([asdict(row) for row in rows]))
    return 1 if any(row.error for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
