"""Values of options from what a caller in Python gives.

Raises, everywhere:
    OptionError: the argument ``name`` is of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

from onnxprune.calibration.preprocess import Preprocess
from onnxprune.option_kinds import NUMBER, PATH, SHAPES, TEXT, WIDTHS, OptionKind, one_of
from onnxprune.options import RULES
from onnxprune.target import Budget, BudgetKind, Width
from onnxprune.tuning_length import TuningLength, parse_length

_PREPROCESS = OptionKind("the name of a preset or a Preprocess", lambda value: isinstance(value, (str, Preprocess)))


def budgets_of(given: Mapping[BudgetKind, float | None]) -> tuple[Budget, ...]:
    asked = {kind: value for kind, value in given.items() if value is not None}
    for kind, value in asked.items():
        NUMBER.check(kind, value)
    return tuple(Budget(kind, value) for kind, value in asked.items())


def widths_of(name: str, given: Mapping[str, float | int] | None) -> tuple[Width, ...]:
    if given is None:
        return ()
    WIDTHS.check(name, given)
    return tuple(Width(glob, _plain(amount)) for glob, amount in given.items())


def shapes_of(given: Mapping[str, tuple[int, ...]] | None) -> dict[str, tuple[int, ...]]:
    if given is None:
        return {}
    SHAPES.check("shapes", given)
    return {name: tuple(shape) for name, shape in given.items()}


def rules_of(given: str) -> str:
    one_of("rules", given, RULES)
    return given


def length_of(name: str, given: str) -> TuningLength:
    TEXT.check(name, given)
    return parse_length(given)


def path_of(name: str, given: str | Path | None) -> Path | None:
    if given is None:
        return None
    PATH.check(name, given)
    return Path(given)


def preprocess_of(given: str | Preprocess | None) -> Preprocess | None:
    if given is None:
        return None
    _PREPROCESS.check("preprocess", given)
    return Preprocess.named(given) if isinstance(given, str) else given


def _plain(amount: Real | float) -> float | int:
    """numpy's whole numbers are counts, too."""
    return int(amount) if isinstance(amount, Integral) else float(amount)
