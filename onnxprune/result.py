"""The results of a run, as values.  Every report shows such a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx

from onnxprune.plan import Plan, Rounding
from onnxprune.surgeon import to_graph
from onnxprune.target import Budget

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

#: What the drop was measured on: held-out samples of the user, made-up samples, or samples that the original answers
#: alike.  The last two make the drop nearly meaningless.
Seen = Literal["held out", "made up", "alike"]


@singledispatch
def page(value: object) -> str | None:
    """``value`` as HTML for a notebook, which :mod:`onnxprune.report.notebook` registers; else None: the notebook shows
    the text."""
    return None


@singledispatch
def summary(value: object) -> str:
    """``value`` in one line, for a Python prompt, which :mod:`onnxprune.report.notebook` registers; else its type."""
    return object.__repr__(value)


@dataclass(frozen=True)
class Change:
    """A quantity of the original and of the pruned model."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True)
class Drop:
    """How far the pruned model's outputs are from the original's, on held-out samples.

    ``metric`` names the task's metric, such as "AP50 lost", or "values changed", "output error", or the user's own.
    ``low`` and ``high`` are a 95 % interval of the value, or None.
    ``figures`` are the usual figures of the task, such as ("AP50", 0.93).
    """

    metric: str
    value: float
    samples: int
    low: float | None = None
    high: float | None = None
    figures: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Shown:
    """A held-out sample with the results of both models.  ``image`` is a JPEG with the original on the left."""

    caption: str
    image: bytes


@dataclass(frozen=True)
class GroupRow:
    """One group of channels, with its share of the MACs.  ``locked`` is the reason if it cannot be cut, else None."""

    id: int
    name: str
    before: int
    after: int
    macs_share: float
    locked: str | None = None


@dataclass(frozen=True)
class LayerRow:
    """One layer of the drawing, or a node where branches meet (``macs_before`` 0).

    ``inputs`` are the positions of the rows that feed it.  ``before`` and ``after`` are its output channels, 0 if it has
    none of its own.  ``macs_before`` and ``macs_after`` are shares of the original model's MACs.  ``locked`` is the
    reason why its output channels stay, or None if they are prunable.
    """

    name: str
    op: str
    inputs: tuple[int, ...]
    before: int
    after: int
    macs_before: float
    macs_after: float
    locked: str | None = None


@dataclass(frozen=True)
class Verification:
    """The checks of a pruned model.

    ``masked_max_rel_err`` is the largest relative error between the cut model (without refit) and the masked original.
    ``estimates`` are nodes that now take a statistic over fewer channels; they may make this error large.
    """

    checker: bool
    onnxruntime: bool
    signature: bool
    masked_max_rel_err: float
    complaints: tuple[str, ...] = ()
    estimates: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.complaints


@dataclass(frozen=True)
class CurvePoint:
    """One width of one group, as the allocator sees it: the units kept and the estimated output loss."""

    kept: int
    damage: float


@dataclass(frozen=True)
class GroupCurve:
    """The curve of the group ``name``; ``points`` go from the whole group to the narrowest width."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class SearchStep:
    """One candidate of the search: its share of the MACs and its drop on the holdout."""

    macs_ratio: float
    drop: float


@dataclass(frozen=True)
class Refitted:
    """A refitted layer: the relative error of its output on held-out rows, before and after."""

    node: str
    before: float
    after: float
    accepted: bool


@dataclass(frozen=True)
class CurveOfTuning:
    """One evaluation on the held-out samples during tuning.

    ``seconds`` counts from the start.  ``samples`` counts the samples trained on so far, with repetitions.  ``loss`` is
    the mean over the steps since the last evaluation, NaN at the first.  ``held`` is the mean error of the outputs on
    the held-out samples, ``same_top1`` the share of them (0 … 1) with the same class from both models, None if the outputs are
    not class scores.
    """

    seconds: float
    samples: int
    loss: float
    held: float
    same_top1: float | None = None


@dataclass(frozen=True)
class Stage:
    """A model on the way to the result: "original", "cut", "refitted" or "tuned".

    ``drop`` is on the held-out samples.  ``accuracy`` is on labelled samples, 0 … 1, or None without labels.
    """

    name: str
    drop: Drop
    accuracy: float | None


@dataclass(frozen=True)
class Tuning:
    """What tuning did.

    ``before`` and ``after`` are the mean errors of the outputs on ``held`` held-out samples, in units of a channel's
    variance, or as a divergence.  They are equal if the weights stay.  ``gained`` says whether the difference is more
    than chance.  ``samples`` counts the training samples, ``weights`` the trained tensors.  ``stages`` shows the quality
    of the model on the way.
    """

    before: float
    after: float
    gained: bool
    curve: tuple[CurveOfTuning, ...]
    seconds: float
    samples: int
    held: int
    weights: int
    device: str
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of :func:`onnxprune.tune`: the tuned ``model``, and what ``tuning`` did.

    ``path`` is the written file; None from Python, which writes nothing.
    """

    model: onnx.ModelProto
    tuning: Tuning
    path: Path | None = None


@dataclass(frozen=True)
class Report:
    """Everything that the terminal, JSON and HTML reports show.

    Each :class:`Change` holds the value before and after pruning: ``macs``, ``params``, ``bytes``, ``latency_ms`` and
    ``accuracy`` (0 … 1, None without labels).  ``latency_ms`` holds medians of runs in turns; ``after`` is the median
    ratio times ``before``.  ``latency_spread`` is the error in ms, ± at about 90 %: of the original's median, and of the
    ratio times that median.  ``seen`` says what the drop was measured on: held-out or made-up samples.  ``seconds``
    maps stages and "total" to wall-clock time.  ``budgets`` are the user's.  ``rounding`` is None if unknown.  ``scores``
    maps names to scores from labels other than classes, such as AP50.  ``pictures`` show held-out samples of
    detectors and segmenters.
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
    seen: Seen = "held out"
    budgets: tuple[Budget, ...] = ()
    tuning: Tuning | None = None
    scores: tuple[tuple[str, Change], ...] = ()
    pictures: tuple[Shown, ...] = ()
    rounding: Rounding | None = None

    def _repr_html_(self) -> str | None:
        return page(self)


@dataclass(frozen=True, eq=False)
class Result:
    """The result of :func:`onnxprune.prune`; a notebook shows its report.

    ``model``: the pruned and refitted model.  ``plan``: the channels kept per group, for :func:`onnxprune.apply`.
    ``report``: sizes, latency, drop and notes.  ``path``: the written file; None from Python, which writes nothing.
    """

    model: onnx.ModelProto
    plan: Plan
    report: Report
    path: Path | None = None

    def graph(self) -> gs.Graph:
        """The model as an onnx-graphsurgeon graph for further edits; ``model`` does not change.

        Cost: one copy of the model.

        Raises:
            ModelError: onnx-graphsurgeon cannot import the model.
        """
        return to_graph(self.model)

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str | None:
        return page(self)


@dataclass(frozen=True)
class Outlook:
    """Shares of the MACs and parameters that remain if every group keeps the share ``kept`` of its channels."""

    kept: float
    macs: float
    params: float


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` shows: groups, locks and MACs of a model.

    ``groups``: every group, its channels, its share of the MACs, and why it is locked, if so.
    ``prunable_macs_share``: share of the MACs (0 … 1) in prunable layers.  ``operators``: (type, share of the MACs), the
    largest first.  ``bytes``: the size of the file.
    """

    model: str
    macs: int
    params: int
    bytes: int
    nodes: int
    groups: tuple[GroupRow, ...]
    prunable_macs_share: float
    choices: tuple[str, ...]
    inputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    operators: tuple[tuple[str, float], ...] = ()
    outlook: tuple[Outlook, ...] = ()

    def _repr_html_(self) -> str | None:
        return page(self)


@dataclass(frozen=True)
class OperatorTime:
    """Milliseconds of all nodes of one operator type, in the first and the second model."""

    operator: str
    milliseconds: Change


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` shows of two models, ``a`` and ``b``.  Each :class:`Change` goes from ``a`` to ``b``.

    ``outputs``: (name, relative L2 error) of each floating-point output.  ``operators``: time by operator, in ms;
    empty without a profile.  ``latency_ms`` and ``latency_spread``: as in :class:`Report`.  ``seen`` says what the drop
    was measured on.
    """

    a: str
    b: str
    macs: Change
    params: Change
    bytes: Change
    latency_ms: Change | None
    latency_spread: tuple[float, float] | None
    drop: Drop | None
    accuracy: Change | None
    outputs: tuple[tuple[str, float], ...]
    operators: tuple[OperatorTime, ...] = ()
    seen: Seen = "held out"
    scores: tuple[tuple[str, Change], ...] = ()

    def _repr_html_(self) -> str | None:
        return page(self)
