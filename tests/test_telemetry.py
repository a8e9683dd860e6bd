"""A run writes what it was asked for, its cache and nothing else; onnxruntime records nothing about it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import pytest
from graphs import Sketch

ROOT = Path(__file__).parents[1]
SWITCH = "ORT_DISABLE_TELEMETRY"


def home(folder: Path) -> dict[str, str]:
    """The environment of a user who never ran anything."""
    for name in ("home", "temporary", "work"):
        (folder / name).mkdir()
    own = ("HOME", "TMPDIR", SWITCH, "USERPROFILE", "LOCALAPPDATA")
    kept = {key: value for key, value in os.environ.items() if key not in own and not key.startswith("XDG_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    there = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    return {**kept, **there, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def python(given: list[str], folder: Path, environment: Mapping[str, str], codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [sys.executable, *given], cwd=folder / "work", env=dict(environment), capture_output=True, text=True
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("net.onnx --macs 0.8 --plan plan.json --report page.html", {"net.pruned.onnx", "plan.json", "page.html"}),
        ("net.onnx --latency 0.9 -o small.onnx", {"small.onnx"}),
        ("compare net.onnx net.onnx --per-op", set()),
        ("inspect net.onnx --layers layers.json", {"layers.json"}),
    ],
)
def test_nothing_is_written_but_output_and_cache(tmp_path: Path, line: str, written: set[str]) -> None:
    environment = home(tmp_path)
    s = Sketch()
    hidden = s.op("Relu", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 32, 3))
    s.output(s.conv(hidden, 32, 4), ["n", 4, 8, 8])
    onnx.save(s.model(), tmp_path / "work" / "net.onnx")
    # Whether so small a model gets faster is chance; the layers are timed, and the times kept, in any case.
    timed = "--latency" in line
    python(["-m", "onnxprune", *line.split()], tmp_path, environment, (0, 2) if timed else (0,))
    found = files(tmp_path / "work")
    assert {"net.onnx"} <= found <= {"net.onnx", *written} if timed else found == {"net.onnx", *written}
    assert files(tmp_path / "temporary") == set()
    assert {name for name in files(tmp_path / "home") if not name.startswith(".cache/onnxprune/")} == set()


@pytest.mark.parametrize(
    ("stated", "kept", "stopped"), [(None, "1", True), ("1", "1", True), ("0", "0", False), ("", "", False)]
)
def test_telemetry_is_off_unless_the_user_turns_it_on(
    tmp_path: Path, stated: str | None, kept: str, stopped: bool
) -> None:
    script = (
        "import onnxruntime, os, sys; calls = []\n"
        "onnxruntime.disable_telemetry_events = lambda: calls.append(len(sys.modules))\n"
        "import onnxprune; onnxprune.inspect(sys.argv[1])\n"
        f"print(repr(os.environ['{SWITCH}']), bool(calls))"
    )
    environment = home(tmp_path) | ({} if stated is None else {SWITCH: stated})
    assert python(["-c", script, str(ROOT / "models" / "demo.onnx")], tmp_path, environment) == f"{kept!r} {stopped}\n"


def switched(path: Path) -> Iterator[tuple[int, bool]]:
    """(line, whether it turns telemetry off) of what turns it off and what imports onnxruntime."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in (alias.name.split(".")[0] for alias in node.names):
                if name in ("onnxprune", "onnxruntime", "device"):
                    yield node.lineno, name != "onnxruntime"
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            name = node.module.split(".")[0]
            if name in ("onnxprune", "onnxruntime", "data"):
                yield node.lineno, name != "onnxruntime"
        elif isinstance(node, ast.Constant) and node.value == SWITCH:
            yield node.lineno, True


ALONE = [*sorted((ROOT / "tools").rglob("*.py")), ROOT / "onnxprune" / "latency" / "device.py"]
IMPORTING = [path for path in ALONE if not all(off for _, off in switched(path))]


def test_some_scripts_import_onnxruntime() -> None:
    assert {"device.py", "data.py", "quantize.py", "train_demo.py"} <= {path.name for path in IMPORTING}


@pytest.mark.parametrize("path", IMPORTING, ids=lambda path: path.name)
def test_what_runs_alone_turns_telemetry_off_before_onnxruntime_is_imported(path: Path) -> None:
    assert next(iter(sorted(switched(path))))[1]
