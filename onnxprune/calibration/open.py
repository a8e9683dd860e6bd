"""The entry point for all data sources: recognize a source and open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from onnxprune.calibration.arrays import open_arrays, read_npy, read_npz
from onnxprune.calibration.dataset import Dataset, InputSpec, is_float, shape_text
from onnxprune.calibration.feeds import collect, is_iterable, open_feeds, table_images
from onnxprune.calibration.functions import call, importing, parse_ref
from onnxprune.calibration.hub import load_hub, parse_hub
from onnxprune.calibration.images import SUFFIXES, coco_images, folder_images, has_images, open_images
from onnxprune.calibration.layout import image_layout
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.calibration.request import DataRequest
from onnxprune.calibration.sounds import SUFFIX, open_sounds, sound_files
from onnxprune.calibration.synthetic import open_synthetic
from onnxprune.errors import DataError

KINDS = "a folder of images or .wav files, COCO's JSON, an .npz or .npy file, hf:NAME, FILE.py:FUNCTION, or package.module:FUNCTION"


def open_dataset(
    source: object | None,
    specs: tuple[InputSpec, ...],
    preprocess: Preprocess | None,
    samples: int | None,
    seed: int,
) -> Dataset:
    """Open any data source of the user for a model with these inputs.

    source: None (synthetic), a path or `module:function` as on the command line, a dict of arrays, one array,
    an iterable of {input name: array}, a table with an image column, or a function that returns any of these.
    preprocess: None picks a default and adds a note about it. samples: the maximum number, a seeded choice in
    ascending order; None uses all (128 if synthetic). Raises DataError if the source or its first sample is
    unusable; other samples are checked when fetched. Cost: it reads the first sample, and of an iterable without
    length all samples.
    """
    if not specs:
        raise DataError("the model has no inputs to feed")
    if samples is not None and samples < 1:
        raise DataError(f"the number of samples must be at least 1, got {samples}")
    request = DataRequest(specs, preprocess, samples, seed)
    if source is None:
        return open_synthetic(request)
    dataset = _open(source, request)
    return replace(dataset, notes=dataset.notes + fed_notes(dataset))


def fed_notes(dataset: Dataset) -> tuple[str, ...]:
    """Notes with the range and mean of the first fed sample per channel, to reveal a wrong preset."""
    feeds = dataset.fetch([0])
    numbers = [spec for spec in dataset.specs if feeds[spec.name].dtype.kind not in "USOT"]
    return tuple(_fed(spec, feeds[spec.name]) for spec in numbers)


def _fed(spec: InputSpec, array: NDArray[np.generic]) -> str:
    head = f"first sample fed to '{spec.name}': {spec.dtype.name} {shape_text(array.shape)}"
    if not array.size:
        return f"{head}, empty"
    values = array.astype(np.float64)
    layout = image_layout(spec)
    axis = None if layout is None else layout.channel_axis
    channels = [values] if axis is None else list(np.moveaxis(values, axis, 0))
    ranges = ", ".join(f"{part.min():.3g}/{part.mean():.3g}/{part.max():.3g}" for part in channels)
    flat = values.size > 1 and is_float(spec.dtype) and values.min() == values.max()
    warning = "; it is constant: check the data and --preprocess" if flat else ""
    return f"{head}, min/mean/max {'per channel ' if len(channels) > 1 else ''}{ranges}{warning}"


def _open(source: object, request: DataRequest) -> Dataset:
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fspath(source), request)
    if callable(source) and not is_iterable(source):
        return _open_call(source, getattr(source, "__name__", type(source).__name__), request)
    return _open_value(source, f"the given {type(source).__name__}", request)


def _open_text(text: str, request: DataRequest) -> Dataset:
    if not text:
        # An empty path would mean the working folder.
        raise DataError(f"the name of the data is empty; give {KINDS}")
    hub = parse_hub(text)
    if hub is not None:
        return _open_value(load_hub(hub, request.specs, request.samples, request.seed), text, request)
    path = Path(text).expanduser()
    suffix = path.suffix.lower()
    if not path.exists():
        ref = parse_ref(text)
        if ref is not None:
            with importing(ref) as function:
                return _open_call(function, text, request)
        raise DataError(f"{text} does not exist; give {KINDS}")
    if path.is_dir() or suffix == SUFFIX:
        sounds = sound_files(path)
        # A folder of both is a folder of images, with sounds as extras.
        if sounds and not has_images(path):
            return open_sounds(sounds, request, text)
    if path.is_dir() or suffix in SUFFIXES:
        return open_images(folder_images(path), request)
    if suffix == ".json":
        return open_images(coco_images(path), request)
    if suffix == ".npz":
        return open_arrays(read_npz(path), request, text)
    if suffix == ".npy":
        return _open_array(read_npy(path), text, request)
    if suffix == ".py":
        raise DataError(f"{text}: the function is missing; give {text}:FUNCTION")
    raise DataError(f"unknown kind of data: {text}; give {KINDS}")


def _open_call(
    function: Callable[..., object],
    name: str,
    request: DataRequest,
) -> Dataset:
    value = call(function, name)
    if value is None or (callable(value) and not is_iterable(value)):
        raise DataError(f"{name}() returned {type(value).__name__}; return arrays or dicts of arrays")
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if parse_ref(text) is not None and not Path(text).expanduser().exists():
            # Functions that return functions could go on forever.
            raise DataError(f"{name}() returned '{text}', a function; return arrays or a path")
        return _open_text(text, request)
    return _open_value(value, f"{name}()", request)


def _open_value(
    value: object,
    origin: str,
    request: DataRequest,
) -> Dataset:
    columns = getattr(value, "column_names", None)
    if columns is not None and isinstance(value, Mapping):
        raise DataError(f"{origin} has several tables: {', '.join(map(str, value))}; give one of them")
    if isinstance(value, Mapping):
        arrays = {str(key): cast(object, item) for key, item in value.items()}
        return open_arrays(arrays, request, origin)
    if columns is not None and not {spec.name for spec in request.specs} <= set(columns):
        images = table_images(value, columns, origin)
        if images is None:
            raise DataError(f"{origin}: needs a column 'image' or one column per input; it has {', '.join(columns)}")
        return open_images(images, request)
    if columns is None and hasattr(value, "__array__") and hasattr(value, "shape"):
        return _open_array(value, origin, request)
    if is_iterable(value):
        return open_feeds(collect(value, request.samples, origin), request)
    raise DataError(f"{origin} is not data; give {KINDS}, arrays, or an iterable of dicts of arrays")


def _open_array(
    array: object,
    origin: str,
    request: DataRequest,
) -> Dataset:
    if len(request.specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in request.specs)
        raise DataError(
            f"{origin} is one array, but the model has {len(request.specs)} inputs: {names}; give an .npz with all inputs"
        )
    return open_arrays({request.specs[0].name: array}, request, origin)
