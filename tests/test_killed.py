"""Killed, or out of room, at any moment of writing: what was there stands, or the whole of what is new."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import plain

from onnxprune.cli.files import write_text
from onnxprune.errors import OutputError
from onnxprune.graph.load import load
from onnxprune.graph.save import save
from onnxprune.latency import cache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, signals and limits of the system")
#: The system calls by which a file comes to be, as Python makes them; writes themselves are met by their size.
CALLS = ("open", "fsync", "replace", "fchmod", "unlink", "mkdir")


@dataclass(frozen=True)
class Output:
    """``write``: the first or second version to a path; ``read``: which one stands there.  Reading fails on others."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def _model(external: bool) -> Output:
    return Output(
        lambda path, version: save(plain(width=16 + 8 * version), path, external),
        lambda path: int(load(path).proto.graph.initializer[0].dims[0]) // 8 - 2,
    )


def _text(version: int) -> str:
    return json.dumps([version] * 3000)


def _document(version: int) -> dict[str, object]:
    base = {"onnxprune_latency_table": 1, "device": "d" * 5000, "runtime": "r", "threads": version, "block": 1, "align": 1}
    return base | {"unaligned": 1.0, "per_byte": 1e-9, "per_mac": 1e-9, "layers": {"k": [[1, 1, 1e-3]]}}


OUTPUTS = {
    "model": _model(False),
    "model and its data": _model(True),
    "plan, report or layers": Output(
        lambda path, version: write_text(path, _text(version)),
        lambda path: [_text(0), _text(1)].index(path.read_text()),
    ),
    "cache": Output(
        lambda path, version: cache._write(path, _document(version)),  # type: ignore[arg-type]
        lambda path: [_document(0), _document(1)].index(json.loads(path.read_text())),
    ),
}


def in_child(work: Callable[[], object]) -> int:
    """Wait status of a child that does ``work``; 0 where it came to its end, 256 where it failed as files may."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            work()
            code = 0
        except (OutputError, OSError):
            code = 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def dying(at: int) -> None:
    """Let this process be killed at the ``at``-th of the calls, before it or, for odd ``at``, right after it."""
    made = 0

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal made
            made += 1
            if made - 1 == at // 2:
                try:
                    if at % 2:
                        real(*arguments, **named)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def limited(size: int, deadly: bool) -> None:
    """No file may grow beyond ``size``: the write that would fails, or kills the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("older", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_killed_at_every_call(kind: str, older: bool, tmp_path: Path) -> None:
    output, path, at, stood = OUTPUTS[kind], tmp_path / "out", 0, set()
    while True:
        for left in tmp_path.iterdir():
            left.unlink()
        if older:
            output.write(path, 0)

        def work(at: int = at) -> None:
            dying(at)
            output.write(path, 1)

        status = in_child(work)
        version = output.read(path) if path.exists() else None
        stood.add(version)
        # Two files cannot be replaced at one moment: the model is absent meanwhile, and never beside others' data.
        assert version in {0 if older else None, 1, *([None] if kind == "model and its data" else [])}
        if status == 0:
            assert version == 1
            break
        assert os.WIFSIGNALED(status)
        # Whatever else is left shows by its name what it is.
        rest = {left.name for left in tmp_path.iterdir()} - {"out", "out.data"}
        assert all(name.endswith(".part") for name in rest)
        at += 1
    assert at >= 4 and stood >= ({0, 1} if older else {None, 1})


@pytest.mark.parametrize("deadly", [True, False], ids=["killed", "refused"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_out_of_room_at_every_size(kind: str, deadly: bool, tmp_path: Path) -> None:
    output, path = OUTPUTS[kind], tmp_path / "out"
    output.write(path, 1)
    whole = max(file.stat().st_size for file in tmp_path.iterdir())
    ends = set()
    for size in (0, 1, 100, 1023, 1024, 4095, 4096, whole // 2, whole - 1, whole):
        for left in tmp_path.iterdir():
            left.unlink()
        output.write(path, 0)
        before = sorted(file.name for file in tmp_path.iterdir())

        def work(size: int = size) -> None:
            limited(size, deadly)
            output.write(path, 1)

        status = in_child(work)
        ends.add(status)
        assert output.read(path) == int(size >= whole)
        if not deadly:
            # The cache goes without, and tells nobody.
            assert os.WEXITSTATUS(status) == int(size < whole and kind != "cache")
            assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (signal.SIGXFSZ in {s & 127 for s in ends}) == deadly
