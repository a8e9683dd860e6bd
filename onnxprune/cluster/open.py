"""Workers for a run: the workers of a scheduler, or processes on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.errors import OptionError
from onnxprune.graph.load import LoadedModel
from onnxprune.options import Options
from onnxprune.pipeline.compute import HERE, Compute

#: Seconds to wait for an answer of the scheduler, and for its first worker.
ANSWER, WORKER = 5, 20


@contextmanager
def computing(loaded: LoadedModel, data: object | None, options: Options) -> Iterator[Compute]:
    """Yields what computes the run's sums: workers if ``options`` ask for them, else this process.

    Raises:
        OptionError: dask.distributed is not installed, the scheduler does not answer, or it has no workers.
    """
    if not options.workers and options.cluster is None:
        yield HERE
        return
    try:
        from distributed import Client, LocalCluster

        from onnxprune.cluster.spread import Spread
    except ImportError as error:
        raise OptionError("--workers and --cluster need dask.distributed: pip install 'onnxprune[cluster]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if options.cluster is not None:
        with _reached(Client, options.cluster) as client:
            yield Spread(client, loaded, data, options)
        return
    with (
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Spread(client, loaded, data, options)


@contextmanager
def _reached(kind: type, address: str) -> Iterator[object]:
    try:
        client = kind(address, timeout=ANSWER)
    except (OSError, ValueError, TimeoutError) as error:
        raise OptionError(
            f"--cluster: no scheduler answers at {address}; start one with 'dask scheduler', and workers with "
            "'dask worker ADDRESS --nthreads 1'"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER)
        except TimeoutError as error:
            raise OptionError(
                f"--cluster: the scheduler at {address} has no workers; start some with 'dask worker {address} --nthreads 1'"
            ) from error
        yield client
