"""The command line, over an engine that is a fake: what is parsed, printed, written and returned."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import BinaryIO

import made_up
import onnx
import pytest
from graphs import Sketch

from onnxprune.calibration.preprocess import PRESETS
from onnxprune.cli import main, values
from onnxprune.cli.entry import COMMANDS, HELP
from onnxprune.cli.table import options_of
from onnxprune.errors import BudgetError, OnnxPruneError, VerificationError
from onnxprune.options import Options
from onnxprune.paths import create
from onnxprune.report import wording
from onnxprune.target import Budget


class Engine(ModuleType):
    """Stands in for onnxprune.api and the workflows; remembers its calls, and does as ``act`` says."""

    def __init__(self) -> None:
        super().__init__("onnxprune.api")
        self.calls: list[SimpleNamespace] = []
        self.act: Callable[[], None] = lambda: None

    def prune_file(
        self, model: Path, output: Path, data: object, options: Options, progress: object, stopwatch: object
    ) -> object:
        self._called(model=model, output=output, data=data, options=options)
        progress.stage("calibrate", 4)  # type: ignore[attr-defined]
        progress.advance(2)  # type: ignore[attr-defined]
        progress.note("no calibration data: synthetic inputs")  # type: ignore[attr-defined]
        progress.note("no calibration data: synthetic inputs")  # type: ignore[attr-defined]
        progress.stage("refit", None)  # type: ignore[attr-defined]
        return made_up.result()

    def apply_file(
        self, model: Path, plan: Path, output: Path, options: Options, progress: object, stopwatch: object
    ) -> object:
        self._called(model=model, plan=plan, output=output, options=options)
        return made_up.report()

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]], rules: str) -> object:
        self._called(model=model, shapes=shapes, rules=rules)
        return made_up.inspection()

    def compare_models(self, a: Path, b: Path, data: object, options: Options, progress: object) -> object:
        self._called(a=a, b=b, data=data, options=options)
        return made_up.comparison()

    def why(self, model: Path, name: str, shapes: Mapping[str, tuple[int, ...]], rules: str) -> str:
        self._called(model=model, name=name, shapes=shapes, rules=rules)
        return f"{name} is in group 3"

    def _called(self, **given: object) -> None:
        self.calls.append(SimpleNamespace(**given))
        print("printed by the user's function")
        self.act()

    @property
    def options(self) -> Options:
        options = self.calls[-1].options
        assert isinstance(options, Options)
        return options


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    fake = Engine()
    for module in ("api", "workflows.prune", "workflows.apply", "workflows.compare"):
        monkeypatch.setitem(sys.modules, f"onnxprune.{module}", fake)
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(b"model")
    Path("plan.json").write_text(made_up.plan().to_json())
    yield fake


def refused(engine: Engine, capsys: pytest.CaptureFixture[str], line: str) -> str:
    """The one line of complaint of a command that must end with 2 before the engine is asked."""
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("onnxprune: error: ")
    assert engine.calls == []
    return err


def test_a_model_alone_is_pruned_with_the_defaults(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net.onnx"]) == 0
    call = engine.calls[0]
    assert (call.model, call.output, call.data) == (Path("net.onnx"), Path("net.pruned.onnx"), None)
    assert call.options == Options()
    assert call.options.budgets == ()
    out, err = capsys.readouterr()
    assert out.startswith("resnet50.onnx: 50.8% fewer MACs")
    assert err.count("no calibration data") == 1
    assert "no calibration data" not in out
    assert "printed by the user's function" in err
    assert "printed" not in out


def test_prune_is_the_default_command(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        "prune net.onnx --macs 0.5",
        "net.onnx --macs .5",
        "--macs 50% net.onnx",
        "-v prune net.onnx --macs .5",
    )
    for line in lines:
        assert main(line.split()) == 0
        assert engine.options.budgets == (Budget("macs", 0.5),)
    capsys.readouterr()


def test_every_option_arrives(engine: Engine) -> None:
    line = (
        "net.onnx -o small.onnx --data d.npz --samples 64 --preprocess caffe --mean 1,2,3 --std 4 "
        "--resize 256 --crop 224x192 --bgr --size 2MB --eval m.py:f --test t.npz --select random "
        "--refit none --round 8 --exclude a* --exclude b --only c --providers cpu --threads 2 "
        "--memory 4GiB --seed 7 --shape x=1x3x32x32 --shape in:0=4,7"
    )
    assert main(line.split()) == 0
    call = engine.calls[0]
    assert (call.output, call.data) == (Path("small.onnx"), "d.npz")
    options = call.options
    preset = options.preprocess
    assert (preset.name, preset.mean, preset.std, preset.resize) == ("caffe", (1.0, 2.0, 3.0), (4.0,), 256)
    assert (preset.crop, preset.order) == ((224, 192), "BGR")
    assert options == Options(
        budgets=(Budget("size", 2e6),),
        samples=64,
        preprocess=preset,
        select="random",
        refit="none",
        round_to=8,
        exclude=("a*", "b"),
        only=("c",),
        evaluate="m.py:f",
        test="t.npz",
        providers=("CPUExecutionProvider",),
        threads=2,
        memory=4 * 2**30,
        seed=7,
        shapes={"x": (1, 3, 32, 32), "in:0": (4, 7)},
    )


@pytest.mark.parametrize(
    ("flags", "budget"),
    [
        ("--macs 50%", Budget("macs", 0.5)),
        ("--params 1", Budget("params", 1.0)),
        ("--latency 0.3", Budget("latency", 0.3)),
        ("--size 0.5", Budget("size", 0.5)),
        ("--size 1500KiB", Budget("size", 1500 * 1024)),
        ("--max-drop 0", Budget("max_drop", 0.0)),
        ("--round auto --max-drop=2%", Budget("max_drop", 0.02)),
    ],
)
def test_budgets(engine: Engine, flags: str, budget: Budget) -> None:
    assert main(["net.onnx", *flags.split()]) == 0
    assert engine.options.budgets == (budget,)
    assert engine.options.round_to is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_of_the_help_exists(engine: Engine, name: str) -> None:
    assert name in COMMANDS["prune"].parser().text
    assert main(["net.onnx", "--preprocess", name]) == 0
    assert engine.options.preprocess == PRESETS[name]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("net.onnx --macs 0", "above 0 and at most 1"),
        ("net.onnx --macs 1.5", "above 0 and at most 1"),
        ("net.onnx --macs 50", "to keep 50 % give 0.5"),
        ("net.onnx --macs nan", "'nan' is not a number"),
        ("net.onnx --params -1", "above 0"),
        ("net.onnx --size 0", "above 0"),
        ("net.onnx --size big", "number of bytes"),
        ("net.onnx --max-drop -0.1", "0 or more"),
        ("net.onnx --samples 1.5", "--samples: '1.5' is not a whole number of 1 or more"),
        ("net.onnx --samples 0", "of 1 or more"),
        ("net.onnx --round 0", "'0' is not a multiple of channels; give auto"),
        ("net.onnx --threads -2", "of 0 or more"),
        ("net.onnx --threads 999999", "threads: 999999 are too many for the"),
        ("net.onnx --memory 0", "at least one byte"),
        ("net.onnx --preprocess imagnet", "did you mean 'imagenet'"),
        ("net.onnx --preprocess unit --std 0", "std must be above 0"),
        ("net.onnx --mean 1", "also give --preprocess"),
        ("net.onnx --crop big --preprocess unit", "'big' is not a size in pixels, such as 224 or 480x640"),
        ("net.onnx --select qrr", "did you mean 'qr'"),
        ("net.onnx --refit lstsqr", "did you mean 'lstsq'"),
        ("net.onnx --shape x", "NAME=DIMS"),
        ("net.onnx --shape x=1x0", "NAME=DIMS"),
        ("net.onnx --providers cudaa", "this onnxruntime has no cudaa"),
        ("net.onnx --mac 0.5", "unknown option --mac (did you mean '--macs'?)"),
        ("net.onnx --exlude=a", "did you mean '--exclude'?"),
        ("--verison", "did you mean '--version'?"),
        ("--verbos net.onnx", "did you mean '--verbose'?"),
        ("net.onnx --macs", "--macs needs a value"),
        ("net.onnx --macs 50", "to keep 50 % give 0.5"),
        ("net.onnx --macs 1.5", "at most 1\n"),
        ("net.onnx --max-drop 5", "to allow 5 % give 0.05"),
        ("net.onnx --json=1", "--json takes no value"),
        ("compare net.onnx b.onnx --max-drop 5", "to allow 5 % give 0.05"),
        ("help inspct", "did you mean 'inspect'?"),
        ("net.onnx other.onnx", "unexpected argument 'other.onnx'"),
        ("net.onnx -x", "unknown option -x; "),
        ("-x", "unknown option -x"),
        ("--macs 0.5", "MODEL is missing"),
        ("inspct net.onnx", "did you mean 'inspect'?"),
        ("inspect net.onnx --data x", "unknown option --data"),
        ("why net.onnx", "NAME is missing"),
        ("completion fsh", "did you mean 'fish'?"),
        ("net.onnx -o net.onnx", "is the input model itself"),
        ("net.onnx -o ./../x/net.onnx", "does not exist"),
        ("net.onnx -o .", "is a folder"),
        ("net.onnx --plan net.pruned.onnx", "another file of this run"),
        ("net.onnx --plan a --report a", "another file of this run"),
        ("net.onnx --report no/where.html", "does not exist"),
        ("net.onnx --report out.pdf", "--report out.pdf: the report is HTML; name it out.html"),
        ("inspect net.onnx --report out.json", "--report out.json: the report is HTML; name it out.html"),
        ("apply net.onnx plan.json -o plan.json", "is the plan itself"),
        ("inspect net.onnx --report a --layers a", "another file of this run"),
        ("net.onnx --plan -", "--plan: '-' does not stand for stdout here; give the name of a file"),
        ("net.onnx --report=", "--report: an empty name; give the name of a file"),
        ("net.onnx --output=", "an empty name"),
        ("net.onnx --tune soon", "--tune: "),
        ("net.onnx --letterbox --stretch", "--letterbox and --stretch contradict each other; give one of them"),
        ("tune net.onnx --stretch --data d --letterbox", "--stretch and --letterbox contradict each other"),
        ("net.onnx --providers bogus", "cpu; other packages have more, such as onnxruntime-gpu"),
        ("net.onnx --workers 999", "workers: 999 are too many for the"),
        ("net.onnx --target ncn", "--target: unknown device 'ncn' (did you mean 'ncnn'?)"),
        ("net.onnx --round up", "--round: 'up' is not a multiple of channels; give auto"),
        ("net.onnx --crop wide", "--crop: 'wide' is not a size in pixels"),
        ("net.onnx --size 500%", "500%: the fraction kept must be above 0 and at most 1\n"),
        ("net.onnx --max-drop 150%", "150%: the allowed drop is at most 100 %"),
        ("compare net.onnx b.onnx --max-drop 150%", "at most 100 %"),
        (f"net.onnx -o {'o' * 300}", "-o " + "o" * 300 + ": File name too long; choose another name"),
        (f"net.onnx --report {'r' * 300}", "File name too long; choose another name"),
        (f"inspect net.onnx --layers {'l' * 300}", "File name too long; choose another name"),
        (f"net.onnx --plan {'p' * 300}/plan", "does not exist"),
    ],
)
def test_bad_usage_is_one_line_and_two(
    engine: Engine, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    assert said in refused(engine, capsys, line)


@pytest.mark.parametrize(
    "command", ["net.onnx -o", "net.onnx --plan", "net.onnx --report", "inspect net.onnx --layers"]
)
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_what_is_no_ordinary_file_is_not_replaced(
    engine: Engine, capsys: pytest.CaptureFixture[str], command: str, linked: bool
) -> None:
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    name = "link" if linked else "pipe"
    assert f"{name} is not a regular file; choose another name" in refused(engine, capsys, f"{command} {name}")
    assert Path("pipe").is_fifo()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that lets nobody create a file")
@pytest.mark.parametrize(
    "command", ["net.onnx -o", "net.onnx --plan", "net.onnx --report", "inspect net.onnx --layers"]
)
def test_a_folder_that_takes_no_file_is_refused_before_the_run(
    engine: Engine, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert "/proc/x cannot be written (" in refused(engine, capsys, f"{command} /proc/x")


@pytest.mark.parametrize("text", ["9" * 12, "9" * 30, "9" * 5000, "1e400", "9e30", "auto:" + "9" * 30])
def test_numbers_that_no_run_can_have_are_one_line(
    engine: Engine, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Whatever option takes a number: refused in one line, or harmless."""
    refusals = 0
    for option in options_of("prune"):
        spoken = {"NAME=DIMS": f"x=1x{text}", "GLOB=N|R": f"a={text}"}.get(option.shows, text)
        if option.read is None or option.read in (str, Path, values.output, values.target, values.providers):
            continue
        code = main(["net.onnx", option.flags[0], spoken])
        assert code in (0, 2)
        out, err = capsys.readouterr()
        assert "unexpected" not in err and (code == 0 or len(err.splitlines()) == 1), (option.flags, err)
        refusals += code == 2
    assert refusals > 10


def test_the_command_line_takes_another_side_than_the_file(engine: Engine) -> None:
    Path("o.toml").write_text('preprocess = "unit"\nletterbox = true\n')
    assert main(["net.onnx", "--config", "o.toml", "--stretch"]) == 0
    assert engine.options.preprocess is not None and engine.options.preprocess.fit == "stretch"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_help_says_made_up_only_where_data_may_be_left_out(
    name: str, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    main([name, "--help"])
    promised = "made-up inputs" in capsys.readouterr().out
    if "--data" in COMMANDS[name].parser().options():
        code = main([name, "net.onnx", *{"compare": ["b.onnx"], "tune": ["--teacher", "b.onnx"]}.get(name, [])])
        assert ("--data is missing" not in capsys.readouterr().err and code == 0) == promised
    else:
        assert not promised


@pytest.mark.parametrize("flag", ["-o", "--plan", "--report"])
@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("--data in/x.npz", "in/x.npz"),
        ("--test in/x.npz", "in/../in/x.npz"),
        ("--data in/f.py:load", "in/f.py"),
        ("--eval in/f.py:score", "in/f.py"),
        ("--latency-table in/x.npz", "in/x.npz"),
        ("--seed 1", "net.onnx.data"),
    ],
)
def test_no_output_replaces_what_the_run_reads(
    engine: Engine, capsys: pytest.CaptureFixture[str], flag: str, option: str, file: str
) -> None:
    Path("in").mkdir()
    for name in ("in/x.npz", "in/f.py"):
        Path(name).write_text("the user's own")
    assert f"{flag} {file} is another file of this run" in refused(engine, capsys, f"net.onnx {option} {flag} {file}")


@pytest.mark.parametrize(
    "command",
    ["net.onnx -o", "net.onnx --plan", "net.onnx --report", "apply net.onnx plan.json --report",
     "apply net.onnx plan.json -o", "inspect net.onnx --report", "inspect net.onnx --layers"],
)  # fmt: skip
@pytest.mark.parametrize("file", ["data.npz", "./parts/w.bin", "link"])
def test_no_output_replaces_the_data_that_the_model_keeps_apart(
    engine: Engine, capsys: pytest.CaptureFixture[str], command: str, file: str
) -> None:
    s = Sketch()
    s.output(s.op("MatMul", s.op("MatMul", s.input("x", ["n", 8]), s.weight(8, 16)), s.weight(16, 4)), ["n", 4])
    model = s.model()
    Path("parts").mkdir()
    for tensor, name in zip(model.graph.initializer, ("data.npz", "parts/w.bin"), strict=True):
        onnx.external_data_helper.set_external_data(tensor, name)
    onnx.save(model, "net.onnx")
    os.symlink("data.npz", "link")
    before = {name: Path(name).read_bytes() for name in ("data.npz", "parts/w.bin")}
    flag = command.split()[-1]
    named = str(Path(file))
    assert f"{flag} {named} is another file of this run" in refused(engine, capsys, f"{command} {file}")
    assert before == {name: Path(name).read_bytes() for name in before}


def test_outputs_may_lie_in_the_folder_of_the_data(engine: Engine) -> None:
    Path("photos").mkdir()
    assert main(["net.onnx", "--data", "photos", "-o", "photos/small.onnx", "--plan", "photos/p.json", "-q"]) == 0
    assert sorted(os.listdir("photos")) == ["p.json"]


def test_side_files_may_have_the_longest_names(engine: Engine) -> None:
    name = "é" * 127
    assert main(["net.onnx", "--plan", name, "-q"]) == 0
    assert Path(name).is_file()


@pytest.mark.parametrize(("model", "output"), [("UP.ONNX", "UP.pruned.onnx"), ("net.v2", "net.v2.pruned.onnx")])
def test_the_output_is_named_after_the_model(engine: Engine, model: str, output: str) -> None:
    Path(model).write_bytes(b"model")
    assert main([model, "-q"]) == 0
    assert engine.calls[0].output == Path(output)


def test_json_is_one_document_and_nothing_else(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("net.onnx", "inspect net.onnx", "compare a.onnx b.onnx", "apply net.onnx plan.json"):
        assert main([*line.split(), "--json"]) == 0
        out, _ = capsys.readouterr()
        assert isinstance(json.loads(out), dict)


def test_plan_and_report_are_written(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net.onnx", "--plan", "p.json", "--report", "r.html", "--data", "my photos"]) == 0
    assert Path("p.json").read_text() == made_up.plan().to_json()
    page = Path("r.html").read_text(encoding="utf-8")
    assert "onnxprune net.onnx --plan p.json --report r.html --data &#39;my photos&#39;" in page
    out, _ = capsys.readouterr()
    assert out.splitlines()[-2].split() == ["plan", "p.json"]
    assert sorted(os.listdir()) == ["net.onnx", "p.json", "plan.json", "r.html"]


def test_quiet_prints_the_verdict_only(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net.onnx", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err == "printed by the user's function\n"


def test_verbose_tells_stages_and_all_groups(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net.onnx"]) == 0
    short, err = capsys.readouterr()
    assert "calibrate" not in err
    assert main(["net.onnx", "-v"]) == 0
    whole, err = capsys.readouterr()
    stages = [line.split("] ")[1] for line in err.splitlines() if line.startswith("[")]
    assert stages == ["calibrate", "refit"]
    assert len(whole.splitlines()) > len(short.splitlines()) + 20


def test_the_other_commands(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "net.onnx", "--shape", "x=1x3x8x8"]) == 0
    assert engine.calls[-1].shapes == {"x": (1, 3, 8, 8)}
    assert "97.8%" in capsys.readouterr().out
    assert main(["inspect", "net.onnx", "--report", "i.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["report", "i.html"]
    assert "97.8%" in Path("i.html").read_text(encoding="utf-8")
    assert main(["why", "net.onnx", "conv1"]) == 0
    assert capsys.readouterr().out == "conv1 is in group 3\n"
    assert main(["compare", "a.onnx", "b.onnx", "--data", "d", "--eval", "m.py:f"]) == 0
    assert (engine.calls[-1].a, engine.calls[-1].data) == (Path("a.onnx"), "d")
    assert engine.options.evaluate == "m.py:f"
    assert "not measured" in capsys.readouterr().out
    assert main(["apply", "net.onnx", "plan.json", "-o", "out.onnx"]) == 0
    assert (engine.calls[-1].plan, engine.calls[-1].output) == (Path("plan.json"), Path("out.onnx"))
    # The refitted result of prune stays where it is.
    assert main(["apply", "net.onnx", "plan.json"]) == 0
    assert engine.calls[-1].output == Path("net.applied.onnx")


def test_compare_is_a_gate(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    drop = made_up.comparison().drop
    assert drop is not None
    assert main(["compare", "a.onnx", "b.onnx", "--max-drop", str(drop.value)]) == 0
    assert main(["compare", "a.onnx", "b.onnx", "--max-drop", str(drop.value / 2), "--json"]) == 1
    out, err = capsys.readouterr()
    assert "boxes" in out
    assert "is above --max-drop" in err
    assert engine.options == Options()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BudgetError("at most 40 %\ncan go"), 2, "onnxprune: error: at most 40 % can go\n"),
        (OnnxPruneError("x"), 2, "onnxprune: error: x\n"),
        (VerificationError("the check failed"), 1, "onnxprune: error: the check failed\n"),
        (KeyboardInterrupt(), 130, "onnxprune: interrupted\n"),
        (
            RuntimeError("surprise"),
            2,
            "onnxprune: error: unexpected RuntimeError: surprise (please report; run with -v for the traceback)\n",
        ),
    ],
)
def test_failures(
    engine: Engine, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def fail() -> None:
        raise error

    engine.act = fail
    assert main(["net.onnx", "-q", "--plan", "p.json", "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "printed by the user's function\n" + said
    assert sorted(os.listdir()) == ["net.onnx", "plan.json"]


def test_a_full_disk_is_no_riddle(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    engine.act = fail
    assert main(["net.onnx", "-q"]) == 2
    assert "error: the disk is full at somewhere; free some space\n" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_loses_nothing_else(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: Path, target: Path) -> BinaryIO:
        if target.name == "r.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(part, target)

    # There was room before the run.
    engine.act = lambda: monkeypatch.setattr("onnxprune.cli.files.create", full)
    assert main(["net.onnx", "--report", "r.html", "--plan", "p.json"]) == 2
    out, err = capsys.readouterr()
    assert wording.verdict(made_up.report()) in " ".join(out.split())
    assert "plan      p.json" in out
    assert "r.html" not in out
    assert err.endswith(
        "cannot write r.html: No space left on device; free some space (the model itself is in net.pruned.onnx)\n"
    )
    assert sorted(os.listdir()) == ["net.onnx", "p.json", "plan.json"]


def test_the_traceback_is_shown_on_request(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("deep")

    engine.act = fail
    assert main(["net.onnx", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_help_fits_a_screen_and_lists_every_option(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([name, "--help"] if name else ["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert 2 <= sum(line.startswith(("  onnxprune ", "  eval ")) for line in lines) <= 4
    if name:
        parser = COMMANDS[name].parser()
        words = out.replace(",", " ").split()
        assert [option for option in parser.options() if option not in words] == []
        spelt = {word.strip("'") for word in words if word.startswith("--")}
        shown_elsewhere = {option for command in COMMANDS.values() for option in command.parser().options()}
        assert spelt <= shown_elsewhere


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_help_lists_commands_and_guides(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    shown = []
    for words in (["help"], ["help", flag]):
        assert main(words) == 0
        shown.append(capsys.readouterr())
    assert shown[0] == shown[1] and HELP in shown[0].out


def test_nothing_given_shows_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr() == ("", HELP)


def test_as_a_module_without_loading_onnx() -> None:
    script = (
        "import sys; from onnxprune.cli import main; code = main(['--version']); main(['prune', '-h']);"
        "print(sorted({'onnx', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("onnxprune 0.")
    assert done.stdout.endswith("[]\n")
    done = subprocess.run([sys.executable, "-m", "onnxprune", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("onnxprune: error: no command or file 'nonsense'")


def test_native_prints_do_not_reach_stdout() -> None:
    script = (
        "import os; from onnxprune.cli.streams import stdout_to_stderr\n"
        "with stdout_to_stderr():\n    os.system('echo child'); print('python')\n"
        "print('data')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "data\n"
    assert done.stderr == "child\npython\n"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ins", {"inspect"}),
        ("net.onnx --pre", {"--preprocess"}),
        ("net.onnx --preprocess un", {"unit"}),
        ("inspect net.onnx --v", {"--verbose"}),
        ("compare --exc", set()),
        ("apply ne", {"net.onnx"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_shells_complete(
    engine: Engine, capsys: pytest.CaptureFixture[str], shell: str, words: str, wanted: set[str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shell == "bash":
        count = len(words.split())
        ask = f"COMP_WORDS=(onnxprune {words}); COMP_CWORD={count}; _onnxprune; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    else:
        ask = f"complete -C 'onnxprune {words}'"
    done = subprocess.run([shell, "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == wanted


def test_zsh_reads_its_completions(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    assert main(["completion", "zsh"]) == 0
    done = subprocess.run(["zsh", "-fc", capsys.readouterr().out], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
