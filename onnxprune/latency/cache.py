"""Cache of measured tables: one file per machine, runtime and number of threads."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from onnxprune.errors import BudgetError
from onnxprune.json_file import read_json
from onnxprune.latency.device import Json, measure, processor, version
from onnxprune.latency.signature import Signature
from onnxprune.latency.synthetic import layers_file
from onnxprune.latency.table import Table, table_of
from onnxprune.paths import temporary_files

RUNTIME = "onnxruntime"


def cache_folder() -> Path:
    """This platform's cache folder: ``$XDG_CACHE_HOME`` or ``~/.cache``, ``~/Library/Caches``, ``%LOCALAPPDATA%``."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxprune"


def measured_table(signatures: Iterable[Signature], threads: int, report: Callable[[int], None]) -> Table:
    """The table of this machine's onnxruntime (CPU), with at least ``signatures``.

    It measures only what the cache lacks.  Without a usable cache it measures everything, every time.  ``report`` gets
    the number of models timed since its last call.  Cost: about 0.15 s per new layer and input width.
    """
    path = _path(threads)
    known = _read(path)
    layers = known.get("layers", {})
    missing = [s for s in dict.fromkeys(signatures) if s.key not in layers]
    if missing:
        document = layers_file(missing)
        with temporary_files():
            measured = measure(document, RUNTIME, threads, lambda _: report(1))
        known = {**measured, "layers": {**layers, **measured["layers"]}}
        _write(path, known)
    return table_of(known)


def entry_count(signatures: Iterable[Signature], threads: int) -> int:
    """The number of models that :func:`measured_table` would time."""
    layers = _read(_path(threads)).get("layers", {})
    missing = [s for s in dict.fromkeys(signatures) if s.key not in layers]
    return len(layers_file(missing)["entries"]) if missing else 0


def _path(threads: int) -> Path:
    made_on = f"{processor()} {RUNTIME} {version(RUNTIME)} {threads}"
    return cache_folder() / f"latency-{hashlib.sha256(made_on.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Json:
    """The cached document, or {} if the file is missing or damaged in any way: then the caller measures again."""
    try:
        document = read_json(path)
        table_of(document)
    except (OSError, ValueError, BudgetError):
        return {}
    return dict(document)


def _write(path: Path, document: Json) -> None:
    """Write the whole file or nothing.  A write error is not an error of the run."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Keep what another run has measured in the meantime.
        layers = {**_read(path).get("layers", {}), **document["layers"]}
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            json.dump({**document, "layers": layers}, file)
        os.replace(part, path)
    except OSError:
        return
    finally:
        # After a successful replace the part file is gone.
        if part is not None:
            with suppress(OSError):
                part.unlink()
