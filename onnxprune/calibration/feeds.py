"""Data given sample by sample: iterables of {input name: array}, and tables with columns."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxprune.calibration.arrays import LABELS, check_shape, match_names, read_labels
from onnxprune.calibration.casting import array_encoder, as_array, to_input
from onnxprune.calibration.dataset import (
    Dataset,
    Feeds,
    InputSpec,
    check_rows,
    choose,
    counted,
    fill,
    subset,
    uniform_batch,
)
from onnxprune.calibration.functions import describe
from onnxprune.calibration.images import ImageSource, loaded
from onnxprune.calibration.request import DataRequest
from onnxprune.errors import DataError
from onnxprune.paths import open_ordinary

IMAGE_COLUMNS = ("image", "img", "pixel_values")
LABEL_COLUMNS = (LABELS, "label", "fine_label")


@dataclass(frozen=True)
class Items:
    """Samples by position. get(i) may run the user's code."""

    count: int
    get: Callable[[int], object]
    origin: str
    notes: tuple[str, ...] = ()


def collect(source: Any, samples: int | None, origin: str) -> Items:
    """Items of any iterable: lazy if it has a length and indices, else its first items.

    Items of a generator stay in memory. Raises DataError if the iteration raises.
    """
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return Items(len(source), source.__getitem__, origin)
    try:
        # One extra item shows whether there are more.
        items = list(itertools.islice(iter(source), None if samples is None else samples + 1))
    except (Exception, SystemExit) as error:
        raise DataError(f"{origin} raised {describe(error)} while giving its samples") from error
    if samples is None or len(items) <= samples:
        return Items(len(items), items.__getitem__, origin)
    return Items(samples, items.__getitem__, origin, (f"only the first {samples} samples of {origin} are used",))


def open_feeds(items: Items, request: DataRequest) -> Dataset:
    """Open one {input name: array} per sample, or just one array for a model with one input.

    An array of the input's rank is a complete feed; then every fetch takes one sample. If all arrays have one axis
    less, they lack the batch axis and are stacked. If the first sample has `labels` or `label`, this is the class
    of each sample. Raises DataError if the first sample does not fit; other samples are checked when fetched.
    """
    origin, specs = items.origin, request.specs
    chosen = choose(items.count, request.samples, request.seed)
    first = _sample(items, int(chosen[0]), specs)
    inputs = [spec.name for spec in specs]
    label_key = next((key for key in LABEL_COLUMNS if key in first and key not in inputs), None)
    where = f"{origin}, sample {chosen[0]}"
    matched = match_names(tuple(key for key in first if key != label_key), specs, where)
    arrays = {spec.name: as_array(first[matched.keys[spec.name]], where) for spec in specs}
    limit = uniform_batch(specs)
    bare = limit is not None and all(arrays[spec.name].ndim == len(spec.shape) - 1 for spec in specs)
    # With free dimensions, samples may differ in shape and cannot be stacked.
    same = all(None not in spec.shape[1:] for spec in specs)
    batch_limit = (limit[0] if same or limit[0] is not None else 1) if bare and limit is not None else 1
    encoders = {spec.name: array_encoder(spec, arrays[spec.name].dtype, request.preprocess) for spec in specs}
    notes = tuple(note for _, encoder_notes in encoders.values() for note in encoder_notes)
    if matched.ignored:
        notes += (f"ignored, because the model has no such input: {', '.join(matched.ignored)}",)

    def one(row: int, spec: InputSpec) -> NDArray[np.generic]:
        where = f"{origin}, sample {row}"
        sample = _sample(items, row, specs)
        key = matched.keys[spec.name]
        if key not in sample:
            raise DataError(f"{where}: '{key}' is missing, unlike in the first sample; give every input in every sample")
        array = as_array(sample[key], where)
        check_shape(array.shape, spec.shape[1:] if bare else spec.shape, spec, where)
        encoder = encoders[spec.name][0]
        return to_input(array[None] if bare else array, spec, encoder, where)

    def fetch(rows: Sequence[int]) -> Feeds:
        check_rows(rows, batch_limit)
        if not bare:
            return {spec.name: one(rows[0], spec) for spec in specs}
        return {spec.name: fill(np.concatenate([one(row, spec) for row in rows]), batch_limit) for spec in specs}

    labels: NDArray[np.int64] | None = None
    if label_key is not None:
        values = [_sample(items, int(row), specs).get(label_key) for row in chosen]
        labels = read_labels(np.ravel(as_array(values, f"{origin}, '{label_key}'")), len(chosen), origin)
    return Dataset(
        specs=specs,
        count=len(chosen),
        labels=labels,
        origin=counted(len(chosen), items.count, f"samples from {origin}"),
        notes=items.notes + notes,
        fetch=subset(fetch, chosen),
        batch_limit=batch_limit,
    )


def table_images(table: Any, columns: Sequence[str], origin: str) -> ImageSource | None:
    """The images of a table, if it has an image column. Rows are decoded when fetched."""
    column = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if column is None:
        return None
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    labels = None if label is None else read_labels(list(table[label]), len(table), origin)
    return ImageSource(
        count=len(table),
        load=lambda row: _picture(table[row][column]),
        name=lambda row: f"{row} of {origin}",
        labels=labels,
        origin=f"images in column '{column}' of {origin}",
    )


def _picture(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return Image.open(io.BytesIO(value["bytes"]))
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(path, str) and path:
        with open_ordinary(path) as file, Image.open(file) as image:
            return loaded(image)
    return Image.fromarray(np.asarray(value, dtype=np.uint8))


def _sample(items: Items, row: int, specs: tuple[InputSpec, ...]) -> Mapping[str, object]:
    where = f"{items.origin}, sample {row}"
    try:
        item = items.get(row)
    except (Exception, SystemExit) as error:
        raise DataError(f"{where}: raised {describe(error)}") from error
    if isinstance(item, Mapping):
        return {str(key): value for key, value in item.items()}
    if len(specs) == 1 and hasattr(item, "__array__"):
        return {specs[0].name: item}
    names = ", ".join(f"'{spec.name}': array" for spec in specs)
    raise DataError(f"{where}: expected a dict {{{names}}}, got {type(item).__name__}")


def is_iterable(source: object) -> bool:
    """Whether `source` yields samples one by one."""
    return isinstance(source, Iterable) or (hasattr(source, "__getitem__") and hasattr(source, "__len__"))
