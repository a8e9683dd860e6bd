"""The report of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxprune.plan import Rounding
from onnxprune.result.change import Change
from onnxprune.result.display import page
from onnxprune.result.drop import Drop, DropSource
from onnxprune.result.rows import GroupRow, LayerRow
from onnxprune.result.search import GroupCurve, Refitted, SearchStep
from onnxprune.result.tuning import Tuning
from onnxprune.result.verification import Verification
from onnxprune.target import Budget


@dataclass(frozen=True)
class Shown:
    """A held-out sample with the results of both models.  ``image`` is a JPEG with the original on the left."""

    caption: str
    image: bytes


@dataclass(frozen=True)
class Report:
    """Everything that the terminal, JSON and HTML reports show.

    Each :class:`Change` holds the value before and after pruning: ``macs``, ``params``, ``bytes``, ``latency_ms`` and
    ``accuracy`` (0 … 1, None without labels).  ``latency_ms``: the runs of both models alternate; ``before`` is the original's
    median, ``after`` is the median ratio times ``before``.  ``latency_spread`` holds ± ms of these two, at about
    90 %.  ``drop_source`` says what the drop was measured on: held-out or made-up samples.  ``seconds`` maps stages and "total"
    to wall-clock time.  ``budgets`` are the user's.  ``rounding`` is None if unknown.  ``scores`` holds names and scores
    from labels other than classes, such as AP50.  ``pictures`` show held-out samples of detectors and segmenters.
    """

    model: str
    output: str | None
    macs: Change
    params: Change
    bytes: Change
    latency_ms: Change | None
    latency_spread: tuple[float, float] | None
    drop: Drop | None
    accuracy: Change | None
    groups: tuple[GroupRow, ...]
    choices: tuple[str, ...]
    verify: Verification
    seconds: dict[str, float]
    peak_rss_bytes: int
    notes: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    curves: tuple[GroupCurve, ...] = ()
    search: tuple[SearchStep, ...] = ()
    refits: tuple[Refitted, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    drop_source: DropSource = "held out"
    budgets: tuple[Budget, ...] = ()
    tuning: Tuning | None = None
    scores: tuple[tuple[str, Change], ...] = ()
    pictures: tuple[Shown, ...] = ()
    rounding: Rounding | None = None

    def _repr_html_(self) -> str | None:
        return page(self)
