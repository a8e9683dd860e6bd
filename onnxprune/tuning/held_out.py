"""Held-out samples: the error of some weights on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from onnxprune.tuning.pair import ModelPair
from onnxprune.tuning.samples import Samples

Array = np.ndarray
#: Maximum bytes of the original's outputs that are kept between evaluations.
KEPT = 256 << 20


@dataclass(eq=False)
class HeldOut:
    """Held-out ``samples``, run ``micro`` at a time.

    The original runs once on each of them, as long as its outputs fit into :data:`KEPT` bytes.
    """

    pair: ModelPair
    samples: Samples
    micro: int
    _answers: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    _bytes: int = 0

    def some(self, count: int) -> HeldOut:
        """The first ``count`` of the samples."""
        dataset = self.samples.dataset
        return HeldOut(self.pair, Samples(dataset.take(range(min(count, dataset.count)))), self.micro)

    def look(self, weights: Mapping[str, Tensor]) -> tuple[Array, float | None]:
        """(error of the outputs per sample, float64; share of samples with the same class, for class scores)."""
        errors: list[Array] = []
        same: list[bool] = []
        with torch.no_grad():
            rows = self.samples.dataset.rows(self.micro)
            for place, (chosen, feeds) in enumerate(zip(rows, self.samples.batches(self.micro), strict=True)):
                wanted = self._answers.get(place)
                if wanted is None:
                    wanted = self.pair.judge(feeds)
                    self._keep(place, wanted)
                apart, alike = self.pair.look(feeds, wanted, weights)
                errors.append(apart.cpu().numpy()[: len(chosen)])
                same += [] if alike is None else alike.cpu().tolist()[: len(chosen)]
        return np.concatenate(errors).astype(np.float64), float(np.mean(same)) if same else None

    def _keep(self, place: int, wanted: dict[str, Tensor]) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
        if self._bytes + size <= KEPT:
            self._answers[place] = wanted
            self._bytes += size
