"""The command line on the demo model, as a user runs it: what it writes, what it says, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Sketch

import onnxprune
from onnxprune.budget.cost import count_parameters
from onnxprune.cli import main
from onnxprune.cli.entry import COMMANDS
from onnxprune.pipeline.search import latency
from onnxprune.result import Change

MODELS = Path(__file__).parents[1] / "models"
DEMO, CALIB, TEST = (MODELS / name for name in ("demo.onnx", "calib.npz", "test.npz"))
DATA = f"--data {CALIB} --preprocess unit --samples 32"


def command(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxprune", *shlex.split(line)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, dict[str, float]]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[str], Ended]:
    """The command line in this process, in an empty folder that holds ``net.onnx``, the demo model."""
    (tmp_path / "net.onnx").write_bytes(DEMO.read_bytes())
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Ended:
        code = main(shlex.split(line))
        return Ended(code, *capfd.readouterr())

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- the main job --------------------------------------------------------------------------------------------------


def test_the_same_command_twice_and_its_plan_replayed(tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "net.onnx").write_bytes(DEMO.read_bytes())
        line = f"net.onnx {DATA} --macs 0.6 --test {TEST} --plan plan.json --report report.html --json"
        done = command(line, folder, PYTHONHASHSEED=str(number))
        assert done.returncode == 0, done.stderr
        runs.append((json.loads(done.stdout), tree(folder)))
    (document, files), (again, files_again) = runs
    assert sorted(files) == ["net.onnx", "net.pruned.onnx", "plan.json", "report.html"]
    for name in ("net.onnx", "net.pruned.onnx", "plan.json"):
        assert files[name] == files_again[name], f"{name} differs between two runs"
    measured = ("seconds", "latency_ms", "latency_spread_ms", "peak_rss_bytes")
    assert {k: v for k, v in document.items() if k not in measured} == {
        k: v for k, v in again.items() if k not in measured
    }
    check_document(document, files)
    folder = tmp_path / "0"
    done = command("apply net.onnx plan.json -o replayed.onnx --json", folder)
    assert done.returncode == 0, done.stderr
    replayed = json.loads(done.stdout)
    assert replayed["groups"] == document["groups"]
    assert any("not refitted" in note for note in replayed["notes"])
    assert (replayed["macs"], replayed["params"]) == (document["macs"], document["params"])
    first, second = (onnx.load(folder / name) for name in ("net.pruned.onnx", "replayed.onnx"))
    shapes = [{t.name: tuple(t.dims) for t in m.graph.initializer} for m in (first, second)]
    assert shapes[0] == shapes[1]
    assert onnxprune.apply(str(folder / "net.onnx"), folder / "plan.json") == second


def check_document(document: dict[str, object], files: dict[str, bytes]) -> None:
    """What --json says is what the files are."""
    small, large = (onnx.ModelProto.FromString(files[n]) for n in ("net.pruned.onnx", "net.onnx"))
    onnx.checker.check_model(small, full_check=True)
    assert document["bytes"] == {"before": len(files["net.onnx"]), "after": len(files["net.pruned.onnx"])}
    assert document["params"] == {"before": count_parameters(large), "after": count_parameters(small)}
    macs, accuracy = document["macs"], document["accuracy"]
    assert isinstance(macs, dict) and isinstance(accuracy, dict)
    assert 0.55 * macs["before"] < macs["after"] <= 0.6 * macs["before"]
    assert accuracy["before"] == pytest.approx(0.925)
    assert accuracy["after"] > 0.85
    plan = onnxprune.Plan.from_json(files["plan.json"].decode())
    groups = document["groups"]
    assert isinstance(groups, list)
    cut = {g["name"]: g["after"] for g in groups if g["after"] < g["before"]}
    assert cut == {c.group: len(c.kept) for c in plan.cuts}
    assert cut
    assert files["report.html"].decode().startswith("<!")


@pytest.mark.parametrize(("kind", "key"), [("macs", "macs"), ("params", "params"), ("size", "bytes")])
@pytest.mark.parametrize("share", [0.8, 0.45])
def test_a_budget_is_met_from_below(tool: Callable[[str], Ended], kind: str, key: str, share: float) -> None:
    done = tool(f"net.onnx {DATA} --{kind} {share} --round 1 --refit none --threads 1 --json")
    assert done.code == 0, done.err
    change = done.document[key]
    assert change["after"] <= share * change["before"]
    # One channel of the largest layer here is about 4 % of its group, and of the model less than that.
    assert change["after"] >= (share - 0.04) * change["before"]
    assert Path("net.pruned.onnx").stat().st_size == done.document["bytes"]["after"]


def test_a_size_in_bytes(tool: Callable[[str], Ended]) -> None:
    assert tool(f"net.onnx {DATA} --size 400kB --refit none --threads 1 -q").code == 0
    assert 380_000 < Path("net.pruned.onnx").stat().st_size <= 400_000


def test_the_smallest_model_within_a_drop(tool: Callable[[str], Ended]) -> None:
    done = tool(f"net.onnx {DATA} --max-drop 0.25 --threads 1 --json")
    assert done.code == 0, done.err
    assert done.document["drop"]["value"] <= 0.25
    assert done.document["macs"]["after"] < 0.8 * done.document["macs"]["before"]


def test_a_latency_is_reached_by_measuring(tool: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up machine whose time is that of the parameters: what counts is what was measured, not the MACs."""

    def measured(before: onnx.ModelProto, after: onnx.ModelProto, *_: object) -> tuple[Change, tuple[float, float]]:
        return Change(count_parameters(before) / 1e4, count_parameters(after) / 1e4), (0.01, 0.01)

    monkeypatch.setattr(latency, "compare_latency", measured)
    done = tool(f"net.onnx {DATA} --latency 0.7 --refit none --threads 1 --json")
    assert done.code == 0, done.err
    assert done.document["params"]["after"] <= 0.7 * done.document["params"]["before"]
    monkeypatch.setattr(latency, "compare_latency", lambda *_: (Change(1.0, 0.99), (0.0, 0.0)))
    refused = tool(f"net.onnx {DATA} --latency 0.5 --refit none --threads 1 -q")
    assert refused.code == 2
    assert "latency" in refused.err


def test_the_other_commands_on_the_demo_model(tool: Callable[[str], Ended]) -> None:
    inspected = tool("inspect net.onnx --json").document
    assert inspected["macs"] == onnxprune_macs()
    groups = inspected["groups"]
    assert sum(g["locked"] is None for g in groups) >= 10  # type: ignore[index, attr-defined]
    named = tool("why net.onnx /head/Gemm")
    assert named.code == 0
    assert "'logits' is an output of the model" in named.out
    same = tool(f"compare net.onnx net.onnx --data {TEST} --preprocess unit --samples 50 --threads 1 --json").document
    assert same["macs"]["before"] == same["macs"]["after"]
    assert same["drop"]["value"] == 0.0
    assert same["accuracy"]["before"] == same["accuracy"]["after"] > 0.8


def test_compare_takes_labels_and_a_metric_from_elsewhere(tool: Callable[[str], Ended]) -> None:
    half = onnx.load("net.onnx")
    for tensor in half.graph.initializer:
        if tensor.name.startswith("head"):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(tensor)), tensor.name)
            )
    onnx.save(half, "broken.onnx")
    score = (
        f"import numpy as np\nd = np.load({str(TEST)!r})\ndef top1(run):\n"
        "    found = run({'input': d['input'][:64].astype('float32') / 255})['logits'].argmax(1)\n"
        "    return 100 * float((found == d['labels'][:64]).mean())\n"
    )
    Path("score.py").write_text(score)
    given = f"compare net.onnx broken.onnx {DATA} --test {TEST} --eval score.py:top1 --threads 1"
    told = tool(f"{given} --json").document
    assert told["accuracy"]["before"] == 0.925
    assert told["accuracy"]["after"] < 0.2
    assert told["drop"]["metric"] == "own metric"
    assert told["drop"]["value"] > 50
    gate = tool(f"{given} --max-drop 5")
    assert gate.code == 1
    assert "is above --max-drop 5" in gate.err
    assert "as --eval measures it" in gate.out
    unlabelled = tool(f"compare net.onnx broken.onnx {DATA} --test {CALIB}")
    assert unlabelled.code == 2
    assert "no labels in" in unlabelled.err


def test_test_data_and_latency_tables_are_looked_at_before_the_work(
    tool: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise AssertionError("the work had begun")

    monkeypatch.setattr("onnxprune.workflows.prune.rank", late)
    for wrong in (f"--test {CALIB}", "--test none.npz", "--latency 0.5 --latency-table none.json"):
        ended = tool(f"net.onnx {DATA} {wrong}")
        assert (ended.code, ended.err.count("error:")) == (2, 1)
        assert "begun" not in ended.err


def test_a_drop_that_the_samples_cannot_show_is_told(tool: Callable[[str], Ended]) -> None:
    dull = onnx.load("net.onnx")
    for tensor in dull.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    onnx.save(dull, "dull.onnx")
    quick = "dull.onnx --samples 48 --select magnitude --refit none --effort fast"
    ended = tool(quick)
    assert ended.code == 0
    assert "--max-drop cannot detect a bad cut" in ended.err
    assert "made-up samples, which tells little" in " ".join(ended.out.split())
    assert "cannot detect a bad cut" not in tool(f"{quick} --macs 0.7").err
    ended = tool(f"{quick} {DATA}")
    assert "cannot detect a bad cut: give data that differ" in ended.err
    assert "which tells little: the original gives the same answer for all of them" in " ".join(ended.out.split())


def test_a_closed_pipe_ends_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(DEMO.read_bytes())
    line = f"{sys.executable} -m onnxprune inspect net.onnx -v | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    # 141 as of a process that SIGPIPE ended: the results reached nobody.
    assert done.returncode == 141
    assert all(re.match(r"\[ *[0-9.]+ s\]", line) for line in done.stderr.splitlines()), done.stderr


def onnxprune_macs() -> int:
    """MACs of the demo model, counted by hand from its shapes."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(DEMO))
    shapes = {
        v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]
        for v in (*inferred.graph.value_info, *inferred.graph.output)
    }
    weights = {t.name: t.dims for t in inferred.graph.initializer}
    total = 0
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            total += int(np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:]))
    return total


# -- what can go wrong ---------------------------------------------------------------------------------------------


def save_array(name: str, **arrays: np.ndarray) -> None:
    np.savez(name, **arrays)  # type: ignore[arg-type]


def no_model() -> str:
    Path("bad.onnx").write_text("this is a text, and no model\n" * 50)
    return "bad.onnx --macs 0.5"


def empty_model() -> str:
    Path("bad.onnx").touch()
    return "bad.onnx --macs 0.5"


def truncated() -> str:
    Path("bad.onnx").write_bytes(DEMO.read_bytes()[:300_000])
    return "bad.onnx --macs 0.5"


def no_external_data() -> str:
    onnx.save(onnx.load(DEMO), "bad.onnx", save_as_external_data=True, location="weights.bin")
    os.unlink("weights.bin")
    return "bad.onnx --macs 0.5"


def no_file() -> str:
    return "nowhere.onnx --macs 0.5"


def wrong_names() -> str:
    save_array("data.npz", picture=np.zeros((8, 1, 28, 28), np.uint8), other=np.zeros(8))
    return "net.onnx --data data.npz --macs 0.5"


def wrong_shape() -> str:
    save_array("data.npz", input=np.zeros((8, 3, 28, 28), np.uint8))
    return "net.onnx --data data.npz --macs 0.5"


def wrong_type() -> str:
    save_array("data.npz", input=np.full((8, 1, 28, 28), "a"))
    return "net.onnx --data data.npz --macs 0.5"


def empty_data() -> str:
    save_array("data.npz", input=np.zeros((0, 1, 28, 28), np.uint8))
    return "net.onnx --data data.npz --macs 0.5"


def no_numbers() -> str:
    save_array("data.npz", input=np.full((8, 1, 28, 28), np.nan, np.float32))
    return "net.onnx --data data.npz --macs 0.5"


def unreadable_image() -> str:
    Path("photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Path("photos", name).write_bytes(b"\x89PNG no image")
    return "net.onnx --data photos --preprocess unit --macs 0.5"


def no_images() -> str:
    Path("photos").mkdir()
    return "net.onnx --data photos --macs 0.5"


def no_data() -> str:
    return "net.onnx --data nothing.npz --macs 0.5"


def broken_function() -> str:
    Path("load.py").write_text("def samples():\n    return 1 / 0\n")
    return "net.onnx --data load.py:samples --macs 0.5"


def impossible_macs() -> str:
    return f"net.onnx {DATA} --macs 0.0001"


def impossible_size() -> str:
    return f"net.onnx {DATA} --size 10kB"


def impossible_drop() -> str:
    Path("score.py").write_text("calls = []\ndef score(run):\n    calls.append(1)\n    return -len(calls)\n")
    return f"net.onnx {DATA} --max-drop 0.001 --eval score.py:score --refit none"


def no_such_glob() -> str:
    return f"net.onnx {DATA} --macs 0.5 --only '/nothing*'"


def nothing_to_prune() -> str:
    sketch = Sketch()
    sketch.output(sketch.op("Relu", sketch.input("x", [1, 4])), [1, 4])
    onnx.save(sketch.model(), "bare.onnx")
    return "bare.onnx --macs 0.5"


def unwritable() -> str:
    return f"net.onnx {DATA} --macs 0.5 -o /proc/net.onnx"


def foreign_plan() -> str:
    Path("plan.json").write_text(onnxprune.Plan("0" * 32, ()).to_json())
    return "apply net.onnx plan.json -o out.onnx"


def no_plan() -> str:
    Path("plan.json").write_text("{")
    return "apply net.onnx plan.json -o out.onnx"


def no_such_name() -> str:
    return "why net.onnx /stem/conf"


def other_inputs() -> str:
    other = onnx.load("net.onnx")
    other.graph.input[0].name = "picture"
    for node in other.graph.node:
        node.input[:] = ["picture" if name == "input" else name for name in node.input]
    onnx.save(other, "other.onnx")
    return "compare net.onnx other.onnx"


BAD: dict[Callable[[], str], tuple[str, ...]] = {
    no_model: ("bad.onnx",),
    empty_model: ("bad.onnx", "empty"),
    truncated: ("bad.onnx",),
    no_external_data: ("weights.bin",),
    no_file: ("nowhere.onnx", "does not exist"),
    wrong_names: ("data.npz", "'input'", "picture"),
    wrong_shape: ("data.npz", "'input'", "3×28×28"),
    wrong_type: ("data.npz", "'input'"),
    empty_data: ("no samples",),
    no_numbers: ("input",),
    unreadable_image: ("a.png",),
    no_images: ("photos",),
    no_data: ("nothing.npz",),
    broken_function: ("load.py:samples", "ZeroDivisionError"),
    impossible_macs: ("--macs", "cannot be met", "of the MACs; allow at least that"),
    impossible_size: ("--size", "cannot be met", "bytes; allow at least that"),
    impossible_drop: ("no cut stays within a drop of 0.001 (own metric)", "of the MACs"),
    no_such_glob: ("--only", "/nothing*"),
    nothing_to_prune: ("nothing in this model can be pruned",),
    unwritable: ("/proc/net.onnx",),
    foreign_plan: ("another model",),
    no_plan: ("plan",),
    no_such_name: ("/stem/conf",),
    other_inputs: ("different inputs", "net.onnx 'input' (float32)", "other.onnx 'picture' (float32)"),
}


@pytest.mark.parametrize("prepare", BAD)
def test_bad_input_is_one_line_and_two(tool: Callable[[str], Ended], prepare: Callable[[], str]) -> None:
    line = prepare()
    before = tree(Path())
    done = tool(f"{line} -q --json" if "why" not in line else line)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("onnxprune: error: ")
    assert "unexpected" not in done.err
    for said in BAD[prepare]:
        assert said in done.err, done.err
    assert {k: v for k, v in tree(Path()).items() if "__pycache__" not in k} == before


def test_a_disk_that_fills_up_leaves_the_old_file(
    tool: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("net.pruned.onnx").write_bytes(b"the older result")
    before = tree(Path())

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    done = tool(f"net.onnx {DATA} --macs 0.8 --refit none --threads 1 -q")
    assert (done.code, done.out) == (2, "")
    assert "the disk is full" in done.err
    assert tree(Path()) == before


@pytest.mark.parametrize("stage", ["calibrate", "refit"])
def test_interrupted_runs_leave_nothing(tmp_path: Path, stage: str) -> None:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    (work / "net.onnx").write_bytes(DEMO.read_bytes())
    # So little memory that activations go to files, which must go, too.
    program = "import sys; from onnxprune.pipeline import setup; setup.DEFAULT_MEMORY = 1000; "
    program += "from onnxprune.cli import main; sys.exit(main())"
    line = f"net.onnx --data {CALIB} --preprocess unit --macs 0.5 --plan plan.json --report report.html -v"
    running = subprocess.Popen(
        [sys.executable, "-c", program, *line.split()],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        # Jobs in the background are started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stderr is not None
    said = []
    for text in running.stderr:
        said.append(text)
        if text.rstrip().endswith(f"] {stage}"):
            break
    if stage == "refit":
        while running.poll() is None and not list(scratch.rglob("*.npy")):
            time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, "".join(said) + err
    assert out == ""
    assert err.splitlines()[-1] == "onnxprune: interrupted"
    assert "Traceback" not in err
    assert [p.name for p in work.iterdir()] == ["net.onnx"]
    # The session file is onnxruntime's own, made when it is imported.
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []


# -- typing ----------------------------------------------------------------------------------------------------------

OPTIONS = [
    (name, option)
    for name, made in COMMANDS.items()
    for option in made.parser().options()
    if option.startswith("--") and len(option) > 4
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_slip_of_the_finger_is_answered_with_what_was_meant(
    tool: Callable[[str], Ended], name: str, option: str
) -> None:
    middle = len(option) // 2
    slips = [
        option[:middle] + option[middle + 1 :],
        option[:middle] + option[middle] + option[middle:],
        option + "s",
    ]
    known = COMMANDS[name].parser().options()
    for slip in slips:
        if slip in known:
            continue
        done = tool(f"{name} net.onnx net.onnx {slip} 1")
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        assert f"unknown option {slip} (did you mean '{option}'?)" in done.err
