"""Everything that a user may choose, in one value; the command line and the Python API share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.budget.target import Budget

if TYPE_CHECKING:
    # Only for the annotation: importing it loads onnxruntime, which `--help` must not wait for.
    from onnxprune.calibration.preprocess import Preprocess

SELECTORS = ("qr", "magnitude", "random")
REFITS = ("lstsq", "none")
RULES = ("exact", "approximate")
EFFORT_NAMES = ("fast", "default", "best")


@dataclass(frozen=True)
class Options:
    """The choices of a run.

    ``samples``: how many calibration samples are used.  ``preprocess``: None for the usual one of the
    model's input.  ``select`` and ``refit``: one of :data:`SELECTORS` and :data:`REFITS`.  ``round_to``:
    channel counts become multiples of it, None for what runs fastest here (or by ``latency_table``, a file of
    times measured elsewhere).  ``exclude`` and ``only``: globs
    over nodes, tensors and groups.  ``evaluate``: the user's metric, ``FILE.py:FUNCTION`` or a callable
    ``f(session_runner) -> float``, higher is better.  ``test``: labelled data, for the report only.
    ``threads``: 0 for all cores.  ``memory``: bytes, None for what the machine has.  ``shapes``: input name
    to shape, for dynamic dims.  ``rules``: one of :data:`RULES`; by the approximate ones the width of
    normalizations may be cut, too, whose mean and variance are then those of the channels that stay.
    ``effort``: one of :data:`EFFORT_NAMES`; see :mod:`onnxprune.effort`.
    """

    budget: Budget = field(default_factory=lambda: Budget("max_drop", 0.01))
    samples: int = 256
    preprocess: Preprocess | None = None
    select: str = "qr"
    refit: str = "lstsq"
    round_to: int | None = None
    latency_table: Path | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    evaluate: object | None = None
    test: object | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0
    memory: int | None = None
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rules: str = "exact"
    effort: str = "default"
