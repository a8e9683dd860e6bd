"""Tune a file against its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnxprune.graph.load import load
from onnxprune.graph.save import check_writable, save
from onnxprune.options import Options
from onnxprune.pipeline.tuned import tune_pair
from onnxprune.progress import Progress
from onnxprune.result import Tuned


def tune_file(
    path: Path, teacher: Path, output: Path | None, data: object, options: Options, progress: Progress
) -> Tuned:
    """Tune the file ``path`` and write the result to ``output``, whole or not at all; ``None``: nowhere."""
    if output is not None:
        check_writable(output, path)
    loaded = load(path)
    tuned = tune_pair(loaded, load(teacher), data, options, progress)
    if output is not None:
        save(tuned.model, output, loaded.external)
    return replace(tuned, path=output)
