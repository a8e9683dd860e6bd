"""The message that describes a run to a worker, and how the worker sets up its context from it."""

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
    """A run, as workers see it.

    ``key``: a unique name of the run.  ``data``: as for :func:`onnxprune.api.prune`, of a kind that another process can
    open.  ``held``: positions of the held-out samples.  ``digest``: see :func:`digest_of`.
    """

    key: str
    version: str
    loaded: LoadedModel
    data: object | None
    options: Options
    held: tuple[int, ...]
    digest: int


def job_of(loaded: LoadedModel, data: object | None, options: Options, context: Context, version: str) -> Job:
    """The job for the run of ``context``.

    Each worker computes with one thread unless ``options`` state a number.
    """
    plain = replace(options, evaluate=None, test=None, threads=options.threads or 1)
    return Job(uuid.uuid4().hex[:12], version, loaded, data, plain, context.held, digest_of(context))


def own_version() -> str:
    """The installed version; empty if onnxprune runs from a folder without an installation."""
    try:
        return metadata.version("onnxprune")
    except metadata.PackageNotFoundError:
        return ""


def data_for_workers(data: object | None) -> object | None:
    """``data`` in a form that other processes can open: paths are absolute.

    Raises:
        OptionError: ``data`` can be read only once, or only in this process.
    """
    if data is None or isinstance(data, Mapping | np.ndarray):
        return data
    if isinstance(data, str | os.PathLike):
        text = str(data)
        reference = parse_ref(text)
        if reference is None or Path(text).expanduser().exists():
            return str(Path(text).expanduser().absolute()) if Path(text).expanduser().exists() else text
        file, _, function = text.rpartition(":")
        return f"{Path(file).absolute()}:{function}" if Path(file).is_file() else text
    raise OptionError(
        f"workers cannot open data of type {type(data).__name__} for themselves: give a folder, a file, FILE.py:FUNC, or "
        "arrays, or leave out --workers and --cluster"
    )


def digest_of(context: Context) -> int:
    """A checksum of the split of the samples, and of the first sample on each side."""
    checksum = zlib.crc32(f"{context.fit.count} {context.holdout.count}".encode())
    for dataset in (context.fit, context.holdout):
        for name, array in sorted(dataset.fetch([0]).items()):
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(name.encode(), checksum))
    return checksum


def context_of(job: Job, version: str, worker: str) -> Context:
    """The context of ``job`` on ``worker``, set up from the data that the worker sees.

    Raises:
        OnnxPruneError: the worker runs another version, or sees no data, or other data.  The message names the worker.
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
