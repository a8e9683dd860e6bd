"""What a pruning run found out: one value that every report is made from."""

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

#: Samples of the user's, made-up ones, or such that the original answers alike: the last two tell little.
Seen = Literal["held out", "made up", "alike"]


@singledispatch
def page(value: object) -> str:
    """How a notebook shows ``value``: HTML.  :mod:`onnxprune.report.notebook` has the pages."""
    raise NotImplementedError(type(value).__name__)


@singledispatch
def summary(value: object) -> str:
    """``value`` in one line, for a Python prompt."""
    raise NotImplementedError(type(value).__name__)


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
    """How far the pruned model's outputs are from the original's, on samples that nothing was fitted to.

    ``metric``: of the task, such as "AP50 lost"; "values changed", "output error", or the user's own.
    ``low``, ``high``: a 95 % interval of the value, None where there is none.
    ``figures``: what users of the task know it by, such as ("AP50", 0.93).
    """

    metric: str
    value: float
    samples: int
    low: float | None = None
    high: float | None = None
    figures: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Shown:
    """A held-out sample with what both models say of it.  ``image``: a JPEG, the original's on the left."""

    caption: str
    image: bytes


@dataclass(frozen=True)
class GroupRow:
    """One group of channels: ``locked`` is the reason where it cannot be cut; ``macs_share`` of the model."""

    id: int
    name: str
    before: int
    after: int
    macs_share: float
    locked: str | None = None


@dataclass(frozen=True)
class LayerRow:
    """One layer of the drawing, or a node where branches meet (``macs_before`` 0).

    ``inputs``: positions of the rows that feed it.  ``before``, ``after``: output channels, 0 where it has none
    of its own.  ``macs_before``, ``macs_after``: shares of the original model's MACs.  ``locked``: why its output
    channels stay, None where they may leave.
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
    """``masked_max_rel_err``: cut without refit against the masked original, largest relative error.

    ``estimates``: nodes that take a statistic over fewer channels than before, for which that error need not be small.
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
    """One width of one group, as the allocator saw it: units kept, and the damage estimated for that cut."""

    kept: int
    damage: float


@dataclass(frozen=True)
class GroupCurve:
    """``name``: the group; ``points``: from whole to nearly gone."""

    name: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class SearchStep:
    """One candidate of the search: kept share of MACs and its drop on the holdout."""

    macs_ratio: float
    drop: float


@dataclass(frozen=True)
class Refitted:
    """A layer that was refitted: relative error of its output on held-out rows before and after."""

    node: str
    before: float
    after: float
    accepted: bool


@dataclass(frozen=True)
class CurveOfTuning:
    """A look at the held-out samples during tuning.

    ``seconds`` since it began, ``samples`` seen by then, copies included; ``loss``: mean over the steps since the last
    look, not a number at the first; ``held``: mean error of the outputs on the held-out samples.
    """

    seconds: float
    samples: int
    loss: float
    held: float


@dataclass(frozen=True)
class Stage:
    """A model on the way to the result: "original", "cut", "refitted", "tuned"; its drop on the held-out samples, and
    its accuracy on labelled ones, 0 … 1, ``None`` without labels."""

    name: str
    drop: Drop
    accuracy: float | None


@dataclass(frozen=True)
class Tuning:
    """What tuning did: mean held-out error of the outputs ``before`` and ``after`` (the unit is a channel's variance,
    or a divergence), on ``held`` samples that were only looked at; ``gained``: whether by more than chance.

    ``samples`` were trained on; ``weights``: how many tensors; ``stages``: how good the model was on the way.
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
    """What :func:`onnxprune.tune` returns; ``path``: where the model was written."""

    model: onnx.ModelProto
    tuning: Tuning
    path: Path | None = None


@dataclass(frozen=True)
class Report:
    """Everything that the terminal, JSON and HTML reports show.

    ``latency_ms``: medians of alternating runs, ``after`` by the paired ratio; ``latency_spread``: ± in ms, about
    90 %, of the original's median and of the ratio's (times the original's median).  ``seen``: what the
    drop was measured on; ``budgets``: what was asked for; ``rounding``: None where nobody
    knows.  ``scores``: by labels other than classes, by name.
    ``pictures``: held-out samples of detectors and segmenters.
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

    def _repr_html_(self) -> str:
        return page(self)


@dataclass(frozen=True, eq=False)
class Result:
    """What :func:`onnxprune.prune` returns; a notebook shows it as the report."""

    model: onnx.ModelProto
    plan: Plan
    report: Report
    path: Path | None = None

    def graph(self) -> gs.Graph:
        """The model as an onnx-graphsurgeon graph, to edit on; ``model`` stays as it is.

        Cost: one copy of the model.

        Raises:
            ModelError: where onnx-graphsurgeon cannot import the model.
        """
        return to_graph(self.model)

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return page(self)


@dataclass(frozen=True)
class Outlook:
    """Shares of the MACs and of the parameters that are left where every group keeps ``kept`` of its channels."""

    kept: float
    macs: float
    params: float


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` shows: the groups of a model, what is locked and where the MACs are.

    ``operators``: (type, share of the MACs), the largest first.
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

    def _repr_html_(self) -> str:
        return page(self)


@dataclass(frozen=True)
class OperatorTime:
    """One type of operator: milliseconds of all its nodes, in the first and in the second model."""

    operator: str
    milliseconds: Change


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` shows of two models; ``outputs`` is (name, largest relative L2 error).

    ``operators`` is empty where no profile was asked for.  ``seen``: the samples that outputs were compared on.
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

    def _repr_html_(self) -> str:
        return page(self)
