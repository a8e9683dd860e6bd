"""What a fit looks at: sampled rows of a layer, and whole activations for a refinement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.moments import row_picks
from onnxprune.calibration.row_rule import RowRule
from onnxprune.coupling.groups import Coupling
from onnxprune.linear.form import Layer, sample_outputs, sample_rows
from onnxprune.refit.fit import Rows
from onnxprune.refit.job import Job
from onnxprune.refit.pair import Pair
from onnxprune.refit.refine import Maps

Array = np.ndarray
#: One batch in this many is held out inside the fit, to choose the strength of the ridge.
HOLD_EVERY = 5
#: Bytes of one activation that a refinement looks at; more samples than these hold are left out.
MAP_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Sampler:
    """Samples ``pair`` over all batches, which hold ``samples`` together; ``rule`` says how many rows."""

    coupling: Coupling
    pair: Pair
    samples: int
    rule: RowRule
    seed: int

    def rows(self, job: Job) -> tuple[Rows, Rows] | None:
        """Rows to fit on and rows held out; ``None`` where data that decide how many there are decided otherwise
        behind the cut."""
        layer, groups, features = job.layer, job.part.groups, job.base.shape[1] - 1
        wanted_rows = self.rule.rows(groups, features)
        sides: tuple[list[tuple[Array, Array, Array]], ...] = ([], [])
        for batch in range(self.pair.pruned.count):
            x, y = self.pair.pruned.get(layer.data, batch), self._wanted(job, batch)
            if math.prod(_row_axes(layer, x)) != math.prod(_row_axes(layer, y)):
                return None
            picks, geo = row_picks(self.coupling, layer, x, y.shape, wanted_rows, self.samples, self.seed + batch)
            rows = sample_rows(layer, x, geo, picks, groups).reshape(-1, groups, features)
            wanted = sample_outputs(layer, y, geo, picks)[:, job.part.kept_outputs]
            offset = np.broadcast_to(job.shift, wanted.shape)
            if job.target.other is not None:
                other = self.pair.pruned.get(job.target.other, batch)
                offset = offset + sample_outputs(layer, other, geo, picks)
            sides[held_out(batch)].append((rows, wanted, offset))
        made = [_joined(side, job) for side in sides if side]
        return made[0], made[-1]

    def maps(self, hidden: Job, reader: Job, shape: tuple[int, ...]) -> tuple[list[Maps], list[Maps]]:
        """Whole activations to step on and to search the steps' lengths on; ``shape`` is that of the hidden layer's
        weights, (g, n+1, o)."""
        sides: tuple[list[Maps], list[Maps]] = ([], [])
        room = [MAP_BYTES, MAP_BYTES // 4]
        for batch in range(self.pair.pruned.count):
            x, wanted = self.pair.pruned.get(hidden.layer.data, batch), self._wanted(reader, batch)
            side = held_out(batch)
            if sides[side] and room[side] < max(x.nbytes, wanted.nbytes):
                continue
            room[side] -= max(x.nbytes, wanted.nbytes)
            wanted = np.compress(reader.part.kept_outputs, wanted, axis=reader.axis % wanted.ndim)
            along = [1] * wanted.ndim
            along[reader.axis] = -1
            offset = reader.shift.reshape(along)
            if reader.target.other is not None:
                offset = offset + self.pair.pruned.get(reader.target.other, batch)
            sides[side].append(self._map(hidden.layer, x, wanted, offset, shape, batch))
        return sides[0], sides[1] or sides[0]

    def _wanted(self, job: Job, batch: int) -> Array:
        return job.still_there(self.pair.original.get(job.target.value, batch))

    def _map(self, layer: Layer, x: Array, wanted: Array, offset: Array, weights: tuple[int, ...], batch: int) -> Maps:
        groups, count, _ = weights
        shape = (len(x), *self.coupling.facts.shapes[layer.output][1:])
        wanted_rows = self.rule.rows(groups, count - 1)
        picks, geo = row_picks(self.coupling, layer, x, shape, wanted_rows, self.samples, self.seed + batch)
        rows = sample_rows(layer, x, geo, picks, groups)
        return Maps(x, wanted, offset, rows, lambda output: sample_outputs(layer, output, geo, picks))


def held_out(batch: int) -> int:
    """1 for a batch that is held out, else 0."""
    return int(batch % HOLD_EVERY == HOLD_EVERY - 1)


def _joined(side: Sequence[tuple[Array, Array, Array]], job: Job) -> Rows:
    x, wanted, offset = (np.concatenate(column) for column in zip(*side, strict=True))
    return Rows(x, wanted, offset, job.scale.astype(np.float32), job.constant)


def _row_axes(layer: Layer, array: Array) -> tuple[int, ...]:
    """The axes of an input or output along which its rows lie; of convolutions, without those of space."""
    return array.shape[:-1] if layer.kind == "matmul" else array.shape[:1]
