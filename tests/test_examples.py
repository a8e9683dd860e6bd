"""The examples of the docstrings and of the README run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(__file__).parent.parent
#: Only looked into with what their extras install.
EXTRAS = {"torch", "dask", "distributed"}


def modules_with_examples() -> Iterator[str]:
    for path in sorted((ROOT / "onnxprune").rglob("*.py")):
        if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), flags=re.M):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", sorted(modules_with_examples()))
def test_every_example_of_a_docstring_gives_what_it_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(ROOT)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        pytest.skip(f"{name} needs {missing.name}")
    told = doctest.testmod(module)
    assert told.attempted
    assert told.failed == 0


@pytest.mark.parametrize("name", sorted(set(onnxprune.__all__) - {"__version__"}))
def test_every_public_function_has_an_example(name: str) -> None:
    public = getattr(onnxprune, name)
    if inspect.isfunction(public):
        text = public.__doc__ or ""
        assert ">>> " in text or "pip install 'onnxprune[" in text


def test_python_in_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
