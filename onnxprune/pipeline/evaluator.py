"""Evaluate a candidate: its drop on the holdout, by its outputs or by the user's own metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine, open_session
from onnxprune.errors import DataError
from onnxprune.measure.loss import output_loss
from onnxprune.options import Options
from onnxprune.pipeline.own_metric import OwnMetric, metric_from
from onnxprune.pipeline.setup import Context
from onnxprune.result import Drop
from onnxprune.target import DEFAULT_BUDGET, Budget
from onnxprune.tasks.answers import Answers, answers_of
from onnxprune.tasks.interval import RESAMPLES, standard_error
from onnxprune.tasks.yardstick import Yardstick, outputs, yardstick

Array = np.ndarray
#: Maximum bytes of a model's answers to keep for its next measurement; larger ones are computed again.
MAX_KEPT = 128 << 20


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Knows the original's outputs and score, so that each candidate costs one pass, whatever is measured.

    ``reference``: the original's ``outputs`` on the holdout, samples on axis 0.  ``kind``: see :func:`kind_of`.
    ``score``: the original's score by the user's ``metric``, 0 without a metric.  ``yardstick``: the measure of the drop
    without a metric.
    """

    holdout: Dataset
    engine: Engine
    outputs: tuple[str, ...]
    reference: tuple[Array, ...]
    kind: str
    metric: OwnMetric | None
    score: float
    yardstick: Yardstick
    _latest: _Latest = field(default_factory=lambda: _Latest())
    _cautious: dict[Drop, float] = field(default_factory=dict)

    @property
    def default_budget(self) -> Budget:
        """The budget if the user gives none."""
        if self.metric is not None:
            return DEFAULT_BUDGET
        return Budget("max_drop", self.yardstick.allowed)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the original's outputs: see :func:`onnxprune.metrics.suspicious`."""
        return metrics.suspicious(self.outputs, self.reference, self.holdout.count, self.kind)

    @property
    def alike(self) -> bool:
        """Whether the original gives the same answer for every sample, so that a drop means nothing."""
        return self.metric is None and len(self.warnings) == len(self.outputs)

    def drop(self, model: onnx.ModelProto) -> Drop:
        """How much worse ``model`` is than the original, without an interval.

        Raises:
            DataError: if the user's metric fails.
        """
        return self._drop(model, 0)

    def with_interval(self, drop: Drop, model: onnx.ModelProto) -> Drop:
        """The ``drop`` of ``model`` with its interval; the user's metric has none.

        Cost: a bootstrap of seconds at most, and a pass over the holdout unless ``model`` was the last one measured.
        """
        return drop if self.metric is not None else self._drop(model, RESAMPLES)

    def cautious(self, drop: Drop, model: onnx.ModelProto) -> float:
        """The ``drop`` of ``model`` that a search should reckon with: see :data:`onnxprune.tasks.yardstick.DOUBT`.

        Cost: that of :meth:`with_interval` if the task needs it, once per drop.
        """
        # No change on any sample is all that few samples can show.
        if self.metric is not None or not self.yardstick.doubt or drop.value == 0:
            return drop.value
        if drop not in self._cautious:
            known = self.with_interval(drop, model)
            self._cautious[drop] = drop.value + self.yardstick.doubt * standard_error(known.low, known.high)
        return self._cautious[drop]

    def _drop(self, model: onnx.ModelProto, resamples: int) -> Drop:
        if self.metric is not None:
            return Drop(metrics.OWN, self.score - self.metric.of(model, self.engine), self.holdout.count)
        return self.yardstick.drop(self._answers(model), resamples)

    def output_loss(self, model: onnx.ModelProto) -> float:
        """The output loss of ``model`` (:mod:`onnxprune.measure.loss`): finer than the drop, for comparing candidates.

        Infinite instead of NaN: a cut that breaks the model is worse than any other.
        """
        loss = self.yardstick.loss.of(outputs(self._answers(model)))
        return math.inf if math.isnan(loss) else loss

    def forget(self) -> None:
        """Release the last model that was measured."""
        self._latest.forget()

    def _answers(self, model: onnx.ModelProto) -> Answers:
        """The outputs of ``model`` on the holdout.  Cost: one pass, unless it was the last model measured."""
        known = self._latest.answers
        if known is None or self._latest.model is not model:
            self._latest.forget()
            known = answers_of(open_session(model, self.engine), self.holdout, self.outputs)
            self._latest.keep(model, known)
        return known


@dataclass(eq=False)
class _Latest:
    """The answers of the last model that was run, if they are small."""

    model: onnx.ModelProto | None = None
    answers: Answers | None = None

    def keep(self, model: onnx.ModelProto, answers: Answers) -> None:
        if sum(part.nbytes for batch in answers.batches for part in batch) <= MAX_KEPT:
            self.model, self.answers = model, answers

    def forget(self) -> None:
        self.model = self.answers = None


def evaluator_for(context: Context, options: Options) -> Evaluator:
    """An evaluator for ``context``, by the user's metric or by the task.

    Cost: one pass of the original over the holdout, and one call of the metric.

    Raises:
        DataError: if the metric does not exist or fails; if there is none and the original returns NaN; or if the stated
            task does not fit the outputs.
        OptionError: if the layout is invalid.
    """
    evaluate = options.evaluate
    model = context.loaded.proto
    names = tuple(context.coupling.graph.outputs)
    metric = metric_from(evaluate)
    score = metric.of_original(model, context.engine) if metric is not None else 0.0
    session = open_session(model, context.engine)
    answers = answers_of(session, context.holdout, names)
    reference = outputs(answers)
    for name, output in zip(names, reference, strict=True):
        if metric is None and output.dtype.kind == "f" and np.isnan(output).any():
            raise DataError(
                f"the original model returns NaN at '{name}' on held-out samples, so no cut can be measured: give --data "
                "that suits the model, without such samples"
            )
    kind, loss = kind_of(context.coupling, reference), output_loss(context.coupling, names, reference)
    if metric is None:
        measured = yardstick(answers, options.task, options.layout, may_hold_classes(context.coupling), loss)
    else:
        measured = Yardstick(reference, loss)
    return Evaluator(context.holdout, context.engine, names, measured.reference, kind, metric, score, measured)


def kind_of(coupling: Coupling, outputs: Sequence[Array]) -> str:
    """The name of the measure for a model's ``outputs``.  Rows that look like class scores may be something else."""
    kind = metrics.metric_of(outputs)
    return metrics.RELATIVE if kind == metrics.CHANGED and not may_hold_classes(coupling) else kind


def may_hold_classes(coupling: Coupling) -> bool:
    """Whether the rows of a model's outputs may be class scores.

    The length of such rows does not depend on an input's size, and differs from the length of the inputs.  Other rows
    are waveforms, or restore the input.
    """
    first, other = coupling.facts.shapes, coupling.facts.alternative
    fed = {_row(first[name]) for name in coupling.graph.inputs if name in first}
    rows = [(_row(first[name]), _row(other.get(name, first[name]))) for name in coupling.graph.outputs if name in first]
    return not any(row != changed or row in fed for row, changed in rows)


def _row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sample, without axes of one position."""
    return tuple(size for size in shape[1:] if size > 1)
