"""Data for fits: sampled rows of a layer, and whole activations for a refinement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.calibration.moments import row_picks, stacked
from onnxprune.calibration.row_rule import RowRule
from onnxprune.coupling.groups import Coupling
from onnxprune.linear.form import Layer, sample_outputs, sample_rows
from onnxprune.linear.gram import CHUNK
from onnxprune.refit.fit import Part, Rows
from onnxprune.refit.hidden import HiddenLayer
from onnxprune.refit.job import LayerJob
from onnxprune.refit.pair import RunnerPair
from onnxprune.refit.refine import Maps

Array = np.ndarray
#: One block in this many is held out inside the fit, to choose the ridge strength.
HOLD_EVERY = 5
#: How many times the rows of a fit a refinement may use.
MAP_ROWS = 2


#: Rows of one block of batches: (:func:`side_of` the block, rows).
BlockRows = tuple[int, Part]


class RowSource(Protocol):
    """Runs both models from layer to layer, and samples the rows of each layer at its turn."""

    def in_order(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]]) -> Iterator[LayerJob]:
        """See :meth:`onnxprune.refit.pair.RunnerPair.in_order`."""

    def rows(self, job: LayerJob) -> tuple[Rows, Rows] | None:
        """(rows to fit on, held-out rows) of the job whose turn it is.

        ``None`` if the two models have different numbers of rows.  That happens if the number depends on data that the cut
        changed.
        """


@dataclass(frozen=True, eq=False)
class Sampler:
    """Samples the activations of ``pair``.

    ``blocks``: number of a block -> its batches in ``pair``, to be sampled together
    (:func:`onnxprune.calibration.moments.blocks`).  ``total``: the number of all blocks; ``pair`` may hold only some.
    ``samples``: the number of samples in all blocks.  ``rule`` says how many rows to take.  A refinement leaves out samples
    once one activation has ``refining`` bytes.
    """

    coupling: Coupling
    pair: RunnerPair
    blocks: Mapping[int, range]
    total: int
    samples: int
    rule: RowRule
    seed: int
    refining: int

    def in_order(self, jobs: Sequence[LayerJob], hidden: Mapping[int, Sequence[HiddenLayer]]) -> Iterator[LayerJob]:
        return self.pair.in_order(jobs, hidden)

    def rows(self, job: LayerJob) -> tuple[Rows, Rows] | None:
        return rows_of(job, self.parts(job))

    def parts(self, job: LayerJob) -> list[BlockRows] | None:
        """The sampled rows of each block, in order; ``None`` as in :meth:`RowSource.rows`."""
        layer, groups, features = job.layer, job.part.groups, job.part.features
        wanted_rows = self.rule.rows(groups, features)
        everything = bool(job.part.kept_outputs.all())
        parts: list[BlockRows] = []
        for number in sampled_blocks(self.total, self.samples // wanted_rows):
            for x, y, *other in self._activations(job, self.blocks.get(number, range(0))):
                if math.prod(_row_axes(layer, x)) != math.prod(_row_axes(layer, y)):
                    return None
                picks, geo = row_picks(self.coupling, layer, x, y.shape, wanted_rows, self.samples, self.seed + number)
                rows = sample_rows(layer, x, geo, picks, groups).reshape(-1, groups, features)
                wanted = sample_outputs(layer, y, geo, picks)
                wanted = wanted if everything else wanted[:, job.part.kept_outputs]
                offset = job.shift
                if other:
                    offset = offset + sample_outputs(layer, other[0], geo, picks)
                parts.append((side_of(number), (rows, wanted, offset)))
        return parts

    def _activations(self, job: LayerJob, block: range) -> Iterator[tuple[Array, ...]]:
        """(input, target in the original[, other operand in the pruned model]) over the batches of ``block``.

        The batches are stacked.  If they differ in shape, they come one by one.
        """
        pruned, other = self.pair.pruned, job.target.other
        if not block:
            return
        each = [
            (pruned.get(job.layer.data, batch), self._wanted(job, batch))
            + (() if other is None else (pruned.get(other, batch),))
            for batch in block
        ]
        columns = [stacked(column) for column in zip(*each, strict=True)]
        whole = [column for column in columns if column is not None]
        yield from [tuple(whole)] if len(whole) == len(columns) else each

    def maps(self, hidden: LayerJob, reader: LayerJob, shape: tuple[int, ...]) -> tuple[list[Maps], list[Maps]]:
        """Whole activations: (for the steps, for the line search).  ``shape``: (g, n+1, o) of the hidden layer's weights."""
        sides: tuple[list[Maps], list[Maps]] = ([], [])
        room = [self.refining, self.refining // 4]
        rows = MAP_ROWS * self.rule.rows(shape[0], shape[1] - 1)
        positions = self._positions(hidden.layer)
        missing = [rows, rows // 4]
        samples = min(self.samples, sum(-(-one // positions) for one in missing))
        for side, batch in ((side_of(number), batch) for number, block in self.blocks.items() for batch in block):
            x, wanted = self.pair.pruned.get(hidden.layer.data, batch), self._wanted(reader, batch)
            if sides[side] and (room[side] < max(x.nbytes, wanted.nbytes) or missing[side] <= 0):
                continue
            room[side] -= max(x.nbytes, wanted.nbytes)
            missing[side] -= len(x) * positions
            wanted = np.compress(reader.part.kept_outputs, wanted, axis=reader.axis % wanted.ndim)
            along = [1] * wanted.ndim
            along[reader.axis] = -1
            offset = reader.shift.reshape(along)
            if reader.target.other is not None:
                offset = offset + self.pair.pruned.get(reader.target.other, batch)
            sides[side].append(self._map(hidden.layer, x, wanted, offset, shape, samples, batch))
        return sides[0], sides[1] or sides[0]

    def _positions(self, layer: Layer) -> int:
        """Rows of ``layer`` per sample."""
        shape = self.coupling.facts.shapes[layer.output]
        return math.prod(shape[1:-1] if layer.kind == "matmul" else shape[2:])

    def _wanted(self, job: LayerJob, batch: int) -> Array:
        return job.still_there(self.pair.original.get(job.target.value, batch))

    def _map(
        self,
        layer: Layer,
        x: Array,
        wanted: Array,
        offset: Array,
        weights: tuple[int, ...],
        samples: int,
        batch: int,
    ) -> Maps:
        groups, count, _ = weights
        shape = (len(x), *self.coupling.facts.shapes[layer.output][1:])
        wanted_rows = self.rule.rows(groups, count - 1)
        picks, geo = row_picks(self.coupling, layer, x, shape, wanted_rows, samples, self.seed + batch)
        rows = sample_rows(layer, x, geo, picks, groups)
        return Maps(x, wanted, offset, rows, lambda output: sample_outputs(layer, output, geo, picks))


def rows_of(job: LayerJob, parts: Sequence[BlockRows] | None) -> tuple[Rows, Rows] | None:
    """The rows of all blocks, in order, as (rows to fit on, held-out rows); ``None`` if ``parts`` are.

    One side serves as both if the other has no block.
    """
    if parts is None:
        return None
    sides = ([part for side, part in parts if side == wanted] for wanted in (0, 1))
    made = [Rows(gathered(side), job.scale.astype(np.float32), job.constant) for side in sides if side]
    return made[0], made[-1]


def sampled_blocks(blocks: int, times: int) -> Iterator[int]:
    """The indices of the blocks to sample, if there are ``times`` as many samples as rows wanted.

    Every sample gives at least one row, so the rows of all samples would take too much memory.  The share of held-out
    blocks stays.
    """
    return (number for number in range(blocks) if number // HOLD_EVERY % max(times, 1) == 0)


def side_of(block: int) -> int:
    """1 if the block of batches is held out, else 0."""
    return int(block % HOLD_EVERY == HOLD_EVERY - 1)


def gathered(parts: Iterable[Part]) -> list[Part]:
    """``parts`` in their order, with small ones joined up to :data:`onnxprune.linear.gram.CHUNK` rows.

    Products of many rows are faster.  Large parts are not copied.
    """
    groups: list[list[Part]] = [[]]
    for part in parts:
        if groups[-1] and sum(len(x) for x, _, _ in groups[-1]) + len(part[0]) > CHUNK:
            groups.append([])
        groups[-1].append(part)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(group: Sequence[Part]) -> Part:
    x, wanted, offset = zip(*group, strict=True)
    return np.concatenate(x), np.concatenate(wanted), offset[0] if offset[0].ndim == 1 else np.concatenate(offset)


def _row_axes(layer: Layer, array: Array) -> tuple[int, ...]:
    """The lengths of the axes that hold the rows of ``array``; for convolutions, without the spatial axes."""
    return array.shape[:-1] if layer.kind == "matmul" else array.shape[:1]
