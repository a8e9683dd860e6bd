"""The value every data source becomes: a count, and a way to fetch model-ready feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.things import Things
from onnxprune.errors import DataError

Scalar = TypeVar("Scalar", bound=np.generic)
One = TypeVar("One")
Feeds = dict[str, NDArray[np.generic]]
Fetch = Callable[[Sequence[int]], Feeds]


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name, numpy dtype and shape, None for a dimension that is free.

    ``usual``: the number that an integer input is likely to hold (a sampling rate that the model asks for), if any.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    usual: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples for a model, fetched on demand.

    labels: int64 (count,), or None where the source has none. origin: one line saying where the samples
    come from. notes: what the user should know about them.

    fetch(indices) gives {input: array in the input's dtype}, samples stacked on axis 0 in the order asked
    for. It raises DataError where a sample cannot be read or fed. Cost: the samples asked for, nothing else
    is held.

    batch_limit: how many samples one fetch may ask for. None: any number. 1: the batch axis is fixed at 1,
    or every sample is a whole feed of its own. N: the batch axis is fixed at N; a fetch of fewer samples is
    filled up by repeating them from the first on, so the first len(indices) rows of an output are theirs and
    the others are to be dropped.

    things(i): the boxes that sample i is labelled with, in pixels of what is fed; None where the source has none.
    picture(i): what is fed before it becomes numbers, height × width × channels; None where the source is no picture.
    """

    specs: tuple[InputSpec, ...]
    count: int
    labels: NDArray[np.int64] | None
    origin: str
    notes: tuple[str, ...]
    fetch: Fetch
    batch_limit: int | None
    things: Callable[[int], Things] | None = None
    picture: Callable[[int], NDArray[np.uint8]] | None = None

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """The samples at these positions, in this order, as a view: nothing is read."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.count):
            got = f"{chosen.min()}..{chosen.max()}"
            raise DataError(f"sample indices must lie in 0..{self.count - 1}, got {got}")
        labels = None if self.labels is None else self.labels[chosen]
        things = None if self.things is None else subset_of(self.things, chosen)
        picture = None if self.picture is None else subset_of(self.picture, chosen)
        return replace(self, count=int(chosen.size), labels=labels, fetch=subset(self.fetch, chosen), things=things, picture=picture)

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to `size` samples, in order; of batch_limit samples where that is smaller or fixed."""
        for rows in self.rows(size):
            yield self.fetch(rows)

    def rows(self, size: int) -> Iterator[range]:
        """The positions that each of `batches(size)` holds, so that outputs can be matched with labels."""
        if size < 1:
            raise DataError(f"a batch holds at least one sample, got {size}")
        step = size if self.batch_limit is None else self.batch_limit
        for start in range(0, self.count, step):
            yield range(start, min(start + step, self.count))


def subset(fetch: Fetch, chosen: NDArray[np.int64]) -> Fetch:
    """The same fetch, addressed by position in `chosen`."""

    def fetch_chosen(rows: Sequence[int]) -> Feeds:
        return fetch([int(chosen[row]) for row in rows])

    return fetch_chosen


def subset_of(one: Callable[[int], One], chosen: NDArray[np.int64]) -> Callable[[int], One]:
    """The same function of a sample, addressed by position in `chosen`."""
    return lambda row: one(int(chosen[row]))


def choose(count: int, samples: int | None, seed: int) -> NDArray[np.int64]:
    """Which of `count` samples to use, ascending: a seeded subset of at most `samples`, or all."""
    if samples is not None and samples < 1:
        raise DataError(f"the number of samples must be at least 1, got {samples}")
    if count == 0:
        raise DataError("the data holds no samples; give at least one")
    if samples is None or samples >= count:
        return np.arange(count, dtype=np.int64)
    picked = np.random.default_rng(seed).choice(count, size=samples, replace=False)
    return np.sort(picked).astype(np.int64)


def counted(chosen: int, count: int, what: str) -> str:
    """`256 of 384 images in calib`, or `384 images in calib` when all are used."""
    return f"{count} {what}" if chosen == count else f"{chosen} of {count} {what}"


def uniform_batch(specs: Sequence[InputSpec]) -> tuple[int | None] | None:
    """(limit,) when axis 0 can be one batch axis shared by all of these inputs, None when it cannot."""
    sizes = {spec.shape[0] if spec.shape else 0 for spec in specs}
    if 0 in sizes:
        return None
    if sizes == {None, 1}:
        return (1,)
    return (sizes.pop(),) if len(sizes) == 1 else None


def check_rows(rows: Sequence[int], limit: int | None) -> None:
    """Refuse a fetch of nothing, or of more samples than one feed takes."""
    if not len(rows):
        raise DataError("a fetch needs at least one sample")
    if limit is not None and len(rows) > limit:
        raise DataError(f"one feed of this model takes {limit} sample(s), {len(rows)} were asked for")


def fill(batch: NDArray[Scalar], limit: int | None) -> NDArray[Scalar]:
    """Repeat the samples of a short batch until a fixed batch axis is full."""
    if limit is None or len(batch) == limit:
        return batch
    return np.take(batch, np.arange(limit) % len(batch), axis=0)


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """True for numpy's floats and for bfloat16 and float8, which numpy itself does not call floats."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def is_integer(dtype: np.dtype[np.generic]) -> bool:
    """True for signed and unsigned integers, int4 and uint4 included; not for bool."""
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))


def integer_range(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Smallest and largest value of an integer dtype; numpy itself does not know those of int4 and int2."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype.name)
        return int(info.min), int(info.max)
    bits = int(dtype.name.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def shape_text(shape: Sequence[int | None]) -> str:
    """`?×3×224×224`, with ? for a free dimension; `scalar` for rank 0."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"


def fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Whether an array of this shape can be fed where `expected` is declared."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))
