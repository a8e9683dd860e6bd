"""One input in a process of its own, bounded in time and memory, and what came of it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inputs import Case
from oracle import differs

# Once, here: every child has it then, and none opens a session before it is one.
import onnxprune.api  # noqa: F401
from onnxprune.cli import main

#: Seconds of processor and of the clock, and bytes, for one input.
SECONDS, PATIENCE, BYTES = 40, 240, 2 << 30


@dataclass(frozen=True)
class Outcome:
    """``what``: verified, refused, or a finding; ``told``: the line that a user reads, or what is wrong."""

    what: str
    told: str

    @property
    def bad(self) -> bool:
        return self.what not in ("verified", "refused")


def run(case: Case, keep: Path) -> Outcome:
    """The files of a finding stay below ``keep``."""
    folder = Path(tempfile.mkdtemp(prefix="onnxprune-fuzz-"))
    try:
        line = case.write(folder)
        before = {path.name for path in folder.iterdir()}
        status = _in_child(lambda: _command(folder, line))
        outcome = _judged(folder, line, before, status)
        if outcome.bad:
            target = keep / f"{case.kind}-{case.seed}-{case.number}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target, ignore_dangling_symlinks=True)
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shrunk(case: Case, outcome: Outcome, keep: Path) -> tuple[Case, Outcome]:
    """The finding with as few of its changes as still make one of its kind."""
    for position in reversed(range(case.count)):
        fewer = case.without(position)
        found = run(fewer, keep)
        if found.what == outcome.what:
            case, outcome = fewer, found
    return case, outcome


def _judged(folder: Path, line: list[str], before: set[str], status: int) -> Outcome:
    text = (folder / "stderr").read_bytes().decode("utf-8", errors="replace")
    said = text.splitlines()
    told = said[-1] if said else ""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome("hung" if name in ("SIGXCPU", "SIGKILL") else "crashed", f"{name}, {told}")
    code = os.WEXITSTATUS(status)
    new = {path.name for path in folder.iterdir()} - before - {"stdout", "stderr", "__pycache__"}
    hidden = [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    if hidden:
        return Outcome("unescaped", repr("".join(hidden[:9])))
    if code == 0:
        if not any(arg.endswith("out.onnx") for arg in line):
            return Outcome("verified", "")
        wrong = (folder / "wrong").read_text() if (folder / "wrong").exists() else ""
        return Outcome("wrong", wrong) if wrong else Outcome("verified", "")
    if new:
        return Outcome("left over", ", ".join(sorted(new)))
    if code == 1 and told.startswith("onnxprune: error: the result failed verification"):
        return Outcome("failed verification", told)
    lines = [one for one in said if one.startswith("onnxprune: ")]
    if code != 2 or lines != said[-1:] or "unexpected" in told or "Traceback" in text:
        return Outcome("not one line", f"exit {code}: {told}")
    return Outcome("refused", told)


def _command(folder: Path, line: list[str]) -> int:
    """In the child: the command, and the oracle's word on what it wrote."""
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["ONNXPRUNE_LOOP_SECONDS"] = "1"
    code = main(line)
    if code == 0 and "plan.json" in line and line[0] != "apply":
        wrong = differs(Path(line[0]), Path("out.onnx"), Path("plan.json"))
        if wrong:
            Path("wrong").write_text(wrong)
    sys.stdout.flush()
    return code


def _in_child(work: Callable[[], int]) -> int:
    """Wait status of a child that does ``work``."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
            resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
