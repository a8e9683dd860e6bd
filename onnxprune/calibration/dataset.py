"""The common form of all data sources: a count, and a function that fetches model-ready feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.labelled_boxes import LabelledBoxes
from onnxprune.errors import DataError

Scalar = TypeVar("Scalar", bound=np.generic)
One = TypeVar("One")
Feeds = dict[str, NDArray[np.generic]]
Fetch = Callable[[Sequence[int]], Feeds]


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name, numpy dtype and shape, with None for a free dimension.

    ``usual``: a typical value of an integer input, such as the sampling rate that the model expects, or None.
    ``picture``: (height, width) that the model's metadata states for its pictures, or None.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    usual: int | None = None
    picture: tuple[int, int] | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples for a model, fetched on demand.

    labels: int64 (count,), or None. origin: one line about the source of the samples. notes: what the user should
    know about them.

    fetch(indices) returns {input: array in the input's dtype}, with samples stacked on axis 0 in the given order. It
    raises DataError if a sample cannot be read or fed. It reads only these samples and keeps nothing.

    batch_limit: the maximum samples of one fetch. None: any number. 1: the batch axis is fixed at 1, or every sample
    is a complete feed. N: the batch axis is fixed at N. A fetch of fewer samples then repeats them from the first on.
    Only the first len(indices) rows of an output are valid; drop the others.

    boxes_of(i): the labelled boxes of sample i, in pixels of the fed image; None if the source has none.
    picture(i): the image before normalization, height × width × channels; None if the source has no images.
    """

    specs: tuple[InputSpec, ...]
    count: int
    labels: NDArray[np.int64] | None
    origin: str
    notes: tuple[str, ...]
    fetch: Fetch
    batch_limit: int | None
    boxes_of: Callable[[int], LabelledBoxes] | None = None
    picture: Callable[[int], NDArray[np.uint8]] | None = None

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Dataset:
        """A view on the samples at these positions, in this order. It reads nothing."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.count):
            got = f"{chosen.min()}..{chosen.max()}"
            raise DataError(f"sample indices must lie in 0..{self.count - 1}, got {got}")
        labels = None if self.labels is None else self.labels[chosen]
        boxes_of = None if self.boxes_of is None else subset_of(self.boxes_of, chosen)
        picture = None if self.picture is None else subset_of(self.picture, chosen)
        return replace(self, count=int(chosen.size), labels=labels, fetch=subset(self.fetch, chosen), boxes_of=boxes_of, picture=picture)

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to `size` samples, in order; `batch_limit` takes precedence over `size`."""
        for rows in self.rows(size):
            yield self.fetch(rows)

    def rows(self, size: int) -> Iterator[range]:
        """The positions of the samples in each of `batches(size)`, to match outputs with labels."""
        if size < 1:
            raise DataError(f"a batch needs at least one sample, got {size}")
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
    """The samples to use out of `count`, ascending: a seeded subset of `samples`, or all."""
    if samples is not None and samples < 1:
        raise DataError(f"the number of samples must be at least 1, got {samples}")
    if count == 0:
        raise DataError("the data has no samples; give at least one")
    if samples is None or samples >= count:
        return np.arange(count, dtype=np.int64)
    picked = np.random.default_rng(seed).choice(count, size=samples, replace=False)
    return np.sort(picked).astype(np.int64)


def counted(chosen: int, count: int, what: str) -> str:
    """What was chosen, in words.  ``what`` starts with the plural of what is counted.

    >>> counted(256, 384, "images in calib"), counted(384, 384, "images in calib"), counted(1, 1, "images in calib")
    ('256 of 384 images in calib', '384 images in calib', '1 image in calib')
    """
    if count == 1:
        thing, _, rest = what.partition(" ")
        what = f"{thing.removesuffix('s')} {rest}"
    return f"{count} {what}" if chosen == count else f"{chosen} of {count} {what}"


def uniform_batch(specs: Sequence[InputSpec]) -> tuple[int | None] | None:
    """(limit,) if axis 0 can be a common batch axis of these inputs, else None."""
    sizes = {spec.shape[0] if spec.shape else 0 for spec in specs}
    if 0 in sizes:
        return None
    if sizes == {None, 1}:
        return (1,)
    return (sizes.pop(),) if len(sizes) == 1 else None


def check_rows(rows: Sequence[int], limit: int | None) -> None:
    """Raise DataError for a fetch of no samples, or of more samples than one feed takes."""
    if not len(rows):
        raise DataError("a fetch needs at least one sample")
    if limit is not None and len(rows) > limit:
        raise DataError(f"one feed of this model takes {limit} sample(s), got {len(rows)}")


def fill(batch: NDArray[Scalar], limit: int | None) -> NDArray[Scalar]:
    """Repeat the samples of a short batch until the fixed batch axis is full."""
    if limit is None or len(batch) == limit:
        return batch
    return np.take(batch, np.arange(limit) % len(batch), axis=0)


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """True for floats, including bfloat16 and float8, which numpy does not classify as floats."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def is_integer(dtype: np.dtype[np.generic]) -> bool:
    """True for signed and unsigned integers, int4 and uint4 included; not for bool."""
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))


def integer_range(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Smallest and largest value of an integer dtype, including int4 and int2, which numpy does not know."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype.name)
        return int(info.min), int(info.max)
    bits = int(dtype.name.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def shape_text(shape: Sequence[int | None]) -> str:
    """`?×3×224×224`, with ? for a free dimension; `scalar` for rank 0."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"


def fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Whether an input of shape `expected` takes an array of this shape."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))
