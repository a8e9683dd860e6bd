"""A model with its data on the bench: coupled, calibrated and ranked, ready for one room to be tested alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.coupling.groups import Coupling
from onnxprune.graph.load import load
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.allocation import keep_of
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.ranking import rank
from onnxprune.pipeline.setup import Context, calibrated, set_up
from onnxprune.progress import Silent
from onnxprune.selection.base import Ranking

#: One thread: sums in one order, so that what is compared bit by bit does not depend on the machine.
OPTIONS = Options(threads=1, select="qr")


@dataclass(frozen=True, eq=False)
class Bench:
    work: Context
    rankings: tuple[Ranking, ...]
    grams: Mapping[int, SecondMoments]

    @property
    def coupling(self) -> Coupling:
        return self.work.coupling

    @property
    def calibrated(self) -> Calibrated:
        """With the samples to fit on."""
        return calibrated(self.work, self.grams, self.work.fit, OPTIONS)

    def narrowed(self, share: float) -> np.ndarray:
        """One boolean per unit: ``share`` of every group stays, by rank."""
        counts = np.asarray([max(1, round(len(g) * share)) for g in self.coupling.groups])
        return keep_of(self.coupling, self.rankings, counts)


def bench(model: onnx.ModelProto, data: np.ndarray, options: Options = OPTIONS) -> Bench:
    work = set_up(load(model), data, options)
    grams = calibrate(work, options, Silent())
    return Bench(work, rank(work, options, grams, Silent())[options.select], grams)


def correlated(shape: Sequence[int], rank: int, seed: int = 0, mean: float = 0.5) -> np.ndarray:
    """Float32 samples whose channels (axis 1, or the last of two) depend on each other, and have a mean."""
    generator = np.random.default_rng(seed)
    channels = shape[1]
    latent = generator.standard_normal((shape[0], rank, *shape[2:]))
    mixed = np.einsum("cr,nr...->nc...", generator.standard_normal((channels, rank)), latent) / np.sqrt(rank)
    return (mixed + mean + 0.1 * generator.standard_normal(mixed.shape)).astype(np.float32)
