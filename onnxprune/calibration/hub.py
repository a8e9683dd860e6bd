"""``hf:NAME[:SPLIT[:COLUMN]]``: a data set of the Hugging Face hub or on disk.  It needs the package ``datasets``."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.calibration.dataset import InputSpec
from onnxprune.calibration.feeds import IMAGE_COLUMNS
from onnxprune.calibration.functions import describe
from onnxprune.errors import DataError

PREFIX = "hf:"
#: From the hub, samples are drawn from the first POOL * samples rows, so that the data set is not loaded completely.
POOL = 4


@dataclass(frozen=True)
class HubRef:
    """``split`` None: the only split, or ``train``.  ``column`` None: the column that matches the input."""

    name: str
    split: str | None
    column: str | None


def parse_hub(text: str) -> HubRef | None:
    """The parts of ``hf:NAME[:SPLIT[:COLUMN]]``, or None for any other text."""
    if not text.startswith(PREFIX):
        return None
    name, _, rest = text[len(PREFIX) :].partition(":")
    split, _, column = rest.partition(":")
    if not name:
        raise DataError(f"{text}: the name of the data set is missing; give hf:NAME, hf:NAME:SPLIT or hf:NAME:SPLIT:COLUMN")
    return HubRef(name, split or None, column or None)


def load_hub(ref: HubRef, specs: tuple[InputSpec, ...], samples: int | None, seed: int) -> Any:
    """The table, with the chosen column renamed as the pipeline expects it.

    ``samples`` None loads the whole split (for labelled test sets).  Otherwise a hub data set is streamed, with a seeded
    choice among its first ``POOL * samples`` rows.  Raises DataError if ``datasets`` is not installed, or if the data
    set, split or column does not exist.
    """
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(f"{PREFIX}{ref.name} needs the package 'datasets': pip install datasets") from error
    try:
        table = _loaded(datasets, ref, samples, seed)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot load {PREFIX}{ref.name}: {describe(error)}") from error
    return _renamed(table, ref, specs)


def _loaded(datasets: Any, ref: HubRef, samples: int | None, seed: int) -> Any:
    path = Path(ref.name)
    if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        return _split(datasets.load_from_disk(str(path)), ref)
    if samples is None or path.exists():
        return _split(datasets.load_dataset(ref.name), ref)
    stream = _split(datasets.load_dataset(ref.name, streaming=True), ref)
    rows: Iterable[Any] = itertools.islice(stream.shuffle(seed=seed, buffer_size=POOL * samples), samples)
    return datasets.Dataset.from_list(list(rows), features=stream.features)


def _split(data: Any, ref: HubRef) -> Any:
    """The chosen split, if ``data`` is a dict of splits."""
    if not hasattr(data, "keys"):
        return data
    names = list(data.keys())
    wanted = ref.split or (names[0] if len(names) == 1 else "train")
    if wanted not in names:
        raise DataError(f"{PREFIX}{ref.name} has no split '{wanted}'; it has {', '.join(names)}")
    return data[wanted]


def _renamed(table: Any, ref: HubRef, specs: tuple[InputSpec, ...]) -> Any:
    """Rename the chosen column to the input, or to \"image\"; drop another column of that name."""
    if ref.column is None:
        return table
    if ref.column not in table.column_names:
        columns = ", ".join(table.column_names)
        raise DataError(f"{PREFIX}{ref.name} has no column '{ref.column}'; it has {columns}")
    if len(specs) != 1:
        raise DataError(f"{PREFIX}{ref.name}: a column feeds a single input, but the model has {len(specs)}; leave out the column")
    pictures = type(table.features[ref.column]).__name__ == "Image"
    name = IMAGE_COLUMNS[0] if pictures else specs[0].name
    if name == ref.column:
        return table
    return (table.remove_columns(name) if name in table.column_names else table).rename_column(ref.column, name)
