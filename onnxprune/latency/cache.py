"""Measured tables, kept between runs: one file per machine, runtime and number of threads."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from onnxprune.latency.device import TABLE, Json, measure, processor, version
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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) and found.get(TABLE) == 1 else {}


def _write(path: Path, document: Json) -> None:
    """Whole or not at all; a cache that cannot be written is no cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as part:
            json.dump(document, part)
        os.replace(part.name, path)
    except OSError:
        return
