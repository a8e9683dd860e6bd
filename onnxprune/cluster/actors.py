"""The parts of a refit on the workers: one actor each, kept for later refits to the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client

from onnxprune.cluster.refit_part import RefitPart
from onnxprune.refit.kept_targets import MAX_BYTES, KeptTargets
from onnxprune.refit.sampling import Piece


def all_results(futures: Sequence[Any]) -> list[Any]:
    """The results of calls of actors that run at the same time."""
    return [future.result() for future in futures]


class RefitActors:
    """Actors of the class :class:`onnxprune.cluster.refit_part.RefitPart` on the workers of ``client``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: WeakKeyDictionary[KeptTargets, list[Any]] = WeakKeyDictionary()

    def of(self, job: Any, workers: Sequence[str], kept: KeptTargets | None) -> list[Any]:
        """One actor per piece of the samples, each on one of ``workers``.  ``job``: the future of the run's job.

        With the same ``kept``, the actors of an earlier call: they keep the original's activations.
        """
        if kept is not None and kept in self._kept:
            return self._kept[kept]
        room = 0 if kept is None else MAX_BYTES // len(workers)
        actors = all_results(
            [
                self._client.submit(
                    RefitPart,
                    job,
                    Piece(place, len(workers)),
                    room,
                    actor=True,
                    workers=[worker],
                    allow_other_workers=True,
                    pure=False,
                )
                for place, worker in enumerate(workers)
            ]
        )
        if kept is not None:
            self._kept[kept] = actors
        return actors

    def forget(self) -> None:
        """Let go of all actors: one is gone, and its activations with it."""
        self._kept.clear()
