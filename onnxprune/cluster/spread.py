"""Moments and pricing as tasks of a dask cluster: fixed parts, put together in a fixed order.

What a task computes depends on its part alone, so any number of workers gives the same bits.  A worker that dies is
replaced (by its nanny), and the scheduler gives its tasks to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client, KilledWorker, as_completed

from onnxprune.budget.sensitivity import Measured, Survey
from onnxprune.calibration.moments import Moments, shards
from onnxprune.cluster import remote
from onnxprune.cluster.job import data_for_workers, job_of, own_version
from onnxprune.errors import OnnxPruneError, OptionError
from onnxprune.graph.load import LoadedModel
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking

#: Parts that the groups are priced in: each runs the original once more over its few samples.
MOST_PARTS = 16
#: Bytes of a model that travel to the workers in one message at most.
MOST_BYTES = 2_000_000_000


class Spread:
    """A :class:`onnxprune.pipeline.compute.Compute` over the workers of ``client``, for one run; ``data`` and ``options``
    are those that its context was set up with."""

    def __init__(self, client: Client, loaded: LoadedModel, data: object | None, options: Options) -> None:
        if loaded.proto.ByteSize() > MOST_BYTES:
            raise OptionError("models of more than 2 GB do not travel to workers: leave out --workers and --cluster")
        self.client = client
        self._loaded, self._data, self._options = loaded, data_for_workers(data), options
        self._job: Any = None
        self._grams: Any = None
        self._surveys = 0

    def moments(self, context: Context, options: Options, progress: Progress) -> Moments:
        job = job_of(self._loaded, self._data, self._options, context, own_version())
        name = f"onnxprune-{job.key}"
        self._job = self._submit(remote.job_itself, job, key=f"{name}-job")
        parts = shards(context.coupling, context.layers, context.fit)
        progress.stage("calibrate", len(parts))
        found = [
            self._submit(remote.shard_moments, self._job, part, key=f"{name}-moments-{number}")
            for number, part in enumerate(parts)
        ]
        self._grams = self._submit(remote.all_moments, found, key=f"{name}-moments")
        self._wait(found, 1, progress)
        return Moments(self._result(self._grams))

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
    ) -> Sequence[Measured]:
        """``grams`` are those that :meth:`moments` found, which the workers still hold."""
        groups, name = len(survey.asked), self._job.key.removesuffix("-job")
        # The same key would answer with what an earlier survey found.
        self._surveys += 1
        count = min(groups, MOST_PARTS)
        bounds = [groups * k // count for k in range(count + 1)]
        found = [
            self._submit(
                remote.part_measured,
                self._job,
                self._grams,
                rankings,
                survey,
                range(bounds[k], bounds[k + 1]),
                key=f"{name}-price-{self._surveys}-{k}",
            )
            for k in range(count)
        ]
        self._wait(found, survey.steps * len(rankings) // count, progress)
        return [one for future in found for one in self._result(future)]

    def _submit(self, function: Any, *arguments: object, key: str) -> Any:
        return self.client.submit(function, *arguments, key=key, pure=False)

    def _wait(self, futures: Sequence[Any], steps: int, progress: Progress) -> None:
        for future in as_completed(futures):
            self._result(future, keep=False)
            progress.advance(steps)

    def _result(self, future: Any, keep: bool = True) -> Any:
        """What a task made, where it is to be kept here.

        Raises:
            OnnxPruneError: in one line, where it failed.
        """
        try:
            if keep or future.status != "finished":
                return future.result()
            return None
        except OnnxPruneError:
            raise
        except KilledWorker as error:
            raise OnnxPruneError(
                "a piece of work ended several workers one after the other, probably for lack of memory: give workers "
                "more of it, or fewer --samples"
            ) from error
        except ModuleNotFoundError as error:
            raise OptionError(
                f"a worker has no '{error.name}': install onnxprune[cluster] where the workers run"
            ) from error
        except Exception as error:
            raise OnnxPruneError(f"a worker failed: {type(error).__name__}: {str(error).splitlines()[:1]}") from error
