"""The outputs that README and guides show are those of the commands above them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxprune import guide
from onnxprune.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Seconds instead of minutes.  Figures differ then; what was asked for must hold all the same.
QUICK = ["--effort", "fast", "--samples", "64", "--threads", "1"]
#: A row of a table: the name of a group or a figure, then numbers.
ROW = re.compile(r"^(MACs|parameters|file|latency|drop: [\w -]+?|/\S+)  +\S.*$", flags=re.M)


def shown(text: str) -> Iterator[tuple[str, str]]:
    """(command, its output) for each command of the blocks."""
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, output = part.partition("\n")
            yield line, output


CASES = [pair for page in ("widths", "targets") for pair in shown(guide.text(page))]


@pytest.fixture(autouse=True)
def _where_the_reader_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    toml = re.findall(r"```toml\n(.*?)```", guide.text("widths"), flags=re.S)
    assert len(toml) == 1
    (tmp_path / "onnxprune.toml").write_text(toml[0])


def test_inspect_prints_what_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    ((line, output),) = [pair for pair in shown(README) if pair[0].startswith("onnxprune inspect")]
    assert main(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out.strip() == output.strip()


def test_every_new_option_is_shown() -> None:
    words = {word for line, _ in CASES for word in line.split() if word.startswith("--")}
    assert {"--macs", "--params", "--max-drop", "--keep", "--at-least", "--at-most", "--target", "--config"} <= words


@pytest.mark.parametrize(("line", "output"), CASES, ids=[line.partition("unit ")[2] or line for line, _ in CASES])
def test_a_command_of_the_guide_prints_its_output(line: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)[1:]
    code = main([*words, "-o", "out.onnx", *QUICK])
    out, err = capsys.readouterr()
    if output.startswith("onnxprune: error: "):
        assert code == 2
        # How near it came depends on the effort.
        assert re.sub(r"0\.\d+ \(", "0 (", err) == re.sub(r"0\.\d+ \(", "0 (", output)
        return
    assert code == 0
    assert [name for name in ROW.findall(output) if name != "latency"] == [
        name for name in ROW.findall(out) if name != "latency" and (not name.startswith("/head"))
    ]
    for text in (out, output):
        holds(words, " ".join(text.split()))


def holds(words: list[str], text: str) -> None:
    """The figures in ``text`` keep what the command asks for."""
    kept = {
        kind: 1 - float(percent) / 100
        for percent, kind in re.findall(r"(\d+\.\d)% fewer (MACs|parameters)", text)
    }
    asked = dict(itertools.pairwise(words))
    if "--config" in asked:
        asked |= {"--macs": "0.5", "--params": "0.6"}
    assert kept["MACs"] <= float(asked["--macs"]) + 5e-4
    assert kept["parameters"] <= float(asked.get("--params", 1)) + 5e-4
    groups = re.findall(r"(/\S+) (\d+)(?: → (\d+))? [█░]", text)
    assert bool(groups) == ("-q" not in words)
    for name, before, after in ((n, int(b), int(a or b)) for n, b, a in groups):
        if "--target" in asked:
            assert after == before or after % 8 == 0
        if "--keep" in asked:
            assert 2 * after >= before
            assert after == 16 or not name.startswith("/stage1/")
            assert after <= 40 or not name.startswith("/stage3/")
