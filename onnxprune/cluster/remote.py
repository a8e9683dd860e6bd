"""The functions that run on workers.  Each worker keeps the context of its current run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distributed import get_worker

from onnxprune.budget.probe import KeptMeasure
from onnxprune.budget.sensitivity import Measured, Survey, measured
from onnxprune.calibration.moments import added, measure_shard
from onnxprune.cluster.job import Job, context_of, own_version
from onnxprune.engine.release import reuse_memory
from onnxprune.linear.gram import SecondMoments
from onnxprune.pipeline.compute import group_rankings
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Silent
from onnxprune.selection.base import Ranking

#: Key of the last run -> its context.
_CONTEXTS: dict[str, Context] = {}
#: (key of a run, samples of a survey) -> the measure of its surveys here.
_MEASURES: dict[tuple[str, int], KeptMeasure] = {}


def context_here(job: Job) -> Context:
    """The context of the run ``job`` on this worker."""
    if job.key not in _CONTEXTS:
        reuse_memory()
        _CONTEXTS.clear()
        _MEASURES.clear()
        _CONTEXTS[job.key] = context_of(job, own_version(), get_worker().address)
    return _CONTEXTS[job.key]


def job_itself(job: Job) -> Job:
    """The job as a task of its own: workers pass the result to each other, and dask makes it again if it is lost."""
    return job


def receive(*values: object) -> None:
    """Nothing: dask moves ``values`` to this worker before."""


def shard_moments(job: Job, shard: range) -> dict[int, SecondMoments]:
    context, seed = context_here(job), job.options.seed
    return measure_shard(context.coupling, context.layers, context.fit, context.engine, seed, shard, Silent())


def all_moments(parts: Sequence[Mapping[int, SecondMoments]]) -> dict[int, SecondMoments]:
    return added(parts)


def part_ranked(
    job: Job, grams: Mapping[int, SecondMoments], names: Sequence[str], part: range
) -> list[dict[str, Ranking]]:
    return group_rankings(context_here(job), grams, names, job.options.seed, part, Silent())


def part_measured(
    job: Job,
    grams: Mapping[int, SecondMoments],
    rankings: Mapping[str, Sequence[Ranking]],
    survey: Survey,
    part: range,
) -> list[Measured]:
    context = context_here(job)
    given = calibrated(context, grams, context.holdout, job.options)
    kept = _MEASURES.setdefault((job.key, survey.samples), KeptMeasure())
    return measured(given, rankings, survey, part, Silent(), kept)
