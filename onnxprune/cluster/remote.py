"""What runs on workers.  Each keeps the context of the run that it works for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distributed import get_worker

from onnxprune.budget.sensitivity import Measured, Survey, measured
from onnxprune.calibration.moments import added, measure_shard
from onnxprune.cluster.job import Job, context_of, own_version
from onnxprune.linear.gram import SecondMoments
from onnxprune.pipeline.setup import Context, calibrated
from onnxprune.progress import Silent
from onnxprune.selection.base import Ranking

#: The last run's, by key.
_CONTEXTS: dict[str, Context] = {}


def _context(job: Job) -> Context:
    if job.key not in _CONTEXTS:
        _CONTEXTS.clear()
        _CONTEXTS[job.key] = context_of(job, own_version(), get_worker().address)
    return _CONTEXTS[job.key]


def job_itself(job: Job) -> Job:
    """A result that workers hand to each other, and that is made again where it is lost."""
    return job


def shard_moments(job: Job, shard: range) -> dict[int, SecondMoments]:
    context, seed = _context(job), job.options.seed
    return measure_shard(context.coupling, context.layers, context.fit, context.engine, seed, shard, Silent())


def all_moments(parts: Sequence[Mapping[int, SecondMoments]]) -> dict[int, SecondMoments]:
    return added(parts)


def part_measured(
    job: Job,
    grams: Mapping[int, SecondMoments],
    rankings: Mapping[str, Sequence[Ranking]],
    survey: Survey,
    part: range,
) -> list[Measured]:
    context = _context(job)
    given = calibrated(context, grams, context.holdout, job.options)
    return measured(given, rankings, survey, part, Silent())
