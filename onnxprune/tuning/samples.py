"""Calibration samples in training order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.calibration.dataset import Dataset, Feeds

Array = np.ndarray
#: Maximum bytes of samples to keep in memory.
KEPT = 2 << 30


@dataclass(eq=False)
class Samples:
    """Fetches samples by position, and keeps up to :data:`KEPT` bytes of them."""

    dataset: Dataset
    _kept: dict[int, Feeds] = field(default_factory=dict)
    _bytes: int = 0

    @property
    def count(self) -> int:
        return self.dataset.count

    def fetch(self, rows: Sequence[int]) -> Feeds:
        """One feed with the samples at ``rows``."""
        limit = self.dataset.batch_limit
        if limit is not None:
            # With a fixed batch, a feed may hold copies, or have no sample axis.
            return self._once(tuple(rows))
        missing = [row for row in rows if row not in self._kept]
        if missing:
            fetched = self.dataset.fetch(missing)
            for k, row in enumerate(missing):
                one = {name: array[k] for name, array in fetched.items()}
                self._bytes += sum(array.nbytes for array in one.values())
                self._kept[row] = one
        parts = [self._kept[row] for row in rows]
        feeds = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        while self._bytes > KEPT:
            gone = self._kept.pop(next(iter(self._kept)))
            self._bytes -= sum(array.nbytes for array in gone.values())
        return feeds

    def _once(self, rows: tuple[int, ...]) -> Feeds:
        return self.dataset.fetch(list(rows))

    def batches(self, size: int) -> Iterator[Feeds]:
        for rows in self.dataset.rows(size):
            yield self.fetch(rows)


def endless(count: int, size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Yields the positions of batches, pass after pass, each in a new order.  The next pass completes a last batch."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += generator.permutation(count).tolist()
        yield waiting[:size]
        waiting = waiting[size:]
