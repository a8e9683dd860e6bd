"""Whatever fails while a result is written, at whatever call: the file that was there stands, or the whole new one."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hostile import plain

from onnxprune.cli import main
from onnxprune.errors import OutputError
from onnxprune.graph.load import load
from onnxprune.graph.save import save

QUICK = ["--macs", "0.8", "--samples", "4", "--effort", "fast", "--threads", "1", "-q"]
#: The system calls by which a file comes to be, as Python makes them.
CALLS = ("open", "fsync", "replace", "fchmod", "unlink")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of the system")


class _Killed(BaseException):
    """Stands for the end of the process: nobody catches it but what cleans up."""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], BaseException], at: int) -> list[str]:
    """Let the ``at``-th of the calls fail; the names of those that were made."""
    made: list[str] = []

    def wrapped(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            made.append(name)
            if len(made) - 1 == at:
                raise fail()
            return real(*arguments, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(name))
    return made


def loads(path: Path) -> int:
    """Channels of the first layer of the model that stands there, with its data."""
    loaded = load(path)
    onnx.checker.check_model(loaded.proto)
    return int(loaded.proto.graph.initializer[0].dims[0])


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EDQUOT, "killed"])
def test_a_fault_at_every_call_that_writes(external: bool, fault: int | str, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"

    def error() -> BaseException:
        return _Killed() if isinstance(fault, str) else OSError(fault, os.strerror(fault))

    at, stood = 0, set()
    while True:
        for left in tmp_path.iterdir():
            left.unlink()
        save(plain(width=16), path, external)
        with pytest.MonkeyPatch.context() as patch:
            made = failing(patch, error, at)
            try:
                save(plain(width=24), path, external)
                finished = True
            except (OutputError, _Killed, OSError):
                finished = False
        stood.add(loads(path))
        assert loads(path) in (16, 24)
        if finished:
            assert loads(path) == 24
        if at >= len(made):
            break
        at += 1
    assert at >= 3
    assert stood == {16, 24}


@linux
@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 20_000])
def test_a_file_that_may_not_grow(size: int) -> None:
    """``RLIMIT_FSIZE``: every write beyond fails, as on a full disk."""
    onnx.save(plain(width=64), "net.onnx")
    Path("net.pruned.onnx").write_bytes(b"older")
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "net.onnx", *QUICK, "--plan", "p.json", "--report", "r.html"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.count("onnxprune: error: ") == 1 and "unexpected" not in done.stderr
    assert Path("net.pruned.onnx").read_bytes() == b"older"
    assert sorted(os.listdir()) == ["net.onnx", "net.pruned.onnx"]


@linux
@pytest.mark.parametrize(("megabytes", "image", "code"), [(64, 8, {2}), (390, 8, {2}), (450, 192, {2}), (480, 8, {0, 2}), (520, 192, {0, 2}), (640, 192, {0, 2}), (3000, 8, {0})])
def test_address_space_that_ends(megabytes: int, image: int, code: set[int]) -> None:
    """``ulimit -v``: whatever library it meets, and wherever, is one line, and no file without its exit code."""
    onnx.save(plain(image=image), "net.onnx")
    line = [sys.executable, "-m", "onnxprune", "net.onnx", *QUICK[:2], "--samples", "32", *QUICK[4:]]
    most = megabytes << 20
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in code, done.stderr
    assert os.path.exists("net.pruned.onnx") == (done.returncode == 0)
    assert len(os.listdir()) == 1 + (done.returncode == 0)
    if done.returncode:
        assert done.stderr.count("\n") == 1 and "onnxprune: error: out of memory" in done.stderr, done.stderr


#: What writes temporary files.
TEMPORARY = {
    "activations": ["net.onnx", *QUICK],
    "a latency table": ["net.onnx", "--latency", "0.9", *QUICK[2:]],
    "times of operators": ["compare", "net.onnx", "net.onnx", "--per-op", "--samples", "2", "-q"],
}


@linux
@pytest.mark.parametrize("fault", ["no folder", "no room"])
@pytest.mark.parametrize("writer", TEMPORARY)
def test_temporary_files_that_cannot_be_written(
    writer: str, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(plain(), "net.onnx")
    monkeypatch.setattr("onnxprune.pipeline.setup.DEFAULT_MEMORY", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", os.getcwd())
    if fault == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000 if fault == "no room" else most, hard))
    try:
        code = main(TEMPORARY[writer])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "error: temporary files cannot be written in " in err and "set TMPDIR" in err
    assert os.listdir() == ["net.onnx"]


# -- the environment ---------------------------------------------------------------------------------------------------

PLACES: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that is not there": {"HOME": "/nonexistent", "XDG_CACHE_HOME": None},
    "no place for temporary files": {"TMPDIR": "/nonexistent"},
    "dumb terminal": {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "20", "LANG": "C", "LC_ALL": "C"},
}
NAMES = ["with space.onnx", "new\nline.onnx", "ünïcode–名.onnx", "-dash.onnx", "semi;colon$(touch x).onnx"]


@pytest.mark.parametrize("place", PLACES)
def test_environments(place: str) -> None:
    onnx.save(plain(), "net.onnx")
    environment = {**os.environ, **{k: v for k, v in PLACES[place].items() if v is not None}}
    for name, value in PLACES[place].items():
        if value is None:
            environment.pop(name, None)
    line = [sys.executable, "-m", "onnxprune", "net.onnx", *QUICK[:-1], "--report", "r.html"]
    done = subprocess.run(line, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert sorted(os.listdir()) == ["net.onnx", "net.pruned.onnx", "r.html"]


def test_modules_of_the_working_folder_are_not_imported() -> None:
    onnx.save(plain(), "net.onnx")
    for name in ("numpy", "onnx", "onnxruntime", "rich", "json", "PIL", "scipy"):
        Path(f"{name}.py").write_text("open('hacked', 'w')\nraise SystemExit(0)\n")
    tool = Path(sys.executable).with_name("onnxprune")
    line = [str(tool)] if tool.exists() else [sys.executable, "-P", "-m", "onnxprune"]
    if not tool.exists() and sys.version_info < (3, 11):
        pytest.skip("only an installed command leaves the working folder out")
    done = subprocess.run([*line, "net.onnx", *QUICK], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not os.path.exists("hacked")


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(plain(), f"./{name}")
    assert main([f"./{name}", *QUICK, "--plan", f"./{name}.json", "--report", f"./{name}.html"]) == 0
    small = name.removesuffix(".onnx") + ".pruned.onnx"
    assert sorted(os.listdir()) == sorted([name, small, f"{name}.json", f"{name}.html"])
    onnx.checker.check_model(f"./{small}")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of a POSIX system")
@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """Neither beside the model nor in the working folder; root itself gives up its right to ignore permissions."""
    locked = tmp_path / "locked"
    locked.mkdir()
    onnx.save(plain(), locked / "net.onnx")
    locked.chmod(0o500)
    rights = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    line = [*rights, sys.executable, "-m", "onnxprune", "net.onnx", *QUICK]
    try:
        done = subprocess.run(line, cwd=locked, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "net.pruned.onnx cannot be written" in done.stderr, done.stderr
        done = subprocess.run([*line, "-o", "../out.onnx"], cwd=locked, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(os.listdir(locked)) == ["net.onnx"] and os.path.exists("out.onnx")
    finally:
        locked.chmod(0o700)


def test_no_command_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor runs a program, nor evaluates anything that it reads."""
    onnx.save(plain(), "net.onnx")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("this must not be called")

    denied = [
        (module, name)
        for module, names in (
            (socket, ("socket", "create_connection", "getaddrinfo")),
            (os, ("system", "popen", "fork")),
        )
        for name in names
        if hasattr(module, name)
    ]
    for module, name in denied:
        monkeypatch.setattr(module, name, refused)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr("pickle.loads", refused)
    monkeypatch.setattr("pickle.load", refused)
    monkeypatch.setenv("XDG_CACHE_HOME", os.getcwd())
    assert main(["net.onnx", *QUICK, "--plan", "p.json", "--report", "r.html"]) == 0
    assert main(["inspect", "net.onnx", "--report", "i.html", "--layers", "l.json"]) == 0
    assert main(["why", "net.onnx", "conv0"]) == 0
    assert main(["compare", "net.onnx", "net.pruned.onnx", "--samples", "2", "--per-op"]) == 0
    assert main(["apply", "net.onnx", "p.json", "-q"]) == 0
    assert main(["completion", "bash"]) == 0
