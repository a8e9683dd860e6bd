"""What cutting one group does to the model's output: measured at a few widths, interpolated between.

For each group the original runs on some of the holdout with only that group narrowed
(:mod:`onnxprune.budget.narrowed`).  Between the measured widths the output loss follows the selector's error curve
(:mod:`onnxprune.budget.interpolate`).  Once an allocation is known, a second survey measures its widths, too.
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


#: Per selector's name (units kept, output loss) at each width of one group.
Measured = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Survey:
    """What to measure: the ``asked`` groups, as (first reader, group id) in graph order, each at its ``widths`` (units
    kept), on the first ``samples`` of the holdout."""

    asked: tuple[tuple[int, int], ...]
    widths: tuple[tuple[int, ...], ...]
    samples: int

    @property
    def steps(self) -> int:
        """The number of measurements per order of channels."""
        return sum(map(len, self.widths))

    def at(self, counts: Array, whole: Array) -> Survey:
        """A survey of the same groups at one width each: ``counts`` (groups,) units kept, out of ``whole``.

        It leaves out whole groups, and widths that this survey already has.
        """
        new = [
            (group, int(counts[group[1]]))
            for group, widths in zip(self.asked, self.widths, strict=True)
            if int(counts[group[1]]) not in (*widths, whole[group[1]])
        ]
        return Survey(tuple(group for group, _ in new), tuple((count,) for _, count in new), self.samples)


def survey_of(given: Calibrated, frozen: frozenset[int], allowance: float, most: int) -> Survey:
    """A survey of all groups that are not ``frozen``, by ``allowance`` multiply-accumulates per order of channels, on at
    most ``most`` samples."""
    coupling = given.coupling
    asked = tuple(sorted((first_reader(given, g), g.id) for g in coupling.groups if g.id not in frozen))
    # On average a group stands in the middle: half of the network comes behind it.
    halves = len(asked) / 2
    fixed = PER_NODE * len(coupling.graph.nodes) * halves
    shares, samples = measurements(allowance, macs(coupling)(sizes(coupling)) * halves, fixed, most)
    units = [len(coupling.groups[group]) for _, group in asked]
    widths = tuple(tuple(dict.fromkeys(max(1, round(n * share)) for share in shares)) for n in units)
    return Survey(asked, widths, min(given.dataset.count, samples))


def measured(
    given: Calibrated, rankings: Mapping[str, Sequence[Ranking]], survey: Survey, part: range, progress: Progress
) -> list[Measured]:
    """The output losses of the groups ``part`` of ``survey.asked``; ``progress`` advances once per measurement.

    ``rankings``: per selector one order of units per group.  What is measured of a group does not depend on which
    others are in ``part``.  Cost: one pass over the samples, and per group, selector and width, what comes behind the
    group's first reader.
    """
    found: list[Measured] = []
    with Store(given.memory) as store:
        few = given.dataset.take(list(range(survey.samples)))
        stops = [stop for stop, _ in survey.asked if stop >= 0]
        probe = Probe(given.coupling, few, given.engine, store, stops)
        for place in part:
            stop, number = survey.asked[place]
            group = given.coupling.groups[number]
            found.append(
                {
                    name: _measured(given, probe, group, orders[number], stop, survey.widths[place], progress)
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


def joined(survey: Survey, more: Survey) -> Survey:
    """Both as one: ``more`` asks some of the groups of ``survey`` again, at other widths."""
    added = dict(zip(more.asked, more.widths, strict=True))
    widths = tuple((*old, *added.get(group, ())) for group, old in zip(survey.asked, survey.widths, strict=True))
    return Survey(survey.asked, widths, survey.samples)


def _uncut(group: Group) -> Curve:
    return Curve(np.zeros(len(group) + 1), np.asarray([len(group)]))


def _measured(
    given: Calibrated,
    probe: Probe,
    group: Group,
    ranking: Ranking,
    stop: int,
    widths: Sequence[int],
    progress: Progress,
) -> list[tuple[int, float]]:
    """(units kept, output loss) at each of ``widths``; what has no reader to fold (quantized weights, say) is cut."""
    found: list[tuple[int, float]] = []
    for count in widths:
        kept = np.zeros(len(group), dtype=np.bool_)
        kept[ranking.order[:count]] = True
        constants = narrowed_constants(given.coupling, group, kept, given.layers, given.grams)
        damage = probe.damage(constants, stop) if constants else probe.damage_of_cut(group, kept)
        found.append((count, max(damage, 0.0)))
        progress.advance()
    return found
