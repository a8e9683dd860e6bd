"""The before/after table, as text cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onnxprune.metrics import OWN
from onnxprune.report import wording
from onnxprune.result import Change, Comparison, Drop, DropSource, GroupRow, Report


@dataclass(frozen=True)
class Row:
    """One line of the table; ``better`` is None if neither side is better."""

    label: str
    before: str
    after: str
    change: str
    better: bool | None


def summary_rows(report: Report | Comparison) -> tuple[Row, ...]:
    """Rows for size, speed and accuracy.  A row says so if its value was not measured."""
    spread = report.latency_spread
    rows = [
        _quantity("MACs", report.macs, wording.si),
        _quantity("parameters", report.params, wording.si),
        _quantity("file", report.bytes, wording.byte_text),
        _latency(report.latency_ms, spread),
        _drop(report.drop, report.drop_source),
        *_figures(report.drop),
    ]
    if report.accuracy is not None:
        accuracy = report.accuracy
        same = abs(accuracy.after - accuracy.before) < 5e-5
        rows.append(
            Row(
                "accuracy",
                f"{accuracy.before:.2%}",
                f"{accuracy.after:.2%}",
                wording.points_text(accuracy),
                None if same else accuracy.after > accuracy.before,
            )
        )
    for name, score in report.scores:
        same = abs(score.after - score.before) < 5e-5
        better = None if same else score.after > score.before
        change = "same" if same else f"{score.after - score.before:+.3f}"
        rows.append(Row(name, f"{score.before:.3f}", f"{score.after:.3f}", change, better))
    return tuple(rows)


def biggest(groups: Sequence[GroupRow], most: int | None) -> tuple[GroupRow, ...]:
    """The ``most`` groups with the most MACs (None: all groups), in the order of the model."""
    if most is None or len(groups) <= most:
        return tuple(groups)
    chosen = {id(row) for row in sorted(groups, key=lambda row: -row.macs_share)[:most]}
    return tuple(row for row in groups if id(row) in chosen)


@dataclass(frozen=True)
class Lock:
    """Locked channels with a common reason: the ``row`` with the most MACs, and the number of others (``alike``)."""

    row: GroupRow
    reason: str
    alike: int


#: From this many locks of the same kind on, show only one of them.
_ALIKE = 3


def locks(groups: Sequence[GroupRow]) -> tuple[Lock, ...]:
    """The locked ``groups``, the most MACs first.  Three or more whose reasons differ only in names become one."""
    kinds: dict[str, list[Lock]] = {}
    for row in sorted(groups, key=lambda row: -row.macs_share):
        reason = _without_own_name(row)
        kinds.setdefault(re.sub(r"'[^']*'", "''", reason), []).append(Lock(row, reason, 0))
    merged: list[Lock] = []
    for kind in kinds.values():
        merged += [replace(kind[0], alike=len(kind) - 1)] if len(kind) >= _ALIKE else kind
    return tuple(sorted(merged, key=lambda lock: -lock.row.macs_share))


def _without_own_name(row: GroupRow) -> str:
    """The reason, with \"it\" for the node that the row is named after."""
    own = row.name.partition("#")[0]
    return re.sub(rf"\w+ '{re.escape(own)}'", "it", row.locked or "")


def left_out(groups: Sequence[GroupRow], shown: Sequence[GroupRow]) -> str | None:
    """A line about the groups that are not shown; None if all are."""
    hidden = len(groups) - len(shown)
    if not hidden:
        return None
    names = {id(row) for row in shown}
    rest = [row for row in groups if id(row) not in names]
    largest, cut = max(row.macs_share for row in rest), sum(row.after < row.before for row in rest)
    each = "none over" if hidden > 1 else "with"
    # Perhaps only hidden groups were cut: the reader must know.
    narrowed = f" ({cut} of them narrowed)" if cut else ""
    return f"… and {hidden} more{narrowed}, {each} {wording.percent(largest)} of the MACs; -v shows all"


def _quantity(label: str, change: Change, word: Callable[[float], str]) -> Row:
    better = None if change.before == change.after else change.after < change.before
    return Row(label, word(change.before), word(change.after), wording.change_text(change), better)


def _latency(change: Change | None, spread: tuple[float, float] | None) -> Row:
    if change is None:
        return Row("latency", "–", "–", "not measured", None)
    before, after = wording.milliseconds(change.before), wording.milliseconds(change.after)
    if wording.same_speed(change, spread):
        return Row("latency", before, after, "same, within error", None)
    text = wording.speed_text(change, spread) or ""
    error = spread[1] / change.after * max(change.ratio, 1 / change.ratio) if spread and change.after else 0.0
    if error >= 0.005:
        text += f" ±{error:.2f}"
    return Row("latency", before, after, text, change.after < change.before)


def _figures(drop: Drop | None) -> list[Row]:
    """The task's usual figures, such as AP50.  Tasks without such figures have only the drop."""
    if drop is None or drop.metric not in wording.AGREEMENTS:
        return []
    return [Row(name, "–", f"{value:.3f}", "against the original", None) for name, value in drop.figures]


def _drop(drop: Drop | None, source: DropSource) -> Row:
    if drop is None:
        return Row("drop", "–", "–", "not measured", None)
    samples = f"{drop.samples:,} {'made-up ' if source == 'made up' else ''}sample{'' if drop.samples == 1 else 's'}"
    if drop.metric == OWN:
        return Row(f"drop: {drop.metric}", "–", wording.drop_value(drop), "as --eval measures it", None)
    between = wording.could_be(drop)
    if between is None or source == "made up":
        return Row(f"drop: {drop.metric}", "–", wording.drop_value(drop), f"on {samples}", None)
    # A few samples give only a rough share, but a reader takes "0.0%" for a fact.
    share = drop.metric in wording.SHARES
    low, high = (f"{value:.0%}" if share else wording.decimals(value) for value in between)
    samples = f"{low} to {high} ({samples})"
    return Row(f"drop: {drop.metric}", "–", wording.drop_value(drop), samples, None)
