"""Where a run does its long computations: in this process, or spread over others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.budget.probe import KeptMeasure
from onnxprune.budget.sensitivity import Measured, Survey, measured
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.moments import measure_moments
from onnxprune.calibration.row_rule import RowRule
from onnxprune.graph.view import Graph, view
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Progress
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sequential import Refit, refit
from onnxprune.selection.base import Ranking, evidence
from onnxprune.selection.table import SELECTORS
from onnxprune.surgery.cut import cut

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class RefitRequest:
    """A refit of the cut ``keep`` (one boolean per unit), with ``rounds`` of refinement.

    ``samples``: positions among the samples to fit.  ``rows``: how many rows of them a layer is fitted to.
    """

    keep: Array
    samples: Array
    rows: RowRule
    rounds: int

    def given(self, context: Context, grams: Mapping[int, SecondMoments], options: Options) -> Calibrated:
        """The inputs of the refit."""
        return calibrated(context, grams, context.fit.take(self.samples), options, self.rows)

    def pruned(self, context: Context) -> Graph:
        """The graph after the cut."""
        return view(cut(context.coupling, self.keep))


class Compute(Protocol):
    """``moments`` is :func:`onnxprune.calibration.moments.measure_moments` on the samples to fit.  ``ranked`` is
    :func:`group_rankings` of all groups.  ``measured`` is :func:`onnxprune.budget.sensitivity.measured` for all groups of
    ``survey``, on the held-out samples.  ``refitted`` is :func:`onnxprune.refit.sequential.refit`
    of ``pruned``, the graph after the cut of ``request``."""

    def moments(self, context: Context, options: Options, progress: Progress) -> Mapping[int, SecondMoments]: ...

    def ranked(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        names: Sequence[str],
        progress: Progress,
    ) -> Sequence[Mapping[str, Ranking]]: ...

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
        kept: KeptMeasure,
    ) -> Sequence[Measured]: ...

    def refitted(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        request: RefitRequest,
        pruned: Graph,
        progress: Progress,
        kept: KeptTargets | None,
    ) -> Refit: ...


def group_rankings(
    context: Context,
    grams: Mapping[int, SecondMoments],
    names: Sequence[str],
    seed: int,
    groups: Sequence[int],
    progress: Progress,
) -> list[dict[str, Ranking]]:
    """The ranking of the units of each of ``groups`` (positions), by each of the selectors ``names``."""
    rankings = []
    for group in (context.coupling.groups[position] for position in groups):
        known = evidence(context.coupling, group, context.layers, grams)
        rankings.append({name: SELECTORS[name](known, seed + group.id) for name in names})
        progress.advance()
    return rankings


class Here:
    """Computes in this process."""

    def moments(self, context: Context, options: Options, progress: Progress) -> Mapping[int, SecondMoments]:
        return measure_moments(context.coupling, context.layers, context.fit, context.engine, options.seed, progress)

    def ranked(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        names: Sequence[str],
        progress: Progress,
    ) -> Sequence[Mapping[str, Ranking]]:
        return group_rankings(context, grams, names, options.seed, range(len(context.coupling.groups)), progress)

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
        kept: KeptMeasure,
    ) -> Sequence[Measured]:
        given = calibrated(context, grams, context.holdout, options)
        return measured(given, rankings, survey, range(len(survey.groups)), progress, kept)

    def refitted(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        request: RefitRequest,
        pruned: Graph,
        progress: Progress,
        kept: KeptTargets | None,
    ) -> Refit:
        given = request.given(context, grams, options)
        return refit(given, request.keep, pruned, request.rounds, progress, kept)


HERE = Here()
