"""Other tools, run in an environment of their own, one process per method and model."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from baselines.workbench import Workbench

Array = np.ndarray
HERE = Path(__file__).parent
#: Nodes of this name stand for the channel pad of an identity shortcut; they do not count as MACs.
PAD_NODE = "channel_pad_as_conv"


@dataclass(frozen=True)
class Peer:
    """``script`` in this folder, and the settings that it is given; ``scopes``: with residual streams, without."""

    script: str
    settings: Mapping[str, object]
    scopes: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """``whole``: the model as the tool prepared it, not cut; ``models`` per kept fraction, none where the tool
    cannot reach it; ``said``: what it was off by."""

    whole: onnx.ModelProto
    models: Mapping[float, Mapping[str, onnx.ModelProto]]
    said: Mapping[float, str]


def run_peer(bench: Workbench, peer: Peer, python: str, kept: Sequence[float]) -> Outcome:
    """Run the tool for all ``kept`` fractions.

    Raises:
        RuntimeError: with the tool's last words, where it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, whole = folder / "images.npz", folder / "whole.onnx"
        feeds = bench.work.fit.fetch(range(bench.work.fit.count))
        np.savez(data, images=next(iter(feeds.values())))
        jobs: list[dict[str, object]] = [
            {"kept": k, "streams": streams, "file": str(folder / f"{k}-{streams}.onnx")}
            for k in kept
            for streams in peer.scopes
        ]
        settings = {
            "model": str(bench.path), "data": str(data), "input": next(iter(feeds)), "whole": str(whole),
            "jobs": jobs, "threads": bench.work.engine.cores(), "pad_node": PAD_NODE, **peer.settings,
        }  # fmt: skip
        command = [python, str(HERE / peer.script), json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        models: dict[float, dict[str, onnx.ModelProto]] = {k: {} for k in kept}
        said = dict.fromkeys(kept, "")
        for job, reached in zip(jobs, json.loads(done.stdout.splitlines()[-1]), strict=True):
            fraction, file = float(str(job["kept"])), Path(str(job["file"]))
            if file.exists():
                models[fraction]["all groups" if job["streams"] else "without streams"] = onnx.load(file)
            else:
                said[fraction] += f" {reached:.3f} is the nearest it comes to."
        return Outcome(onnx.load(whole), models, said)


def channels_of(whole: onnx.ModelProto, pruned: onnx.ModelProto) -> dict[str, Array]:
    """Which channels of ``whole`` each Conv output of ``pruned`` holds, by the bits of their constants.

    The tools keep names, order and values; a Conv without per-channel constants, or with others than the
    original's, is left out.
    """
    before, after = _constants(whole), _constants(pruned)
    found: dict[str, Array] = {}
    for output in before.keys() & after.keys():
        places: list[int] = []
        for row in after[output]:
            start = places[-1] + 1 if places else 0
            hits = np.flatnonzero((before[output][start:] == row).all(axis=1))
            if not len(hits):
                break
            places.append(start + int(hits[0]))
        if len(places) == len(after[output]):
            found[output] = np.asarray(places)
    return found


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Per Conv output, one row per channel: its BatchNormalization's constants, or its bias."""
    values = {t.name: t for t in model.graph.initializer}
    norms = {n.input[0]: n for n in model.graph.node if n.op_type == "BatchNormalization"}
    found: dict[str, Array] = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        norm = norms.get(node.output[0])
        names = list(norm.input[1:]) if norm is not None else list(node.input[2:])
        if names and all(name in values for name in names):
            found[node.output[0]] = np.stack([numpy_helper.to_array(values[name]) for name in names], axis=1)
    return found
