"""What a worker is told of a run, and what it makes of it."""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from onnxprune.calibration.functions import parse_ref
from onnxprune.errors import DataError, OnnxPruneError, OptionError
from onnxprune.graph.load import LoadedModel
from onnxprune.options import Options
from onnxprune.pipeline.setup import Context, set_up


@dataclass(frozen=True, eq=False)
class Job:
    """``key``: tells runs apart; ``data`` as for :func:`onnxprune.api.prune`, of a kind that can be opened again;
    ``held``: the samples held out, as positions; ``digest``: see :func:`digest_of`."""

    key: str
    version: str
    loaded: LoadedModel
    data: object | None
    options: Options
    held: tuple[int, ...]
    digest: int


def job_of(loaded: LoadedModel, data: object | None, options: Options, context: Context, version: str) -> Job:
    """The job for a run whose own ``context`` is at hand.

    Workers compute with one thread each unless ``options`` state a number.
    """
    plain = replace(options, evaluate=None, test=None, threads=options.threads or 1)
    return Job(uuid.uuid4().hex[:12], version, loaded, data, plain, context.held, digest_of(context))


def own_version() -> str:
    """The installed version; empty where onnxprune runs from a folder that was never installed."""
    try:
        return metadata.version("onnxprune")
    except metadata.PackageNotFoundError:
        return ""


def data_for_workers(data: object | None) -> object | None:
    """``data`` as other processes can open it: paths are absolute.

    Raises:
        OptionError: for what can be read once only, or only here.
    """
    if data is None or isinstance(data, Mapping | np.ndarray):
        return data
    if isinstance(data, str | os.PathLike):
        text = str(data)
        found = parse_ref(text)
        if found is None or Path(text).expanduser().exists():
            return str(Path(text).expanduser().absolute()) if Path(text).expanduser().exists() else text
        file, _, function = text.rpartition(":")
        return f"{Path(file).absolute()}:{function}" if Path(file).is_file() else text
    raise OptionError(
        f"workers cannot open data of type {type(data).__name__} for themselves: give a folder, a file, FILE.py:FUNC, or "
        "arrays, or leave out --workers and --cluster"
    )


def digest_of(context: Context) -> int:
    """A checksum of how the samples are divided, and of the first ones."""
    found = zlib.crc32(f"{context.fit.count} {context.holdout.count}".encode())
    for dataset in (context.fit, context.holdout):
        for name, array in sorted(dataset.fetch([0]).items()):
            found = zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(name.encode(), found))
    return found


def context_of(job: Job, version: str, worker: str) -> Context:
    """The context of ``job`` on ``worker``, opened from the data that it sees.

    Raises:
        OnnxPruneError: where the worker runs another version, or sees no data, or other data; the message names it.
    """
    if version != job.version:
        raise OptionError(f"worker {worker} has onnxprune {version}, this machine {job.version}: install the same")
    try:
        context = set_up(job.loaded, job.data, job.options, job.held)
    except OnnxPruneError as error:
        raise type(error)(f"worker {worker}: {error}; every worker must see the data at the same place") from error
    if digest_of(context) != job.digest:
        raise DataError(
            f"worker {worker} sees other samples at {job.data} than this machine: every worker must see the same data"
        )
    return context
