"""Computes a run's stages on a dask cluster: fixed parts, joined in a fixed order.

The sums of a part of the samples, the order and the losses of a group, and the rows of a block of samples do not depend on
the other parts, so any number of workers gives the same bits.  If a worker dies, its nanny replaces it, and the scheduler
gives its tasks to others.  A refit starts again: its actors hold activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from distributed import Client, KilledWorker, as_completed, wait

from onnxprune.budget.probe import KeptMeasure
from onnxprune.budget.sensitivity import Measured, Survey
from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.moments import shards
from onnxprune.cluster import remote
from onnxprune.cluster.actors import RefitActors, all_results
from onnxprune.cluster.job import data_for_workers, job_of, own_version
from onnxprune.cluster.refit_part import ActivationsLost
from onnxprune.cluster.spread_rows import SpreadRows
from onnxprune.errors import OnnxPruneError, OptionError
from onnxprune.graph.load import LoadedModel
from onnxprune.graph.view import Graph
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.compute import HERE, RefitRequest
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sampling import block_count
from onnxprune.refit.sequential import Refit, fit_all, fits_of
from onnxprune.selection.base import Ranking

#: Parts per worker when groups are ranked: one would leave a fast worker waiting for a slow one.  Pricing has one part per
#: worker, because each part runs the original once more over a few samples.
PARTS = 2
#: Seconds to wait for a worker if none is left.
WORKER = 20
#: How often to start a refit on workers before it runs here.
TRIES = 2
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
        self._copies = 0
        self._actors = RefitActors(client)

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

    def ranked(
        self,
        context: Context,
        options: Options,
        grams: Mapping[int, SecondMoments],
        names: Sequence[str],
        progress: Progress,
    ) -> Sequence[Mapping[str, Ranking]]:
        """Workers use their own copy of ``grams``, from :meth:`moments`."""
        arguments = (self._job, self._grams, names)
        groups = len(context.coupling.groups)
        return self._by_groups(remote.part_ranked, arguments, groups, PARTS, groups, progress)

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
        """Workers use their own copy of ``grams``, from :meth:`moments`, and keep their own measure."""
        arguments = (self._job, self._grams, rankings, survey)
        steps = survey.steps * len(rankings)
        return self._by_groups(remote.part_measured, arguments, len(survey.groups), 1, steps, progress)

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
        """Workers run the two models, each over its part of the samples.  Layers are fitted here.

        A refit with rounds of refinement runs here: it goes back and forth between layers and all their activations.
        If workers die again and again, the refit runs here, too.
        """
        given = request.given(context, grams, options)
        for _ in range(TRIES if not request.rounds else 0):
            try:
                return self._refitted(given, request, pruned, progress, kept)
            except OnnxPruneError:
                raise
            except (ActivationsLost, OSError, ValueError, CancelledError, KilledWorker):
                self._actors.forget()
        return HERE.refitted(context, options, grams, request, pruned, progress, kept)

    def _refitted(
        self, given: Calibrated, request: RefitRequest, pruned: Graph, progress: Progress, kept: KeptTargets | None
    ) -> Refit:
        actors = self._actors.of(self._job, self._workers()[: block_count(given)], kept)
        fits = fits_of(given.coupling, given.layers, request.keep, pruned)
        all_results([actor.begin(request) for actor in actors])
        return fit_all(fits, given, SpreadRows(actors, fits.solution.constants), progress)

    def _by_groups(
        self, function: Any, arguments: tuple[Any, ...], groups: int, each: int, steps: int, progress: Progress
    ) -> list[Any]:
        """The results of ``function`` for each of ``groups``, computed in ``each`` parts per worker."""
        self._copy(self._job, self._grams)
        # A key that was used before would return the results of an earlier call.
        name = f"{self._job.key.removesuffix('-job')}-groups-{self._copies}"
        count = min(groups, each * len(self._workers()))
        # Early groups cost most, because more nodes follow them.  So each part takes every n-th group.
        parts = [range(first, groups, count) for first in range(count)]
        futures = [self._submit(function, *arguments, part, key=f"{name}-{k}") for k, part in enumerate(parts)]
        self._wait(futures, steps // count, progress)
        found: dict[int, Any] = {}
        for part, future in zip(parts, futures, strict=True):
            found.update(zip(part, self._result(future), strict=True))
        return [found[k] for k in range(groups)]

    def _workers(self) -> list[str]:
        """The addresses of the workers, in order.  Waits for one: the last may have died, and its nanny replaces it.

        Raises:
            OnnxPruneError: there is none, and none comes.
        """
        # dask's own TimeoutError is another class before Python 3.11.
        with suppress(TimeoutError, OSError):
            self.client.wait_for_workers(1, timeout=WORKER)
        found = sorted(self.client.nthreads())
        if not found:
            raise OnnxPruneError(f"all workers are gone, and none came back within {WORKER} seconds")
        return found

    def _submit(self, function: Any, *arguments: object, key: str) -> Any:
        return self.client.submit(function, *arguments, key=key, pure=False)

    def _copy(self, *futures: Any) -> None:
        """Copy the results of ``futures`` to all workers, by a task on each that reads them.

        Else dask gives every task that reads them to the worker that has them, because it thinks that moving 100 MB takes
        longer than a task.  It also drops copies that no task waits for, so this happens again before each survey.
        (``Client.replicate`` fails if a worker dies meanwhile.)
        """
        self._copies += 1
        name = f"{futures[-1].key}-copy-{self._copies}"
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
                for number, worker in enumerate(self._workers())
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
