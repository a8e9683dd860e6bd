"""Turn a parsed command line into Options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from onnxprune.cli.parser import UsageError
from onnxprune.cli.table import DIRECT
from onnxprune.options import Options
from onnxprune.target import Budget, BudgetKind

if TYPE_CHECKING:
    from onnxprune.calibration.preprocess import Preprocess

_KINDS: tuple[BudgetKind, ...] = get_args(BudgetKind)
_OVERRIDES = ("mean", "std", "resize", "crop", "bgr", "fit")


def options_from(arguments: argparse.Namespace) -> Options:
    """The Options of a parsed command line.  Options that the command lacks keep their defaults.

    Raises:
        OnnxPruneError: options contradict each other or name something that does not exist.
    """
    given = vars(arguments)
    direct = {name: given[name] for name in DIRECT if name in given}
    multiple, block = given.get("rounding") or (None, None)
    return replace(
        Options(), budgets=_budgets(given), preprocess=_preprocess(given), round_to=multiple, block=block, **direct
    )


def _budgets(given: Mapping[str, object]) -> tuple[Budget, ...]:
    budgets = []
    for kind in _KINDS:
        value = given.get(kind)
        if isinstance(value, float):
            if kind == "max_drop" and given.get("evaluate") is None:
                check_drop(value)
            budgets.append(Budget(kind, value))
    return tuple(budgets)


def check_drop(value: float) -> None:
    """Reject an allowed drop above 1.  No drop of onnxprune's own metrics exceeds 1; the user's metric may.

    Raises:
        UsageError: the drop is above 1.
    """
    if value > 1:
        hint = f"; to allow {value:g} % give {value / 100:g}" if value <= 100 else ""
        raise UsageError(f"--max-drop: {value:g}: a drop is at most 1{hint}")


def _preprocess(given: Mapping[str, object]) -> Preprocess | None:
    name = given.get("preset")
    overrides = [f"--{given[key] if key == 'fit' else key}" for key in _OVERRIDES if given.get(key)]
    if name is None:
        if overrides:
            raise UsageError(
                f"{overrides[0]} changes part of a preset; also give --preprocess, such as --preprocess unit"
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
        fit=str(given.get("fit") or "crop"),
    )


def _cast_numbers(value: object) -> tuple[float, ...] | None:
    return value if isinstance(value, tuple) else None


def _cast_int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _cast_pair(value: object) -> tuple[int, int] | None:
    return (value[0], value[1]) if isinstance(value, tuple) else None
