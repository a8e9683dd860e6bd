"""Where a run computes its two long sums: in this process, or spread over others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from onnxprune.budget.sensitivity import Measured, Survey, measured
from onnxprune.calibration.moments import measure_moments
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking


class Compute(Protocol):
    """``moments`` is :func:`onnxprune.calibration.moments.measure_moments` on the samples to fit.  ``measured`` is
    :func:`onnxprune.budget.sensitivity.measured` for all groups of ``survey``, on the held-out samples."""

    def moments(self, context: Context, options: Options, progress: Progress) -> Mapping[int, SecondMoments]: ...

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
    ) -> Sequence[Measured]: ...


class Here:
    """Computes in this process."""

    def moments(self, context: Context, options: Options, progress: Progress) -> Mapping[int, SecondMoments]:
        return measure_moments(context.coupling, context.layers, context.fit, context.engine, options.seed, progress)

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
    ) -> Sequence[Measured]:
        given = calibrated(context, grams, context.holdout, options)
        return measured(given, rankings, survey, range(len(survey.groups)), progress)


HERE = Here()
