"""The options that several commands share, and how they become an Options value."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import values
from onnxprune.cli.parser import Parser, UsageError, nearest
from onnxprune.options import AUTO, EFFORT_NAMES, REFITS, SELECTORS, TASKS, Options
from onnxprune.target import Budget, Kind

if TYPE_CHECKING:
    from onnxprune.calibration.preprocess import Preprocess

_KINDS: tuple[Kind, ...] = ("macs", "params", "size", "latency", "max_drop")
_OVERRIDES = ("mean", "std", "resize", "crop", "bgr")


def add_common(parser: Parser) -> None:
    """What every command takes."""
    parser.add_argument("--shape", action="append", type=values.shape, default=[], metavar="NAME=DIMS")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")


def add_rules(parser: Parser) -> None:
    parser.add_argument("--approximate", dest="rules", action="store_const", const="approximate", default="exact")


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true")


def add_engine(parser: Parser) -> None:
    parser.add_argument("--providers", type=values.providers, metavar="LIST")
    parser.add_argument("--threads", type=values.whole(0), default=0)
    parser.add_argument("--memory", type=values.byte_count, metavar="BYTES")


def add_data(parser: Parser) -> None:
    parser.add_argument("--data", metavar="SRC")
    parser.add_argument("--samples", type=values.whole(1))
    parser.add_argument("--preprocess", metavar="P")
    parser.add_argument("--mean", type=values.numbers)
    parser.add_argument("--std", type=values.numbers)
    parser.add_argument("--resize", type=values.whole(1))
    parser.add_argument("--crop", type=values.crop)
    parser.add_argument("--bgr", action="store_true")
    parser.add_argument("--eval", dest="evaluate", metavar="FILE.py:FUNCTION")
    parser.add_argument("--test", metavar="SRC")
    parser.add_argument("--task", type=values.choice(TASKS), default=AUTO)
    parser.add_argument("--layout", default="", metavar="WORDS")
    parser.add_argument("--seed", type=values.whole(0), default=0)


def add_pruning(parser: Parser) -> None:
    for kind in ("macs", "params", "latency"):
        parser.add_argument(f"--{kind}", type=values.fraction, metavar="R")
    parser.add_argument("--size", type=values.size, metavar="R-or-BYTES")
    parser.add_argument("--max-drop", type=values.drop, metavar="X")
    parser.add_argument("--select", type=values.choice(SELECTORS), default=AUTO)
    parser.add_argument("--refit", type=values.choice(REFITS), default="lstsq")
    parser.add_argument("--effort", type=values.choice(EFFORT_NAMES), default="default")
    parser.add_argument("--round", dest="round_to", type=values.multiple, default=None, metavar="auto|N")
    parser.add_argument("--latency-table", type=Path, metavar="FILE")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB")
    add_rules(parser)


def options_from(arguments: argparse.Namespace) -> Options:
    """The Options of a parsed command line; what the command does not offer keeps its default.

    Raises:
        OnnxPruneError: where options contradict each other, or name what is not there.
    """
    given = vars(arguments)
    defaults = Options()
    return Options(
        budget=_budget(given),
        samples=given.get("samples", defaults.samples),
        preprocess=_preprocess(given),
        select=given.get("select", defaults.select),
        refit=given.get("refit", defaults.refit),
        effort=given.get("effort", defaults.effort),
        round_to=given.get("round_to"),
        latency_table=given.get("latency_table"),
        exclude=tuple(given.get("exclude", ())),
        only=tuple(given.get("only", ())),
        evaluate=given.get("evaluate"),
        test=given.get("test"),
        providers=_available(given.get("providers")) or defaults.providers,
        threads=given.get("threads", defaults.threads),
        memory=given.get("memory"),
        seed=given.get("seed", defaults.seed),
        shapes=dict(given["shape"]),
        rules=given.get("rules", defaults.rules),
        task=given.get("task", defaults.task),
        layout=given.get("layout", defaults.layout),
        pictures=0 if given.get("no_samples") else defaults.pictures,
    )


def _budget(given: Mapping[str, object]) -> Budget:
    asked = [(kind, given[kind]) for kind in _KINDS if given.get(kind) is not None]
    if not asked:
        return Options().budget
    if len(asked) > 1:
        flags = " and ".join("--" + kind.replace("_", "-") for kind, _ in asked)
        raise UsageError(f"one budget at a time, got {flags}; choose one of them")
    kind, value = asked[0]
    assert isinstance(value, float)
    if kind == "max_drop" and given.get("evaluate") is None:
        check_drop(value)
    return Budget(kind, value)


def check_drop(value: float) -> None:
    """Refuse what no drop reaches: a share, and a relative error that leaves nothing of the outputs.

    The user's own metric may be in any unit.
    """
    if value > 1:
        hint = f"; to allow {value:g} % give {value / 100:g}" if value <= 100 else ""
        raise UsageError(f"--max-drop: {value:g}: a drop is at most 1{hint}")


def _preprocess(given: Mapping[str, object]) -> Preprocess | None:
    name = given.get("preprocess")
    overrides = [f"--{key}" for key in _OVERRIDES if given.get(key)]
    if name is None:
        if overrides:
            raise UsageError(
                f"{overrides[0]} changes a part of a preset; give --preprocess too, such as --preprocess unit"
            )
        return None
    from onnxprune.calibration.preprocess import Preprocess

    return Preprocess.named(
        str(name),
        mean=_cast_numbers(given.get("mean")),
        std=_cast_numbers(given.get("std")),
        resize=_cast_int(given.get("resize")),
        crop=_cast_pair(given.get("crop")),
        bgr=True if given.get("bgr") else None,
    )


def _available(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Refuses here what onnxruntime would silently replace by the CPU."""
    if names is None:
        return None
    import onnxruntime

    here: list[str] = onnxruntime.get_available_providers()
    for name in names:
        if name not in here:
            # A provider that exists, but not in this package, is no misspelling.
            near = "" if name in values.PROVIDERS.values() else nearest(name, (*values.PROVIDERS, *here))
            raise UsageError(
                f"--providers: this onnxruntime has no {name}{near}; it has {', '.join(here)}; "
                "others come with other packages, such as onnxruntime-gpu"
            )
    return names


def _cast_numbers(value: object) -> tuple[float, ...] | None:
    return value if isinstance(value, tuple) else None


def _cast_int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _cast_pair(value: object) -> tuple[int, int] | None:
    return (value[0], value[1]) if isinstance(value, tuple) else None
