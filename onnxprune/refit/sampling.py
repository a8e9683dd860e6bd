"""Opens both models for a refit, over all samples or a piece of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.moments import batch_size, blocks
from onnxprune.engine.segment import Runner
from onnxprune.engine.store import Store
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph
from onnxprune.refit.job import LayerJob
from onnxprune.refit.kept_targets import PART, KeptTargets
from onnxprune.refit.pair import RunnerPair
from onnxprune.refit.sampled import Sampler
from onnxprune.verify.guided import PICKING, choosing

Array = np.ndarray
#: Bytes of one batch: inputs and outputs of layers.
BATCH_BYTES = 1 << 30


@dataclass(frozen=True)
class Piece:
    """A run of blocks of the samples: the one at position ``place`` of ``of`` runs of about the same length."""

    place: int = 0
    of: int = 1

    def numbers(self, count: int) -> range:
        """The numbers of the piece's blocks, if there are ``count`` blocks in all."""
        return range(count * self.place // self.of, count * (self.place + 1) // self.of)


WHOLE = Piece()


@contextmanager
def sampling(
    given: Calibrated,
    keep: Array,
    pruned: Graph,
    jobs: Iterable[LayerJob],
    constants: dict[Use, Array],
    kept: KeptTargets | None,
    piece: Piece = WHOLE,
) -> Iterator[Sampler]:
    """Yields a sampler of ``piece``.  ``pruned``: the graph cut by ``keep``.

    The cut model takes weights from ``constants``, which the caller may change along the way.  The rows of all pieces are
    the rows of the whole: they depend on the number of their block, not on the piece.
    """
    size = _size(given)
    together, rows = blocks(given.dataset, size), list(given.dataset.rows(size))
    numbers = piece.numbers(len(together))
    first = together[numbers.start].start
    own = {number: range(together[number].start - first, together[number].stop - first) for number in numbers}
    samples = [row for number in numbers for batch in together[number] for row in rows[batch]]
    part = given if piece == WHOLE else replace(given, dataset=given.dataset.take(samples))

    # Not a list: it would keep all samples in memory, in addition to the store.
    def batches() -> Iterator[Mapping[str, Array]]:
        return part.dataset.batches(size)

    coupling = given.coupling
    original = None if kept is None else kept.runner(part, jobs, batches)
    with Store(given.memory if original is None else given.memory - 2 * (given.memory // PART)) as store:
        if original is None:
            original = Runner(coupling.graph, coupling.facts, store, "o:", batches, given.engine)
        small = Runner(pruned, coupling.facts, store, "p:", batches, given.engine)
        pair = RunnerPair(
            original, small, choosing(coupling, keep, PICKING), frozenset() if kept is None else kept.values
        )
        pair.pruned.replaced = constants
        count = given.dataset.count
        yield Sampler(coupling, pair, own, len(together), count, given.rows, given.seed, given.refining)


def block_count(given: Calibrated) -> int:
    """The number of blocks of the samples of ``given``: the maximum number of pieces."""
    return len(blocks(given.dataset, _size(given)))


def _size(given: Calibrated) -> int:
    """Samples per batch: at most a tenth of all, so that some batches can be held out."""
    biggest = sorted({v for layer in given.layers for v in (layer.data, layer.output)})
    return max(1, min(batch_size(given.coupling, biggest, BATCH_BYTES), -(-given.dataset.count // 10)))
