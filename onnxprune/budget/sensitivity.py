"""What cutting one group does to the model's output: measured at a few widths, interpolated between.

For each group the original runs on some of the holdout with only that group narrowed
(:mod:`onnxprune.budget.narrowed`).  Between the measured widths the damage follows the selector's error curve
(:mod:`onnxprune.budget.interpolate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.budget.allocate import Curve
from onnxprune.budget.cost import macs, sizes
from onnxprune.budget.interpolate import interpolate
from onnxprune.budget.narrowed import narrowed_constants
from onnxprune.budget.probe import Probe
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.coupling.groups import Group
from onnxprune.effort import measurements
from onnxprune.engine.store import Store
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, readers_of

Array = np.ndarray


def first_reader(given: Calibrated, group: Group) -> int:
    """The node index of the first layer that reads ``group``; -1 where none does."""
    return min((reader.index for reader in readers_of(given.coupling, group, given.layers)), default=-1)


def curves(
    given: Calibrated,
    rankings: Mapping[str, Sequence[Ranking]],
    frozen: frozenset[int],
    allowance: float,
    progress: Progress,
) -> dict[str, list[Curve]]:
    """Per selector's name one :class:`Curve` per group, of every width; groups in ``frozen`` may only stay whole.

    ``rankings``: per selector one order of units per group.  Cost: per group, selector and share, what comes behind
    the group's first reader, over the samples that ``allowance``, in multiply-accumulates,
    allows.
    """
    coupling = given.coupling
    found = {name: [_uncut(group) for group in coupling.groups] for name in rankings}
    asked = in_graph_order(given, frozen)
    if not asked:
        progress.stage("sensitivity", 0)
        return found
    # On average a group stands in the middle: half of the network comes behind it.
    each = macs(coupling)(sizes(coupling)) * len(asked) / 2
    shares, samples = measurements(allowance / len(rankings), each)
    progress.stage("sensitivity", len(asked) * len(shares) * len(rankings))
    with Store(given.memory) as store:
        few = given.dataset.take(list(range(min(given.dataset.count, samples))))
        stops = [stop for stop, _ in asked if stop >= 0]
        probe = Probe(coupling, few, given.engine, store, stops)
        for stop, group in asked:
            for name, orders in rankings.items():
                ranking = orders[group.id]
                measured = _measured(given, probe, group, ranking, stop, shares, progress)
                curve = interpolate(ranking.error, measured)
                found[name][group.id] = Curve(curve, np.arange(1, len(group) + 1))
    return found


def in_graph_order(given: Calibrated, frozen: frozenset[int]) -> list[tuple[int, Group]]:
    """Groups that may be cut, each with its first reader, in the order of these."""
    first = {group.id: first_reader(given, group) for group in given.coupling.groups}
    asked = [group for group in given.coupling.groups if group.id not in frozen]
    return [(first[group.id], group) for group in sorted(asked, key=lambda g: (first[g.id], g.id))]


def _uncut(group: Group) -> Curve:
    return Curve(np.zeros(len(group) + 1), np.asarray([len(group)]))


def _measured(
    given: Calibrated,
    probe: Probe,
    group: Group,
    ranking: Ranking,
    stop: int,
    shares: Sequence[float],
    progress: Progress,
) -> list[tuple[int, float]]:
    """(units kept, damage) at each share of ``group``; what has no reader to fold (quantized weights, say) is cut."""
    found: list[tuple[int, float]] = []
    for share in shares:
        count = max(1, round(len(group) * share))
        kept = np.zeros(len(group), dtype=np.bool_)
        kept[ranking.order[:count]] = True
        constants = narrowed_constants(given.coupling, group, kept, given.layers, given.grams)
        damage = probe.damage(constants, stop) if constants else probe.damage_of_cut(group, kept)
        found.append((count, max(damage, 0.0)))
        progress.advance()
    return found
