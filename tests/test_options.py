"""What an option cannot be is refused at once, whoever asks."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import onnxprune
from onnxprune.calibration.preprocess import PRESETS
from onnxprune.cli.option import Option
from onnxprune.cli.table import DIRECT, OPTIONS
from onnxprune.effort import EFFORTS
from onnxprune.errors import ModelError, OnnxPruneError, OptionError
from onnxprune.option_kinds import KINDS
from onnxprune.option_values import widths_of
from onnxprune.options import EFFORT_NAMES, PRESET_NAMES, Options
from onnxprune.target import BudgetKind, Width


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"select": "qrr"}, "did you mean 'qr'.*; choose from auto, qr, obs, magnitude, random"),
        ({"effort": "fst"}, "did you mean 'fast'"),
        ({"refit": "x"}, "choose from lstsq, none"),
        ({"rules": "x"}, "choose from exact, approximate"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"round_to": 0}, "round_to must be at least 1"),
        ({"memory": -5}, "memory must be at least 1"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"threads": 10**6}, r"threads: 1000000 are too many for the \d+ cores of this machine; give at most \d+"),
        ({"only": "conv*"}, r"only takes several: give \('conv\*',\)"),
        ({"providers": "CPUExecutionProvider"}, "providers takes several"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_read(given: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        onnxprune.prune("there is no such file", **given)  # type: ignore[arg-type]


#: Arguments that take anything: data, objects with methods, and what other tests refuse.
ANYTHING = {"model", "student", "teacher", "a", "b", "data", "test", "evaluate", "progress", "plan", "name"}
#: What messages call an argument, if not by its name.
CALLED = {"max_drop": "max.drop", "preprocess": "preprocess|preset", "length": "length|tune"}
WRONG: tuple[object, ...] = (None, "x", 2.5, [1], True, -1, {}, {"x": "y"}, b"x", object())


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:14])
@pytest.mark.parametrize("function", [onnxprune.prune, onnxprune.tune, onnxprune.compare], ids=lambda f: f.__name__)
def test_an_argument_of_another_kind_is_refused_by_its_name(function: Callable[..., object], wrong: object) -> None:
    """Either the run goes on (and finds no such file), or one line names the argument."""
    models = ["there is no such file"] * (1 if function is onnxprune.prune else 2)
    data = ["nor such data"] if function is onnxprune.tune else []
    for name in inspect.signature(function).parameters:
        if name in ANYTHING:
            continue
        with pytest.raises(OnnxPruneError) as raised:
            function(*models, *data, **{name: wrong})
        assert re.search(f"there is no such file|{CALLED.get(name, name)}", str(raised.value)), f"{name}={wrong!r}"


@pytest.mark.parametrize("wrong", [None, 3, [1], b"x", object()], ids=lambda wrong: repr(wrong)[:14])
@pytest.mark.parametrize("name", ["prune", "tune", "compare", "inspect", "analyse", "why", "apply"])
def test_what_is_no_model_is_one_line(name: str, wrong: object) -> None:
    more = {"tune": ["models/demo.onnx", "data"], "compare": ["models/demo.onnx"], "why": ["logits"], "apply": ["plan"]}
    with pytest.raises(ModelError, match="a model is a path, a ModelProto or an onnx-graphsurgeon graph, not "):
        getattr(onnxprune, name)(wrong, *more.get(name, []))


@pytest.mark.parametrize("wrong", [None, 3, [1], {"x": "y"}, "x"], ids=lambda wrong: repr(wrong)[:14])
@pytest.mark.parametrize("name", ["inspect", "analyse", "why"])
@pytest.mark.parametrize("option", ["rules", "shapes"])
def test_a_look_refuses_wrong_options_by_name(name: str, option: str, wrong: object) -> None:
    if option == "shapes" and wrong is None:
        return
    with pytest.raises(OptionError, match=f"{option}(:| must be)"):
        getattr(onnxprune, name)("models/demo.onnx", *(["logits"] if name == "why" else []), **{option: wrong})


def test_a_provider_may_come_with_its_own_options() -> None:
    pairs = (("CPUExecutionProvider", {"use_arena": "0"}), "CPUExecutionProvider")
    assert Options(providers=pairs).providers == pairs  # type: ignore[arg-type]


def test_counts_that_numpy_made_are_counts() -> None:
    assert widths_of("keep", {"a": np.int64(8), "b": np.float32(0.5)}) == (Width("a", 8), Width("b", 0.5))


def test_the_kind_of_every_option_is_stated() -> None:
    own = {"budgets", "preprocess", "latency_table", "keep", "at_least", "at_most", "tune", "evaluate", "test"}
    assert set(KINDS) | own == {field.name for field in fields(Options)}


PACKAGE = Path(onnxprune.__file__).parent
#: What fills a field of Options together with others, or under another name.
JOINED = {"budgets", "preprocess", "round_to", "block"}


@cache
def read_of(*names: str) -> set[str]:
    """Attributes that the package reads of variables of these names, beside what parses the command line."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("options.py", "arguments.py", "table.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                last = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
                if last in names:
                    found.add(node.attr)
    return found


@pytest.mark.parametrize("name", [field.name for field in fields(Options)])
def test_every_choice_of_a_run_can_be_made_and_is_read(name: str) -> None:
    assert name in read_of("options") or (name == "budgets" and "asked" in read_of("options"))
    assert name in JOINED or name in {option.name for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.name} of {' '.join(option.commands)}")
def test_no_option_is_parsed_and_ignored(option: Option) -> None:
    # Help and files of options are the parser's own business.
    if option.name in ("help", "config") or option.name in {field.name for field in fields(Options)}:
        return
    joined = (PACKAGE / "cli" / "arguments.py").read_text(encoding="utf-8")
    kinds = get_args(BudgetKind)
    assert option.name in read_of("arguments") | set(kinds) or f'"{option.name}"' in joined


@pytest.mark.parametrize("name", sorted({command for option in OPTIONS for command in option.commands}))
def test_no_flag_of_a_command_means_two_things(name: str) -> None:
    own = [option for option in OPTIONS if name in option.commands]
    flags = [flag for option in own for flag in option.flags]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("function", [onnxprune.prune, onnxprune.tune, onnxprune.compare], ids=lambda function: function.__name__)
def test_python_and_the_command_line_have_the_same_defaults(function: object) -> None:
    defaults = {field.name: getattr(Options(), field.name) for field in fields(Options)}
    stated = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
        if name in defaults
    }
    assert len(stated) > 5
    # An empty collection is None in a signature.
    assert {name: value for name, value in stated.items() if (value or None) != (defaults[name] or None)} == {}


#: Options with another name in Python.
RENAMED = {"rounding": "round_to", "tune": "length"}


@pytest.mark.parametrize("name", ["prune", "tune", "compare"])
def test_python_takes_every_option_of_the_command_line(name: str) -> None:
    taken = set(inspect.signature(getattr(onnxprune, name)).parameters)
    own = {option.name for option in OPTIONS if name in option.commands and option.name in DIRECT}
    own = {RENAMED.get(option, option) if option not in taken else option for option in own}
    assert own - taken == set()


def test_names_that_the_command_line_knows_without_loading_numpy_are_the_real_ones() -> None:
    assert set(EFFORT_NAMES) == set(EFFORTS)
    assert set(PRESET_NAMES) == set(PRESETS)
