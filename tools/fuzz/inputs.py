"""Inputs that are nearly right: what stands for one, and how it is written down."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import files
import numpy as np

import models

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
QUICK = ["--samples", "4", "--effort", "fast", "--threads", "1", "--refit", "none", "-q"]
#: Of how many seeds random graphs are taken.
GRAPHS = 24

Change = Callable[[np.random.Generator, bytes], tuple[bytes, str]]


@dataclass(frozen=True)
class Case:
    """Input ``number`` of its kind; ``left_out``: changes of it that are not made."""

    kind: str
    seed: int
    number: int
    bases: Mapping[str, bytes]
    left_out: frozenset[int] = frozenset()

    @cached_property
    def _plan(self) -> tuple[int, int, tuple[int, ...]]:
        draw = np.random.default_rng([self.seed, self.number, sum(self.kind.encode())])
        # One is what most checks are about; more meet in places that nobody thought of.
        count = int(draw.choice([1, 1, 1, 2, 3]))
        return int(draw.integers(1 << 30)), count, tuple(int(s) for s in draw.integers(1 << 30, size=count))

    @property
    def count(self) -> int:
        return self._plan[1]

    def without(self, position: int) -> Case:
        return replace(self, left_out=self.left_out | {position})

    def content(self) -> tuple[bytes, list[str]]:
        """The input, and what was changed in it."""
        which, _, seeds = self._plan
        content, said = KINDS[self.kind].base(which, self.bases)
        told = [f"from {said}"]
        for position, seed in enumerate(seeds):
            if position not in self.left_out:
                content, what = KINDS[self.kind].change(np.random.default_rng(seed), content)
                told.append(what)
        return content, told

    def told(self) -> list[str]:
        return self.content()[1]

    def write(self, folder: Path) -> list[str]:
        """The command that reads it."""
        return KINDS[self.kind].write(folder, self.content()[0], self.bases, self._plan[0])


@dataclass(frozen=True)
class Kind:
    """``base``: something right; ``change``: one mutation; ``write``: into a folder, giving the command line."""

    base: Callable[[int, Mapping[str, bytes]], tuple[bytes, str]]
    change: Change
    write: Callable[[Path, bytes, Mapping[str, bytes], int], list[str]]


def bases() -> dict[str, bytes]:
    """Models by name, made in a process of its own: running some of them would start threads in this one."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "bases"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                target.write_bytes(pickle.dumps(models.bases(ROOT, GRAPHS)))
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the models to begin with cannot be made")
        found: dict[str, bytes] = pickle.loads(target.read_bytes())
    return found


def _model_base(which: int, known: Mapping[str, bytes]) -> tuple[bytes, str]:
    # Small models end sooner, and more of what is in them can be changed.
    names = [name for name in known if name != "demo"] * 4 + ["demo"] + ["plain"] * 40
    name = names[which % len(names)]
    return known[name], name


def _write_model(folder: Path, content: bytes, known: Mapping[str, bytes], which: int) -> list[str]:
    (folder / "net.onnx").write_bytes(content)
    if which % 4 == 0:
        return ["inspect", "net.onnx", "-q"]
    return ["net.onnx", "-o", "out.onnx", "--plan", "plan.json", "--macs", "0.7", *QUICK]


def _beside(name: str, line: list[str]) -> Callable[[Path, bytes, Mapping[str, bytes], int], list[str]]:
    """The input in a file of this ``name`` beside a sound model."""

    def write(folder: Path, content: bytes, known: Mapping[str, bytes], which: int) -> list[str]:
        (folder / "net.onnx").write_bytes(known["plain"])
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
        return line

    return write


PRUNE = ["net.onnx", "-o", "out.onnx", "--plan", "plan.json", "--macs", "0.7", *QUICK]
KINDS: dict[str, Kind] = {
    "model": Kind(_model_base, models.change, _write_model),
    "bytes": Kind(_model_base, files.change_bytes, _write_model),
    "plan": Kind(
        lambda which, known: (known["plan"], "a plan"),
        files.change_json,
        _beside("p.json", ["apply", "net.onnx", "p.json", "-o", "out.onnx", "-q"]),
    ),
    "npz": Kind(files.npz, files.change_array, _beside("d.npz", [*PRUNE, "--data", "d.npz"])),
    "npy": Kind(files.npy, files.change_array, _beside("d.npy", [*PRUNE, "--data", "d.npy"])),
    "image": Kind(files.image, files.change_bytes, _beside("photos/a.png", [*PRUNE, "--data", "photos"])),
    "table": Kind(
        lambda which, known: (known["table"], "a table"),
        files.change_json,
        _beside("t.json", ["net.onnx", "-o", "out.onnx", "--macs", "0.7", "--latency-table", "t.json", *QUICK]),
    ),
    "cache": Kind(lambda which, known: (known["wide table"], "a cache"), files.change_json, files.write_cache),
}
