"""The output loss of cutting one group: measured at a few widths, interpolated in between.

For each group, the original runs on some of the holdout with only that group narrowed
(:mod:`onnxprune.budget.narrowed`).  Between the measured widths the output loss follows the selector's error curve
(:mod:`onnxprune.budget.interpolate`).  Once an allocation is known, a second survey measures its widths too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from onnxprune.budget.cost import original_macs
from onnxprune.budget.curve import Curve
from onnxprune.budget.interpolate import interpolate
from onnxprune.budget.narrowed import narrowed_constants
from onnxprune.budget.probe import BATCH, KeptMeasure, Probe
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.effort import PER_NODE, PER_RUN, measurements
from onnxprune.engine.store import Store
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, readers_of

Array = np.ndarray


def first_reader(given: Calibrated, group: Group) -> int:
    """The node index of the first layer that reads ``group``; -1 if none does."""
    return min((reader.index for reader in readers_of(given.coupling, group, given.layers)), default=-1)


#: Selector's name -> (units kept, output loss) at each width of one group.
Measured = Mapping[str, Sequence[tuple[int, float]]]


class SurveyedGroup(NamedTuple):
    """A group to measure.  ``start``: node index of its first reader, -1 without one; ``id``: its group id."""

    start: int
    id: int


@dataclass(frozen=True)
class Survey:
    """What to measure: ``groups`` in graph order, each at its ``widths`` (units kept).

    It uses the first ``samples`` of the holdout.
    """

    groups: tuple[SurveyedGroup, ...]
    widths: tuple[tuple[int, ...], ...]
    samples: int

    @property
    def steps(self) -> int:
        """The number of measurements per order of channels."""
        return sum(map(len, self.widths))

    def at(self, counts: Array, whole: Array) -> Survey:
        """A survey of the same groups at one width each: ``counts`` (groups,) units kept, out of ``whole``.

        Leaves out whole groups, and widths that this survey already has.
        """
        new = [
            (group, int(counts[group.id]))
            for group, widths in zip(self.groups, self.widths, strict=True)
            if int(counts[group.id]) not in (*widths, whole[group.id])
        ]
        return Survey(tuple(group for group, _ in new), tuple((count,) for _, count in new), self.samples)


def survey_of(given: Calibrated, frozen: frozenset[int], allowance: float, most: int) -> Survey:
    """A survey of all groups that are not ``frozen``.

    It spends about ``allowance`` multiply-accumulates per order of channels, on at most ``most`` samples.
    """
    coupling = given.coupling
    groups = tuple(sorted(SurveyedGroup(first_reader(given, g), g.id) for g in coupling.groups if g.id not in frozen))
    # On average a group is in the middle of the network, so half of the network runs.
    halves = len(groups) / 2
    nodes = len(coupling.graph.nodes) * halves
    each = original_macs(coupling) * halves + PER_RUN * nodes / (given.dataset.batch_limit or BATCH)
    shares, samples = measurements(allowance, each, PER_NODE * nodes, most)
    units = [len(coupling.groups[group.id]) for group in groups]
    widths = tuple(tuple(dict.fromkeys(max(1, round(n * share)) for share in shares)) for n in units)
    return Survey(groups, widths, min(given.dataset.count, samples))


def measured(
    given: Calibrated,
    rankings: Mapping[str, Sequence[Ranking]],
    survey: Survey,
    part: range,
    progress: Progress,
    kept: KeptMeasure,
) -> list[Measured]:
    """The output losses of the groups ``part`` of ``survey.groups``; ``progress`` advances once per measurement.

    ``rankings``: selector's name -> one order of units per group.  The losses of a group do not depend on the other groups
    in ``part``.  ``kept``: the measure that earlier surveys of the same samples made.  Cost: one pass over the samples, and
    one more for the first survey.  Per group, selector and width, a pass over the nodes from the group's
    first reader on.
    """
    results: list[Measured] = []
    with Store(given.memory) as store:
        few = given.dataset.take(list(range(survey.samples)))
        stops = [group.start for group in survey.groups if group.start >= 0]
        probe = Probe(given.coupling, few, given.engine, store, stops, kept)
        for index in part:
            surveyed, widths = survey.groups[index], survey.widths[index]
            group = given.coupling.groups[surveyed.id]
            results.append(
                {
                    name: _measured(given, probe, group, orders[surveyed.id], surveyed.start, widths, progress)
                    for name, orders in rankings.items()
                }
            )
    return results


def curves(
    coupling: Coupling, rankings: Mapping[str, Sequence[Ranking]], survey: Survey, results: Sequence[Measured]
) -> dict[str, list[Curve]]:
    """Selector's name -> one :class:`Curve` per group, over every width, from the ``results`` for ``survey.groups``.

    A group outside the survey must stay whole.
    """
    made = {name: [_uncut(group) for group in coupling.groups] for name in rankings}
    for surveyed, losses in zip(survey.groups, results, strict=True):
        group = surveyed.id
        widths = np.arange(1, len(coupling.groups[group]) + 1)
        for name, points in losses.items():
            made[name][group] = Curve(interpolate(rankings[name][group].error, points), widths)
    return made


def merged(survey: Survey, more: Survey) -> Survey:
    """Both surveys as one.  ``more`` measures some groups of ``survey`` at other widths."""
    added = dict(zip(more.groups, more.widths, strict=True))
    widths = tuple((*old, *added.get(group, ())) for group, old in zip(survey.groups, survey.widths, strict=True))
    return Survey(survey.groups, widths, survey.samples)


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
    """(units kept, output loss) at each of ``widths``.  A group whose readers cannot fold (quantized weights) is cut."""
    points: list[tuple[int, float]] = []
    for count in widths:
        kept = np.zeros(len(group), dtype=np.bool_)
        kept[ranking.order[:count]] = True
        constants = narrowed_constants(given.coupling, group, kept, given.layers, given.grams)
        loss = probe.loss(constants, stop) if constants else probe.loss_of_cut(group, kept)
        points.append((count, max(loss, 0.0)))
        progress.advance()
    return points
