"""The examples of the docstrings and of the README run as they stand."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from onnxprune import api

ROOT = Path(__file__).parent.parent


def test_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = doctest.testmod(api)
    assert told.attempted > 5
    assert told.failed == 0


def test_python_in_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
