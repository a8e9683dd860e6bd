"""The user's bounds on the channels of groups, given by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.errors import BudgetError
from onnxprune.options import Options
from onnxprune.pipeline.group_names import matches, names_of
from onnxprune.target import Width

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Bounds:
    """Minimum and maximum units to keep per group, int64 (groups,), 1 ≤ low ≤ high ≤ size."""

    low: Array
    high: Array

    def of(self, group: int, widths: Array) -> Array:
        """The ``widths`` (ascending) within the bounds of a group; at least one width."""
        low, high = int(self.low[group]), int(self.high[group])
        inside = widths[(low <= widths) & (widths <= high)]
        # All widths of a coarse grid may lie outside the bounds.  The user's bound takes precedence.
        return inside if len(inside) and low < high else np.asarray([high], dtype=np.int64)


@dataclass(frozen=True)
class _Limit:
    """A bound of one group and the option that sets it."""

    count: int
    by: str


def bounds(coupling: Coupling, frozen: frozenset[int], options: Options) -> Bounds:
    """The bounds that ``--keep``, ``--at-least``, ``--at-most``, ``--only`` and ``--exclude`` set.

    ``frozen`` holds the ids of the groups that ``--only``, ``--exclude`` or untaken branches leave whole.

    Raises:
        BudgetError: a glob matches no group, or two options contradict each other.
    """
    names = {group.id: names_of(coupling, group) for group in coupling.groups}
    flags_and_widths = (
        *(("--keep", width) for width in options.keep),
        *(("--at-least", width) for width in options.at_least),
        *(("--at-most", width) for width in options.at_most),
    )
    for flag, width in flags_and_widths:
        if not any(matches(aliases, width.glob) for aliases in names.values()):
            raise BudgetError(
                f"{flag}: '{width.glob}' matches no prunable channels; 'onnxprune inspect' shows the names of groups"
            )
    limits = [_group(group, names[group.id], frozen, options) for group in coupling.groups]
    return Bounds(
        np.asarray([low for low, _ in limits], dtype=np.int64), np.asarray([high for _, high in limits], dtype=np.int64)
    )


def _group(group: Group, names: frozenset[str], frozen: frozenset[int], options: Options) -> tuple[int, int]:
    size = len(group)
    exact = _limits("--keep", options.keep, names, group, round_half_up)
    if group.id in frozen:
        exact = [*exact, _Limit(size, "--exclude, --only or an untaken branch")]
    lows = [_Limit(1, ""), *exact, *_limits("--at-least", options.at_least, names, group, math.ceil)]
    highs = [_Limit(size, ""), *exact, *_limits("--at-most", options.at_most, names, group, math.floor)]
    low, high = max(lows, key=lambda limit: limit.count), min(highs, key=lambda limit: limit.count)
    if low.count > high.count:
        raise BudgetError(
            f"group '{group.name}' has {size} channels: {low.by} keeps at least {low.count}, {high.by} at most "
            f"{high.count}; change one of them"
        )
    return low.count, high.count


def _limits(
    flag: str, widths: Sequence[Width], names: frozenset[str], group: Group, to_count: Callable[[float], int]
) -> list[_Limit]:
    limits = []
    for width in widths:
        if matches(names, width.glob):
            count = max(1, to_count(width.of(len(group))))
            if count > len(group) and flag == "--keep":
                raise BudgetError(
                    f"{flag} {width.describe()}: group '{group.name}' has {len(group)} channels; give fewer, or a share"
                )
            # A group with fewer channels than a lower limit stays whole; one with fewer than an upper limit meets it.
            limits.append(_Limit(min(count, len(group)), f"{flag} {width.describe()}"))
    return limits


def round_half_up(value: float) -> int:
    """Round to the nearest whole number; halves round up.

    >>> round_half_up(2.5), round_half_up(2.4)
    (3, 2)
    """
    return math.floor(value + 0.5)
