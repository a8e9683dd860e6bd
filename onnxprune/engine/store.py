"""Activations of many batches: in memory up to a limit, on disk beyond it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxprune.paths import temporary_files

Array = np.ndarray


class Store:
    """``put`` and ``get`` arrays by (value, batch); ``drop`` deletes a value.  Use as a context manager.

    Memory stays below ``limit`` bytes.  Further arrays go to files in a temporary folder, which is removed at the end,
    also after an exception or Ctrl-C.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._memory: dict[tuple[str, int], Array] = {}
        self._disk: dict[tuple[str, int], Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def put(self, value: str, batch: int, array: Array) -> None:
        """Keep ``array``.  Replaces an earlier one.

        Raises:
            OutputError: the temporary folder is full or cannot be written.
        """
        self._forget((value, batch))
        if self._used + array.nbytes <= self.limit:
            self._memory[value, batch] = array
            self._used += array.nbytes
            return
        with temporary_files():
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="onnxprune-")
            self._count += 1
            path = Path(self._folder.name) / f"{self._count}.npy"
            np.save(path, array, allow_pickle=False)
        self._disk[value, batch] = path

    def get(self, value: str, batch: int) -> Array:
        array = self._memory.get((value, batch))
        return array if array is not None else np.load(self._disk[value, batch])

    def feeds(self, names: Mapping[str, str], batch: int) -> dict[str, Array]:
        """Feeds of a run: input name -> array, for ``names``: input name -> value."""
        return {name: self.get(value, batch) for name, value in names.items()}

    def has(self, value: str) -> bool:
        return (value, 0) in self._memory or (value, 0) in self._disk

    def values(self) -> set[str]:
        return {value for value, _ in (*self._memory, *self._disk)}

    def drop(self, value: str) -> None:
        for key in [k for k in (*self._memory, *self._disk) if k[0] == value]:
            self._forget(key)

    def _forget(self, key: tuple[str, int]) -> None:
        if key in self._memory:
            self._used -= self._memory.pop(key).nbytes
        if key in self._disk:
            self._disk.pop(key).unlink()
