"""What every method of the benchmark is given: one model, its calibration images split in two, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx

from onnxprune import metrics
from onnxprune.budget.allocate import uniform
from onnxprune.budget.cost import Cost, macs
from onnxprune.budget.curve import Curve
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.open import open_dataset
from onnxprune.calibration.outputs import outputs_of
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.coupling.groups import Group
from onnxprune.coupling.open import couple
from onnxprune.engine.session import open_session
from onnxprune.graph.load import load
from onnxprune.graph.uses import Use
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.allocation import keep_of, within
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.pricing import Pricing, full_widths, price
from onnxprune.pipeline.setup import Context, set_up
from onnxprune.progress import Silent
from onnxprune.selection.base import Evidence, Ranking, evidence
from onnxprune.surgery.cut import cut
from onnxprune.target import Budget

T = TypeVar("T")
Array = np.ndarray
BATCH = 32


@dataclass(frozen=True, eq=False)
class Workbench:
    """One model and its data.  ``work.fit`` is what methods learn from, ``work.holdout`` what they choose by;
    ``memory`` holds what serves several cells."""

    path: Path
    calibration: Path
    preprocess: Preprocess
    options: Options
    work: Context
    test: Dataset
    memory: dict[tuple[object, ...], object] = field(default_factory=dict)

    @cached_property
    def cost(self) -> Cost:
        return macs(self.work.coupling)

    @cached_property
    def full(self) -> float:
        """MACs of the original."""
        return self.cost(full_widths(self.work.coupling))

    @cached_property
    def grams(self) -> Mapping[int, SecondMoments]:
        """Second moments of every layer's input in the original, by node index."""
        return calibrate(self.work, self.options, Silent())

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        work = self.work
        return tuple(evidence(work.coupling, g, work.layers, self.grams) for g in work.coupling.groups)

    @cached_property
    def reference(self) -> list[Array]:
        return self.outputs(self.work.loaded.proto, self.work.holdout)

    @cached_property
    def streams(self) -> frozenset[int]:
        """Groups that more than one full (not depthwise) layer writes to: residual streams."""
        found = set()
        for group in self.work.coupling.groups:
            places = set(group.axes)
            writers = [
                layer
                for layer in self.work.layers
                if layer.groups() == 1 and (layer.output, -1 if layer.kind == "matmul" else 1) in _signed(self, places)
            ]
            if len(writers) > 1:
                found.add(group.id)
        return frozenset(found)

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What ``make`` gives, computed the first time only."""
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]  # type: ignore[return-value]

    def outputs(self, model: onnx.ModelProto, data: Dataset) -> list[Array]:
        names = list(self.work.coupling.graph.outputs)
        return outputs_of(open_session(model, self.work.engine), data, names, data.batch_limit or BATCH)

    def output_loss(self, model: onnx.ModelProto) -> float:
        """KL(original ‖ model) on the holdout: what candidates of one method are chosen by."""
        return metrics.plain_loss(self.reference, self.outputs(model, self.work.holdout))

    def top1(self, model: onnx.ModelProto) -> float:
        """Top-1 on the labelled test data, which no method sees."""
        labels = self.test.labels
        assert labels is not None
        found = metrics.accuracy(self.outputs(model, self.test), labels)
        assert found is not None
        return found.top1

    def kept(self, model: onnx.ModelProto, without: str = "") -> float:
        """MACs of any model as a share of the original's, nodes named ``without``… left out."""
        sample = {name: array.shape for name, array in self.work.holdout.fetch([0]).items()}
        coupling = couple(model, {}, sample)
        cost = macs(coupling)
        terms = cost.terms(full_widths(coupling))
        names = [coupling.graph.nodes[index].label for index in cost.nodes]
        counted = [not (without and name.startswith(without)) for name in names]
        return float(terms[counted].sum() + cost.fixed) / self.full

    # -- budgets --------------------------------------------------------------------------------------------

    def priced(self, rankings: tuple[Ranking, ...]) -> Pricing:
        """The package's error curves, measured for these orders."""
        return price(self.work, self.options, {self.options.select: rankings}, self.grams, Silent())[0]

    def allocated(self, pricing: Pricing, kept: float) -> Array:
        counts = within(pricing, self.cost, kept * self.full * (1 + 1e-12))
        return keep_of(self.work.coupling, pricing.rankings, counts)

    def uniform(self, rankings: tuple[Ranking, ...], kept: float, still: frozenset[int]) -> Array | None:
        """The same share of every group but those in ``still``; ``None`` where that cannot reach ``kept``."""
        curves = [flat(group, group.id in still) for group in self.work.coupling.groups]
        target = kept * self.full * (1 + 1e-12)
        if self.cost(np.asarray([c.widths[0] for c in curves], dtype=np.float64)) > target:
            return None
        return keep_of(self.work.coupling, rankings, uniform(self.cost, curves, target))

    def cut(self, keep: Array, weights: Mapping[Use, Array]) -> onnx.ModelProto:
        return cut(self.work.coupling, keep, weights)


def _signed(bench: Workbench, places: set[tuple[object, int]]) -> set[tuple[object, int]]:
    """``places`` with the last axis of tensors also under the name -1."""
    shapes = bench.work.coupling.facts.shapes
    last = {(key, -1) for key, axis in places if isinstance(key, str) and axis == len(shapes[key]) - 1}
    return places | last


def flat(group: Group, still: bool) -> Curve:
    """A curve without output loss, for budgets that ignore it."""
    size = len(group)
    return Curve(np.zeros(size + 1), np.asarray([size]) if still else np.arange(1, size + 1))


def open_workbench(
    model: Path, calibration: Path, test: Path, preprocess: Preprocess, samples: int, seed: int
) -> Workbench:
    """Read the model, couple it, split the samples; every channel count is allowed (``--round 1``)."""
    options = Options(
        budgets=(Budget("macs", 0.5),), samples=samples, preprocess=preprocess, round_to=1, seed=seed, select="qr"
    )
    work = set_up(load(model), str(calibration), options)
    labelled = open_dataset(str(test), work.fit.specs, preprocess, None, seed)
    return Workbench(model, calibration, preprocess, options, work, labelled)
