"""What is published agrees with itself: versions, lower bounds, what the wheel must hold."""

from __future__ import annotations

import re
from pathlib import Path

import onnxprune

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    assert f'\nversion = "{onnxprune.__version__}"\n' in PROJECT
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(onnxprune.__version__)}\b", changelog, flags=re.M)
    assert re.fullmatch(r"\d+\.\d+\.\d+", onnxprune.__version__)


def test_ci_tests_the_lower_bounds_that_are_declared() -> None:
    block = re.search(r"^dependencies = \[(.*?)^\]", PROJECT, flags=re.S | re.M)
    assert block is not None
    declared = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', block[1]))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "lower.txt").read_text(), flags=re.M))
    assert declared.keys() == pinned.keys()
    for name, least in declared.items():
        assert re.fullmatch(rf"{re.escape(least)}(\.0)*", pinned[name]), name


def test_what_is_read_at_run_time_is_packed() -> None:
    packed = re.search(r"^onnxprune = \[(.*?)\]", PROJECT, flags=re.M)
    assert packed is not None
    patterns = re.findall(r'"([^"]+)"', packed[1])
    folder = ROOT / "onnxprune"
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    others = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others == found
