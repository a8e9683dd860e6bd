"""Exit codes tell the truth whatever becomes of stdout and stderr, and signals end a run as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from graphs import Sketch

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="no /dev/full")
#: What stands for each command: does a file hold its result, so that nobody has to read about it?
COMMANDS = {
    "prune": ("net.onnx --macs 0.7 --samples 4 --effort fast --threads 1", True),
    "inspect": ("inspect net.onnx", False),
    "completion": ("completion bash", False),
    "help": ("prune --help", False),
    "version": ("--version", False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    found = tmp_path_factory.mktemp("streams")
    s = Sketch()
    c = s.op("Relu", s.op("Conv", s.input("x", [1, 3, 8, 8]), s.weight(16, 3, 3, 3), name="c1"))
    c = s.op("Conv", c, s.weight(8, 16, 3, 3), name="c2")
    s.output(s.op("Flatten", s.op("GlobalAveragePool", c)), [1, 8])
    onnx.save(s.model(), found / "net.onnx")
    return found


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run by bash, whose own exit code is that of onnxprune wherever it stands in the pipe."""
    for left in folder.glob("*.pruned.onnx"):
        left.unlink()
    command = f'set -o pipefail; onnxprune() {{ {sys.executable} -m onnxprune "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "net.onnx")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_leaves_is_a_failure_unless_a_file_stands(folder: Path, name: str) -> None:
    line, writes = COMMANDS[name]
    done = shell(folder, f"onnxprune {line} | true")
    assert done.returncode == (0 if writes else 141)
    assert "Traceback" not in done.stderr and "onnxprune: error" not in done.stderr
    assert bool(results(folder)) == writes


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("sink", [pytest.param(f">{FULL}", marks=needs_full), ">&-"])
def test_results_that_cannot_be_written_are_one_line_and_two(folder: Path, name: str, sink: str) -> None:
    line, writes = COMMANDS[name]
    done = shell(folder, f"onnxprune {line} {sink}")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith("onnxprune: error: cannot write to stdout: ") and "Traceback" not in done.stderr
    assert bool(results(folder)) == writes
    # What was written is named, so that nobody takes it for lost.
    assert ("the model itself is in net." in last) == writes


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("sink", [pytest.param(f"2>{FULL}", marks=needs_full), "2>&-", "2> >(true)"])
def test_notes_that_nobody_hears_change_nothing(folder: Path, name: str, sink: str) -> None:
    line, writes = COMMANDS[name]
    if writes and sink == "2>&-":
        pytest.skip("seconds each: a full device and a broken pipe are tried")
    done = shell(folder, f"onnxprune {line} {sink}")
    assert done.returncode == 0
    assert done.stdout
    assert bool(results(folder)) == writes


@pytest.mark.parametrize("sink", [pytest.param(f"2>{FULL}", marks=needs_full), "2>&-"])
@pytest.mark.parametrize("line", ["none.onnx", "net.onnx --macs 7", "inspect net.onnx --shape a"])
def test_a_refusal_that_nobody_hears_is_still_two(folder: Path, line: str, sink: str) -> None:
    assert shell(folder, f"onnxprune {line} {sink}").returncode == 2
    assert results(folder) == []


def test_both_streams_into_a_pipe_that_breaks(folder: Path) -> None:
    done = shell(folder, f"onnxprune {COMMANDS['prune'][0]} 2>&1 | true")
    assert done.returncode == 0
    assert results(folder) == ["net.pruned.onnx"]


def test_a_gate_answers_whoever_reads(folder: Path) -> None:
    shell(folder, f"onnxprune {COMMANDS['prune'][0]} -q")
    line = f"{sys.executable} -m onnxprune compare net.onnx net.pruned.onnx --samples 4 --max-drop 0 | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 1


SLOW = """
import os, signal, time
def samples():
    os.kill(os.getpid(), signal.SIG{name})
    time.sleep(30)
"""


@pytest.mark.parametrize(("name", "code", "said"), [("TERM", 143, "SIGTERM"), ("HUP", 129, "SIGHUP"), ("INT", 130, "")])
def test_signals_clean_up(folder: Path, name: str, code: int, said: str) -> None:
    before = set(folder.iterdir())
    (folder / "slow.py").write_text(SLOW.format(name=name))
    done = shell(folder, "exec 3>/dev/null; onnxprune net.onnx --data slow.py:samples")
    (folder / "slow.py").unlink()
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == (f"onnxprune: ended by {said}" if said else "onnxprune: interrupted")
    assert {path for path in folder.iterdir() if path.name != "__pycache__"} <= before


def test_nohup_is_respected(folder: Path) -> None:
    (folder / "slow.py").write_text(
        SLOW.format(name="HUP").replace(
            "time.sleep(30)", "import numpy as np\n    return np.ones((4, 3, 8, 8), np.float32)"
        )
    )
    done = shell(folder, "trap '' HUP; onnxprune net.onnx --data slow.py:samples --macs 0.7 -q")
    (folder / "slow.py").unlink()
    assert done.returncode == 0


def test_handlers_are_as_they_were() -> None:
    from onnxprune.cli import main

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)], sys.stdout, sys.stderr
    assert main(["--version"]) == 0
    assert before == ([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)], sys.stdout, sys.stderr)
