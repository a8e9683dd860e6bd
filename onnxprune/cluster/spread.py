"""Computes moments and prices as tasks of a dask cluster: fixed parts, joined in a fixed order.

The sums of a part of the samples, and the losses of a group, do not depend on the other parts, so any number of workers
gives the same bits.  If a worker dies, its nanny replaces it, and the scheduler gives its tasks to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client, KilledWorker, as_completed, wait

from onnxprune.budget.sensitivity import Measured, Survey
from onnxprune.calibration.moments import shards
from onnxprune.cluster import remote
from onnxprune.cluster.job import data_for_workers, job_of, own_version
from onnxprune.errors import OnnxPruneError, OptionError
from onnxprune.graph.load import LoadedModel
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking

#: Parts of the groups per worker.  One would leave a fast worker waiting for a slow one; each part runs the original
#: once more over a few samples.
PARTS = 2
#: Maximum bytes of a model: it travels to the workers in one message.
MAX_BYTES = 2_000_000_000


class Spread:
    """A :class:`onnxprune.pipeline.compute.Compute` over the workers of ``client``, for one run.

    ``data`` and ``options`` must be the ones of the run's context.
    """

    def __init__(self, client: Client, loaded: LoadedModel, data: object | None, options: Options) -> None:
        if loaded.proto.ByteSize() > MAX_BYTES:
            raise OptionError("models of more than 2 GB cannot be sent to workers: leave out --workers and --cluster")
        self.client = client
        self._loaded, self._data, self._options = loaded, data_for_workers(data), options
        self._job: Any = None
        self._grams: Any = None
        self._surveys = 0

    def moments(self, context: Context, options: Options, progress: Progress) -> Mapping[int, SecondMoments]:
        job = job_of(self._loaded, self._data, self._options, context, own_version())
        name = f"onnxprune-{job.key}"
        self._job = self._submit(remote.job_itself, job, key=f"{name}-job")
        self._copy(self._job)
        parts = shards(context.coupling, context.layers, context.fit)
        progress.stage("calibrate", len(parts))
        futures = [
            self._submit(remote.shard_moments, self._job, part, key=f"{name}-moments-{number}")
            for number, part in enumerate(parts)
        ]
        self._grams = self._submit(remote.all_moments, futures, key=f"{name}-moments")
        self._wait(futures, 1, progress)
        grams: Mapping[int, SecondMoments] = self._result(self._grams)
        return grams

    def measured(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        rankings: Mapping[str, Sequence[Ranking]],
        survey: Survey,
        progress: Progress,
    ) -> Sequence[Measured]:
        """Workers use their own copy of ``grams``, from :meth:`moments`."""
        groups, name = len(survey.groups), self._job.key.removesuffix("-job")
        # A key that was used before would return the results of an earlier survey.
        self._surveys += 1
        self._copy(self._job, self._grams)
        count = min(groups, PARTS * len(self.client.nthreads()))
        # Early groups cost most, because more nodes follow them.  So each part takes every n-th group.
        parts = [range(first, groups, count) for first in range(count)]
        futures = [
            self._submit(
                remote.part_measured, self._job, self._grams, rankings, survey, part, key=f"{name}-price-{self._surveys}-{k}"
            )
            for k, part in enumerate(parts)
        ]
        self._wait(futures, survey.steps * len(rankings) // count, progress)
        found = {k: one for part, future in zip(parts, futures, strict=True) for k, one in zip(part, self._result(future), strict=True)}
        return [found[k] for k in range(groups)]

    def _submit(self, function: Any, *arguments: object, key: str) -> Any:
        return self.client.submit(function, *arguments, key=key, pure=False)

    def _copy(self, *futures: Any) -> None:
        """Copy the results of ``futures`` to all workers, by a task on each that reads them.

        Else dask gives every task that reads them to the worker that has them, because it thinks that moving 100 MB takes
        longer than a task.  It also drops copies that no task waits for, so this happens again before each survey.
        (``Client.replicate`` fails if a worker dies meanwhile.)
        """
        name = f"{futures[-1].key}-copy-{self._surveys}"
        wait(
            [
                self.client.submit(
                    remote.receive,
                    *futures,
                    key=f"{name}-{number}",
                    workers=[worker],
                    allow_other_workers=True,
                    pure=False,
                )
                for number, worker in enumerate(sorted(self.client.nthreads()))
            ]
        )

    def _wait(self, futures: Sequence[Any], steps: int, progress: Progress) -> None:
        for future in as_completed(futures):
            self._result(future, keep=False)
            progress.advance(steps)

    def _result(self, future: Any, keep: bool = True) -> Any:
        """The result of a task; ``None`` if it need not be kept here.

        Raises:
            OnnxPruneError: the task failed.  The message is one line.
        """
        try:
            if keep or future.status != "finished":
                return future.result()
            return None
        except OnnxPruneError:
            raise
        except KilledWorker as error:
            raise OnnxPruneError(
                "one task killed several workers in a row, probably for lack of memory: give workers more memory, or use "
                "fewer --samples"
            ) from error
        except ModuleNotFoundError as error:
            raise OptionError(
                f"a worker has no '{error.name}': install onnxprune[cluster] where the workers run"
            ) from error
        except Exception as error:
            raise OnnxPruneError(f"a worker failed: {type(error).__name__}: {str(error).splitlines()[:1]}") from error
