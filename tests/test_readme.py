"""What README and guides promise: every command in them is one, the first does what it says, two set up a machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxprune import guide
from onnxprune.cli import main
from onnxprune.cli.arguments import options_from
from onnxprune.cli.entry import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "\n".join([README, *(guide.text(topic) for topic in guide.topics())])
FENCED = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S)
SETUP = [line for block in FENCED for line in block.splitlines() if line.startswith("pip install")]


def commands() -> Iterator[str]:
    """Every ``onnxprune …`` of README and guides, in a block or between backticks."""
    for block in FENCED:
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split("&&") if part.strip().startswith("onnxprune"))
    yield from re.findall(r"`(onnxprune [^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))


def test_two_commands_set_up_a_fresh_machine() -> None:
    assert len(SETUP) == 2
    run, test = (line.split(" && ") for line in SETUP)
    assert run[0] == "pip install ."
    assert run[1].startswith("onnxprune models/demo.onnx ")
    assert test[0] == "pip install -e '.[dev]'"
    assert test[1].startswith("pytest")
    assert re.search(r"^dev = \[", (ROOT / "pyproject.toml").read_text(), flags=re.M)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    words = ["prune" if word == "COMMAND" else "budget" if word == "TOPIC" else word for word in words]
    if words[0] in ("--help", "help") or "--help" in words:
        assert main(words) == 0
        return
    name = words.pop(0) if words[0] in COMMANDS else "prune"
    if not words:
        return  # a command by its name
    arguments = COMMANDS[name].parser().read(words)
    if hasattr(arguments, "shape"):
        options_from(arguments)


def test_every_option_that_is_named_exists() -> None:
    known = {option for made in COMMANDS.values() for option in made.parser().options()} | {"--version"}
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    named = {
        word
        for code in re.findall(r"`([^`\n]+)`", prose)
        for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
        # Other programs' options stand behind their own name.
        if not re.match(r"(pipx?|uvx|pytest|python)\b", code)
    }
    assert named
    assert named <= known


def test_the_table_lists_the_commands() -> None:
    rows = re.findall(r"^\| `onnxprune ([a-z]+|MODEL\.onnx)[^|]*\|", README, flags=re.M)
    assert {"prune" if word.startswith("MODEL") else word for word in rows} == {*COMMANDS, "help"}


def test_the_readme_is_short_and_lists_every_guide() -> None:
    assert len(README.splitlines()) <= 200
    listed = re.findall(r"^- \[(.*?)\]\(onnxprune/guide/(.*?)\.md\): `onnxprune help (.*?)`$", README, flags=re.M)
    assert [(topic, topic, title) for topic, title in guide.topics().items()] == [
        (p, t, title) for title, p, t in listed
    ]


@pytest.mark.parametrize("topic", guide.topics())
def test_a_guide_shows(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", topic]) == 0
    out = capsys.readouterr().out
    assert guide.text(topic) in out
    assert out.startswith("# ") or topic in COMMANDS


def test_links_between_pages_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
    for page in re.findall(r"`onnxprune help ([a-z-]+)`", TEXT):
        assert page in {*guide.topics(), *COMMANDS}, page


def test_the_first_command_does_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    for file in (ROOT / "models").iterdir():
        (tmp_path / "models" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(SETUP[0].split(" && ")[1])[1:]) == 0
    out, _ = capfd.readouterr()
    said = re.search(r"accuracy\s+(\d+\.\d+)%\s+(\d+\.\d+)%", out)
    assert said, out
    before, after = (float(number) for number in said.groups())
    assert before == 92.5
    assert before - after < 2
    assert Path("models/demo.pruned.onnx").stat().st_size < 0.8 * Path("models/demo.onnx").stat().st_size
