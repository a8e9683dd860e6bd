"""What cutting one group does to the model's output: measured at a few widths, interpolated between.

For each group the original runs on some of the holdout with only that group narrowed
(:mod:`onnxprune.budget.narrowed`).  Between the measured widths the damage follows the selector's error curve
(:mod:`onnxprune.budget.interpolate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget.cost import macs, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.interpolate import interpolate
from onnxprune.budget.narrowed import narrowed_constants
from onnxprune.budget.probe import Probe
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.effort import PER_NODE, measurements
from onnxprune.engine.store import Store
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, readers_of

Array = np.ndarray


def first_reader(given: Calibrated, group: Group) -> int:
    """The node index of the first layer that reads ``group``; -1 where none does."""
    return min((reader.index for reader in readers_of(given.coupling, group, given.layers)), default=-1)


#: Per selector's name (units kept, output loss) at each share of one group.
Measured = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Survey:
    """What is measured: ``asked`` groups, as (first reader, group id) in graph order, each at ``shares`` of its units, on
    so many ``samples``."""

    asked: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]
    samples: int


def survey_of(given: Calibrated, frozen: frozenset[int], allowance: float, most: int) -> Survey:
    """A survey of all groups that are not ``frozen``, by ``allowance`` multiply-accumulates per order of channels, on at
    most ``most`` samples."""
    coupling = given.coupling
    asked = tuple(sorted((first_reader(given, g), g.id) for g in coupling.groups if g.id not in frozen))
    # On average a group stands in the middle: half of the network comes behind it.
    halves = len(asked) / 2
    fixed = PER_NODE * len(coupling.graph.nodes) * halves
    shares, samples = measurements(allowance, macs(coupling)(sizes(coupling)) * halves, fixed, most)
    return Survey(asked, shares, min(given.dataset.count, samples))


def measured(
    given: Calibrated, rankings: Mapping[str, Sequence[Ranking]], survey: Survey, part: range, progress: Progress
) -> list[Measured]:
    """The output losses of the groups ``part`` of ``survey.asked``; ``progress`` advances once per measurement.

    ``rankings``: per selector one order of units per group.  What is measured of a group does not depend on which
    others are in ``part``.  Cost: one pass over the samples, and per group, selector and share, what comes behind the
    group's first reader.
    """
    found: list[Measured] = []
    with Store(given.memory) as store:
        few = given.dataset.take(list(range(survey.samples)))
        stops = [stop for stop, _ in survey.asked if stop >= 0]
        probe = Probe(given.coupling, few, given.engine, store, stops)
        for stop, number in survey.asked[part.start : part.stop]:
            group = given.coupling.groups[number]
            found.append(
                {
                    name: _measured(given, probe, group, orders[number], stop, survey.shares, progress)
                    for name, orders in rankings.items()
                }
            )
    return found


def curves(
    coupling: Coupling, rankings: Mapping[str, Sequence[Ranking]], survey: Survey, found: Sequence[Measured]
) -> dict[str, list[Curve]]:
    """Per selector's name one :class:`Curve` per group, of every width, from what was ``found`` of ``survey.asked``;
    other groups may only stay whole."""
    made = {name: [_uncut(group) for group in coupling.groups] for name in rankings}
    for (_, number), losses in zip(survey.asked, found, strict=True):
        widths = np.arange(1, len(coupling.groups[number]) + 1)
        for name, points in losses.items():
            made[name][number] = Curve(interpolate(rankings[name][number].error, points), widths)
    return made


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
