"""Several budgets, widths by name, targets: what is asked for holds in the result, or the refusal says what cannot."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.sparse import csr_array

import onnxprune
from onnxprune import guide
from onnxprune.budget.allocate import allocate
from onnxprune.budget.cost import Cost
from onnxprune.budget.curve import Curve
from onnxprune.budget.excess import joint
from onnxprune.budget.lengths import Lengths
from onnxprune.cli import main
from onnxprune.devices import TARGETS
from onnxprune.errors import BudgetError, OnnxPruneError
from onnxprune.pipeline.group_names import matches, names_of
from onnxprune.plan import Plan
from onnxprune.result import Result
from onnxprune.target import Budget, Width

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "models" / "demo.onnx"
CALIB = ROOT / "models" / "calib.npz"
QUICK = {"samples": 16, "effort": "fast", "select": "magnitude", "refit": "none", "preprocess": "unit"}
STEM, WIDEN, GATE = "/stem/conv/Conv", "/stage2/stage2.1/widen/conv/Conv", "/stage3/stage3.1/gate/squeeze/Conv"


def pruned(**asked: object) -> Result:
    return onnxprune.prune(DEMO, CALIB, **{**QUICK, **asked})  # type: ignore[arg-type]


def widths(result: Result) -> dict[str, int]:
    return {row.name: row.after for row in result.report.groups if row.locked is None}


# -- several budgets


@pytest.mark.parametrize("macs", [0.9, 0.3])
@pytest.mark.parametrize("params", [0.8, 0.5])
@pytest.mark.parametrize("size", [None, 200_000])
def test_every_budget_holds_in_the_result(macs: float, params: float, size: float | None) -> None:
    result = pruned(macs=macs, params=params, size=size, round_to=1)
    report = result.report
    assert report.macs.ratio <= macs
    assert report.params.ratio <= params
    if size is not None:
        assert len(result.model.SerializeToString()) <= (size * report.bytes.before if size <= 1 else size)
    assert {budget.kind for budget in report.budgets} == {"macs", "params"} | ({"size"} if size else set())


def test_a_second_budget_that_does_not_bind_changes_nothing() -> None:
    alone, beside = pruned(macs=0.6, round_to=1), pruned(macs=0.6, params=0.99, round_to=1)
    assert widths(alone) == widths(beside)


def test_the_one_that_cannot_be_met_is_named() -> None:
    with pytest.raises(BudgetError, match=r"--params 0\.0001 cannot be met: the narrowest model keeps 0\.\d+"):
        pruned(macs=0.9, params=0.0001)
    with pytest.raises(BudgetError, match=r"--size 10 cannot be met: the narrowest model takes [\d,]+ bytes; allow at least"):
        pruned(size=10)


def test_a_drop_beside_a_size_holds_or_is_refused() -> None:
    result = pruned(macs=0.9, max_drop=0.9, round_to=1)
    assert result.report.macs.ratio <= 0.9 and result.report.drop is not None
    assert result.report.drop.value <= 0.9
    with pytest.raises(BudgetError, match=r"--max-drop 0 cannot be met together with --macs 0\.05.*drop of 0\.\d+"):
        pruned(macs=0.05, max_drop=0.0, round_to=1)


def test_two_budgets_of_a_kind_are_refused() -> None:
    from onnxprune.options import Options

    with pytest.raises(OnnxPruneError, match="'macs' is given twice"):
        Options(budgets=(Budget("macs", 0.5), Budget("macs", 0.6)))


@pytest.mark.parametrize("seed", range(20))
def test_the_joint_cost_of_random_costs_is_met_where_each_can_be(seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups = int(generator.integers(1, 6))
    sizes = generator.integers(2, 40, groups)
    curves = [Curve(np.linspace(1, 0, n + 1) ** generator.uniform(0.5, 3), np.arange(1, n + 1)) for n in sizes]

    def cost() -> Cost:
        terms = int(generator.integers(1, 5))
        slope = generator.random((terms, 2, groups)) * (generator.random((terms, 2, groups)) < 0.6)
        return Cost(
            generator.random(terms) + 0.1,
            Lengths(
                np.full(2 * terms, 0.5), csr_array(slope.reshape(2 * terms, groups)), np.arange(2 * terms), (terms, 2)
            ),
            (0,) * terms,
        )

    costs = [(c, float(generator.uniform(0.3, 1.0) * c(sizes.astype(float)))) for c in (cost(), cost(), cost())]
    least = [c(np.ones(groups)) <= target for c, target in costs]
    if all(least):
        kept = allocate(*(lambda pair: (pair[0], curves, pair[1]))(joint(costs)))
        assert all(c(kept.astype(float)) <= target * (1 + 1e-9) for c, target in costs)
    else:
        with pytest.raises(BudgetError):
            allocate(*(lambda pair: (pair[0], curves, pair[1]))(joint(costs)))


@pytest.mark.parametrize("seed", range(16))
def test_any_combination_holds_or_is_refused_with_what_contradicts_what(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def some(share: float, make: Callable[[], object]) -> object:
        return make() if generator.random() < share else None

    asked: dict[str, object] = {
        "macs": some(0.5, lambda: float(generator.uniform(0.05, 1))),
        "params": some(0.4, lambda: float(generator.uniform(0.1, 1))),
        "size": some(0.3, lambda: float(generator.choice([0.5, 0.9, 150_000, 500_000]))),
        "max_drop": some(0.2, lambda: float(generator.choice([0.3, 0.95]))),
        "keep": some(0.5, lambda: {str(generator.choice(["/stem*", WIDEN, "op:Gemm", "*gate*"])): _amount(generator)}),
        "at_least": some(0.5, lambda: {str(generator.choice(["*", "/stage1*"])): _amount(generator)}),
        "at_most": some(0.5, lambda: {str(generator.choice(["*", "/stage3*"])): _amount(generator)}),
        "exclude": some(0.2, lambda: ("/stage2/stage2.1*",)),
        "target": some(0.3, lambda: str(generator.choice(["ti-npu", "tensorrt-fp16"]))),
        "round_to": some(0.3, lambda: int(generator.choice([1, 4]))),
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked.keys() & {"macs", "params", "size", "max_drop", "keep"}:
        asked["macs"] = 0.9
    try:
        result = pruned(**asked)
    except BudgetError as refused:
        _blames_what_was_asked(str(refused), asked)
        return
    _holds(result, asked)


def _amount(generator: np.random.Generator) -> float | int:
    return float(generator.choice([0.25, 0.5, 0.75])) if generator.random() < 0.6 else int(generator.choice([4, 8, 12]))


def _holds(result: Result, asked: Mapping[str, Any]) -> None:
    report = result.report
    assert report.macs.ratio <= asked.get("macs", 1)
    assert report.params.ratio <= asked.get("params", 1)
    size = asked.get("size", 1)
    assert report.bytes.after <= (size * report.bytes.before if size <= 1 else max(size, report.bytes.before * (size > report.bytes.before)))
    if "max_drop" in asked:
        assert report.drop is not None and report.drop.value <= asked["max_drop"]
    coupling = onnxprune.analyse(DEMO)
    multiple = asked.get("round_to", TARGETS[asked["target"]].multiple if "target" in asked else 1)
    for group in coupling.groups:
        before, names = len(group), names_of(coupling, group)
        after = widths(result).get(group.name, before)
        counts = {
            flag: [Width(glob, n).of(before) for glob, n in asked.get(flag, {}).items() if matches(names, glob)]
            for flag in ("keep", "at_least", "at_most")
        }
        assert all(after == max(1, np.floor(count + 0.5)) for count in counts["keep"])
        assert all(after >= min(count, before) for count in counts["at_least"])
        assert all(after <= max(1, count) for count in counts["at_most"])
        if any(matches(names, glob) for glob in asked.get("exclude", ())):
            assert after == before
        if not any(counts.values()):
            assert after == before or after % min(multiple, before) == 0


def _blames_what_was_asked(message: str, asked: Mapping[str, Any]) -> None:
    """The message names options that were given, two of them where one alone could be met."""
    named = {flag for flag in asked if re.search(f"--{flag.replace('_', '-').replace('round-to', 'round')}\\b", message)}
    alone = "no prunable channels" in message or "channels; give fewer" in message or len(asked) == 1
    assert len(named) >= 2 or alone, message


# -- widths by name


def test_what_is_given_is_given_and_the_rest_takes_the_budget() -> None:
    result = pruned(macs=0.7, keep={STEM: 9, WIDEN: 0.5}, at_least={"*": 0.25}, at_most={GATE: 0.5}, round_to=1)
    found = widths(result)
    assert (found[STEM], found[WIDEN]) == (9, 40)
    assert found[GATE] <= 6
    before = {row.name: row.before for row in result.report.groups}
    assert all(4 * kept >= before[name] for name, kept in found.items())
    assert result.report.macs.ratio <= 0.7


def test_the_plan_records_what_was_asked_and_replays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["--samples", "32", "--effort", "fast", "--select", "magnitude", "--refit", "none", "--preprocess", "unit", "-q"]
    line = [str(DEMO), "--data", str(CALIB), *quick, "--target", "ti-npu", "--macs", "0.8", "--max-drop", "0.95"]
    line += ["--keep", f"{STEM}=8", "--keep", f"{WIDEN}=50%", "--at-least", "*=0.25", "--exclude", "*gate*"]
    assert main([*line, "-o", "small.onnx", "--plan", "p.json"]) == 0
    plan = Plan.read("p.json")
    assert plan.asked == {
        "macs": 0.8,
        "max-drop": 0.95,
        "keep": (f"{STEM}=8", f"{WIDEN}=0.5"),
        "at-least": ("*=0.25",),
        "exclude": ("*gate*",),
        "target": "ti-npu",
    }
    assert Plan.from_json(plan.to_json()) == plan
    assert main(["apply", str(DEMO), "p.json", "-o", "again.onnx", "-q"]) == 0
    shapes = [{t.name: list(t.dims) for t in onnx.load(name).graph.initializer} for name in ("small.onnx", "again.onnx")]
    assert shapes[0] == shapes[1]
    # What it records is what a file of options says: the same cut, told again.
    again = {key: list(value) if isinstance(value, tuple) else value for key, value in plan.asked.items()}
    Path("o.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in again.items()))
    assert main([str(DEMO), "--data", str(CALIB), *quick, "--config", "o.toml", "-o", "told.onnx"]) == 0
    assert Path("told.onnx").read_bytes() == Path("small.onnx").read_bytes()


def test_a_floor_or_ceiling_above_a_group_is_no_contradiction() -> None:
    result = pruned(macs=0.95, at_least={"*": 40}, at_most={"*": 72}, round_to=1)
    before = {row.name: row.before for row in result.report.groups}
    found = widths(result)
    assert all(kept == before[name] for name, kept in found.items() if before[name] <= 40)
    assert found[WIDEN] <= 72 and before[WIDEN] == 80 and before[GATE] < 40


def test_widths_without_a_budget_leave_the_rest_whole() -> None:
    result = pruned(keep={STEM: 9})
    assert {name for name, kept in widths(result).items() if kept < _before(result, name)} == {STEM}


def _before(result: Result, name: str) -> int:
    return next(row.before for row in result.report.groups if row.name == name)


_SAID = {
    "keep": {STEM: 8},
    "at_least": {STEM: 10},
    "at_most": {STEM: 4},
    "exclude": (STEM,),
    "only": (WIDEN,),
}
_LOW = {"keep": 8, "at_least": 10, "at_most": 1, "exclude": 16, "only": 16}
_HIGH = {"keep": 8, "at_least": 16, "at_most": 4, "exclude": 16, "only": 16}


@pytest.mark.parametrize("names", [c for n in (1, 2, 3) for c in itertools.combinations(_SAID, n)], ids="+".join)
def test_every_combination_holds_or_is_refused_with_both_sides(names: tuple[str, ...]) -> None:
    asked = {name: _SAID[name] for name in names}
    low, high = max(_LOW[name] for name in names), min(_HIGH[name] for name in names)
    if low > high:
        with pytest.raises(
            BudgetError, match=rf"group '{STEM}' has 16 channels: --.* keeps at least {low}, --.* at most {high}"
        ):
            pruned(macs=0.9, round_to=1, **asked)
        return
    result = pruned(macs=0.97, round_to=1, **asked)
    assert low <= widths(result).get(STEM, 16) <= high


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keep": {"nothing*": 0.5}}, "--keep: 'nothing\\*' matches no prunable channels"),
        ({"keep": {STEM: 17}}, "has 16 channels; give fewer, or a share"),
        ({"keep": {STEM: 0}}, "keeps at least one channel"),
        ({"at_most": {STEM: 1.5}}, "a share is above 0 and at most 1"),
        ({"only": ("op:LSTM",)}, "'op:LSTM' matches no prunable channels"),
        ({"target": "tensorrt"}, "unknown value 'tensorrt' .did you mean 'tensorrt-"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(OnnxPruneError, match=message):
        pruned(macs=0.9, **asked)


def test_operators_by_type() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,8] x) => (float[n,3] y) {
        h = Gemm(x, a)  r = Relu(h)  s = MatMul(r, b)  t = Tanh(s)  y = MatMul(t, c) }""")
    generator = np.random.default_rng(0)
    for name, shape in (("a", (8, 12)), ("b", (12, 10)), ("c", (10, 3))):
        array = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    data = generator.standard_normal((40, 8)).astype(np.float32)
    for glob, cut in (("op:Gemm", [True, False]), ("op:MatMul", [False, True]), ("op:*", [True, True])):
        result = onnxprune.prune(model, {"x": data}, keep={glob: 5}, effort="fast", refit="none")
        assert [row.after == 5 for row in result.report.groups if row.locked is None] == cut


# -- targets


@pytest.mark.parametrize("name", ["tensorrt-fp16", "tensorrt-int8", "hexagon", "ti-npu"])
def test_a_target_sets_its_multiple_and_round_wins(name: str) -> None:
    multiple = TARGETS[name].multiple
    result = pruned(macs=0.9, target=name)
    kept = [(row.after, row.before) for row in result.report.groups if row.locked is None]
    assert all(after == before or after % min(multiple, before) == 0 for after, before in kept)
    assert not [note for note in result.report.notes if "takes precedence over" in note]
    if multiple == 32:
        for won in ({"round_to": 1}, {"block": 8}):
            both = pruned(macs=0.9, target=name, **won)
            assert widths(both) == widths(pruned(macs=0.9, **won))
            said = "--round 1" if "round_to" in won else "--round auto:8"
            assert f"{said} takes precedence over --target {name}, which asks for multiples of 32" in both.report.notes


def test_the_guide_lists_every_target_with_its_source() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| (.*?) \| (.*?) \|$", guide.text("targets"), flags=re.M)
    assert rows == [(name, str(t.multiple), t.reason, t.source) for name, t in TARGETS.items()]


# -- the command line and its file


def test_a_file_says_what_the_command_line_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("onnxprune.toml").write_text(
        f'data = "{CALIB}"\npreprocess = "unit"\nsamples = 32\neffort = "fast"\nselect = "magnitude"\nrefit = "none"\n'
        f'macs = 0.5\nround = 1\nquiet = true\nverbose = false\nkeep = ["{STEM}=9"]\nmean = [0.1]\n'
    )
    line = [
        "--keep",
        f"{STEM}=9",
        *["--mean", "0.1", "--preprocess", "unit", "--samples", "32", "--effort", "fast", "-q"],
    ]
    line += ["--data", str(CALIB), *["--select", "magnitude", "--refit", "none", "--round", "1"]]
    assert main([str(DEMO), "-o", "a.onnx", "--config", "onnxprune.toml", "--macs", "0.7"]) == 0
    assert main([str(DEMO), "-o", "b.onnx", *line, "--macs", "0.7"]) == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mcas = 0.5", "unknown option 'mcas' (did you mean 'macs'?); 'onnxprune prune --help' lists the options"),
        ("macs = true", "'macs' must be a number"),
        ("quiet = 1", "'quiet' is a switch"),
        ("macs = {a = 1}", "'macs' must be a number"),
        ("macs = 2.0", "onnxprune.toml: --macs: 2.0: the fraction kept"),
        ("macs = ", "not TOML"),
        ('config = "other.toml"', "unknown option 'config'"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "onnxprune.toml"
    path.write_text(text)
    assert main([str(DEMO), "--config", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert main([str(DEMO), "--config", str(tmp_path / "none.toml")]) == 2
    assert "check its path" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a", "=0.5", "a=", "a=0", "a=2.5", "a=x"])
def test_a_width_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DEMO), "--keep", text]) == 2
    assert "--keep" in capsys.readouterr().err


def test_a_width_says_itself() -> None:
    assert Width("a*", 0.5).describe() == "a*=0.5" and Width("a*", 3).of(8) == 3 and Width("b", 0.5).of(7) == 3.5
