"""Measured tables, kept between runs: one file per machine, runtime and number of threads."""

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

RUNTIME = "onnxruntime"


def cache_folder() -> Path:
    """Where this platform wants caches: ``$XDG_CACHE_HOME`` or ``~/.cache``, ``~/Library/Caches``, ``%LOCALAPPDATA%``."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxprune"


def measured_table(signatures: Iterable[Signature], threads: int, told: Callable[[int], None]) -> Table:
    """The table of this machine's onnxruntime (CPU), with at least ``signatures``.

    What the cache has is not measured again; where the cache cannot be read or written, everything is, each time.
    ``told`` hears how many more models are timed.  Cost: about 0.15 s per layer and input width that is new.
    """
    path = _path(threads)
    known = _read(path)
    layers = known.get("layers", {})
    missing = [s for s in dict.fromkeys(signatures) if s.key not in layers]
    if missing:
        document = layers_file(missing)
        found = measure(document, RUNTIME, threads, lambda _: told(1))
        known = {**found, "layers": {**layers, **found["layers"]}}
        _write(path, known)
    return table_of(known)


def entry_count(signatures: Iterable[Signature], threads: int) -> int:
    """How many models :func:`measured_table` would time."""
    layers = _read(_path(threads)).get("layers", {})
    missing = [s for s in dict.fromkeys(signatures) if s.key not in layers]
    return len(layers_file(missing)["entries"]) if missing else 0


def _path(threads: int) -> Path:
    made_on = f"{processor()} {RUNTIME} {version(RUNTIME)} {threads}"
    return cache_folder() / f"latency-{hashlib.sha256(made_on.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Json:
    """What is kept; nothing where the file is damaged in any way: it is measured again, and written anew."""
    try:
        found = read_json(path)
        table_of(found)
    except (OSError, ValueError, BudgetError):
        return {}
    return dict(found)


def _write(path: Path, document: Json) -> None:
    """Whole or not at all; a cache that cannot be written is no cache."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What another run has measured meanwhile stays.
        layers = {**_read(path).get("layers", {}), **document["layers"]}
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            json.dump({**document, "layers": layers}, file)
        os.replace(part, path)
    except OSError:
        return
    finally:
        # Once in its place it has this name no more.
        if part is not None:
            with suppress(OSError):
                part.unlink()
