"""The user's targets: budgets, and the widths of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from onnxprune.errors import BudgetError

BudgetKind = Literal["macs", "params", "size", "latency", "max_drop"]


@dataclass(frozen=True)
class Budget:
    """One budget: an upper limit.

    ``value`` is the fraction kept for "macs", "params" and "latency", above 0 and at most 1.  For "size" it is the same,
    or a number of bytes if above 1.  For "max_drop" it is the largest allowed drop on the holdout, 0 or more.

    Raises:
        BudgetError: if the value is not such a number.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if self.kind == "max_drop":
            if not (math.isfinite(self.value) and self.value >= 0):
                raise BudgetError(f"max-drop must be 0 or more, got {self.value:g}; 0.01 allows one percent")
        elif not (math.isfinite(self.value) and self.value > 0):
            raise BudgetError(f"{self.kind} must be above 0, got {self.value:g}; 0.5 keeps half")
        elif self.kind != "size" and self.value > 1:
            raise BudgetError(
                f"{self.kind} is the fraction kept, above 0 and at most 1, got {self.value:g}; 0.5 keeps half"
            )

    def describe(self) -> str:
        """As the user would write it on the command line, ``--max-drop 0.01``."""
        flag = self.kind.replace("_", "-")
        exact_bytes = self.kind == "size" and self.value > 1
        return f"--{flag} {int(self.value) if exact_bytes else format(self.value, 'g')}"


#: The budget if the user gives none.  A task may allow a larger drop.
DEFAULT_BUDGET = Budget("max_drop", 0.01)


@dataclass(frozen=True)
class Width:
    """How many channels the groups keep that match ``glob``: a share of their own, or a number.

    ``amount``: a float is a share, above 0 and at most 1; an int is a number of channels, at least 1.

    Raises:
        BudgetError: if the amount is neither.
    """

    glob: str
    amount: float | int

    def __post_init__(self) -> None:
        if isinstance(self.amount, int):
            if self.amount < 1:
                raise BudgetError(f"{self.describe()}: a group keeps at least one channel")
        elif not 0 < self.amount <= 1:
            raise BudgetError(f"{self.describe()}: a share is above 0 and at most 1; 0.5 keeps half")

    def describe(self) -> str:
        """As the user would write it, ``backbone.*=0.75``."""
        return f"{self.glob}={self.amount}"

    def of(self, size: int) -> float:
        """The channels of a group of ``size`` channels, not rounded."""
        return self.amount if isinstance(self.amount, int) else self.amount * size
