"""One worker's part of a refit: both models over some blocks of the samples.  It lives on its worker as an actor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from onnxprune.cluster.job import Job
from onnxprune.cluster.remote import context_here
from onnxprune.engine.release import return_memory
from onnxprune.graph.uses import Use
from onnxprune.pipeline.compute import RefitRequest
from onnxprune.refit.job import LayerJob
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.sampled import BlockRows, Sampler
from onnxprune.refit.sampling import Piece, sampling
from onnxprune.refit.sequential import fits_of

Array = np.ndarray
#: (node index of a layer, its rows in this part), for the layer whose turn it is.
LayerRows = tuple[int, list[BlockRows] | None]


class ActivationsLost(Exception):
    """The worker that held the activations is gone, and dask made the part again on another."""


class RefitPart:
    """Runs ``piece`` of the samples of any number of refits, one after the other.

    ``kept_bytes``: how much of the original's activations to keep from one refit to the next.
    """

    def __init__(self, job: Job, piece: Piece, kept_bytes: int) -> None:
        self._job, self._piece = job, piece
        self._kept = KeptTargets(kept_bytes)
        self._open = ExitStack()
        self._constants: dict[Use, Array] = {}
        self._jobs: Sequence[LayerJob] = ()
        self._turns: Iterator[tuple[Sampler, LayerJob]] = iter(())
        self._last: tuple[Sampler, LayerJob] | None = None
        #: Layers advanced to in this refit; None before the first refit.
        self._done: int | None = None

    def begin(self, request: RefitRequest) -> None:
        """Start a refit.  All refits have the same samples."""
        self._open.close()
        context = context_here(self._job)
        given, pruned = request.given(context, {}, self._job.options), request.pruned(context)
        self._jobs = list(fits_of(context.coupling, context.layers, request.keep, pruned).jobs.values())
        self._constants, self._done = {}, 0
        sampler = self._open.enter_context(
            sampling(given, request.keep, pruned, self._jobs, self._constants, self._kept, self._piece)
        )
        self._turns = ((sampler, job) for job in sampler.in_order(self._jobs, {}))

    def advance(self, done: int, constants: Mapping[Use, Array]) -> LayerRows | None:
        """Take ``constants``, run both models up to the next layer, and sample its rows; ``None`` at the end.

        Raises:
            ActivationsLost: this part has not advanced to ``done`` layers before.
        """
        if done != self._done:
            raise ActivationsLost
        self._done += 1
        self._constants.update(constants)
        self._last = next(self._turns, None)
        return_memory()
        if self._last is None:
            self._open.close()
            return None
        sampler, job = self._last
        return job.index, sampler.parts(job)

    def lead(self) -> None:
        """Run the original as far as the layer after the last one needs it.  Its weights do not change."""
        if self._last is not None:
            sampler, job = self._last
            later = self._jobs[self._jobs.index(job) + 1 :]
            if later:
                sampler.pair.lead(later, {}, job.index)
