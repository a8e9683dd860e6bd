"""onnxprune itself as rows of ``bench_accuracy.py``: as it comes, and with one part changed at a time.

The parts that have no option are exchanged where the pipeline looks them up, so that everything else is the code
that users run.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from baselines.batch_statistics import channels_of_cut, reestimated, statistics
from baselines.workbench import Workbench
from bench_cell import Found, Method, Outcomes, best

import onnxprune
from onnxprune.budget.allocate import uniform
from onnxprune.budget.cost import Costing
from onnxprune.coupling.groups import Coupling
from onnxprune.errors import BudgetError
from onnxprune.linear.form import Layer
from onnxprune.options import AUTO
from onnxprune.pipeline.calibrate import calibrate
from onnxprune.pipeline.pricing import Pricing, price
from onnxprune.pipeline.ranking import rank
from onnxprune.plan import keep_vector
from onnxprune.refit.fit import Fit
from onnxprune.refit.targets import Target, target_of
from onnxprune.result import Result

Array = np.ndarray
Change = Callable[[], AbstractContextManager[object]]


def pruned(
    bench: Workbench,
    kept: float,
    select: str = AUTO,
    refit: str = "lstsq",
    effort: str = "default",
    exclude: tuple[str, ...] = (),
) -> Result:
    """The public function, at ``--round 1``; what does not depend on the budget is computed once per model."""
    options = bench.options

    def once(name: str, function: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: bench.once((name, select, effort, exclude), lambda: function(*arguments))

    stages: dict[str, Callable[..., object]] = {"calibrate": calibrate, "rank": rank, "price": price}
    with patch.multiple("onnxprune.workflows.prune", **{name: once(name, stage) for name, stage in stages.items()}):
        return onnxprune.prune(
            bench.path, str(bench.calibration), macs=kept, samples=options.samples, preprocess=options.preprocess,
            select=select, refit=refit, effort=effort, round_to=1, exclude=exclude, seed=options.seed,
        )  # fmt: skip


def own(select: str = AUTO, refit: str = "lstsq", effort: str = "default", change: Change = nullcontext) -> Method:
    """The package with these options, one of its parts exchanged by ``change``."""

    def method(bench: Workbench, kept: Sequence[float], python: str) -> Outcomes:
        for fraction in kept:
            with change():
                model = pruned(bench, fraction, select, refit, effort).model
            yield fraction, Found(model, bench.kept(model), "")

    return method


def own_statistics(bench: Workbench, kept: Sequence[float], python: str) -> Outcomes:
    """The package's result with the statistics of every Conv re-estimated, better or not."""
    coupling = bench.work.coupling
    wanted = statistics(bench, bench.work.loaded.proto)
    for fraction in kept:
        result = pruned(bench, fraction)
        keep = keep_vector(result.plan, {g.name: g.units for g in coupling.groups}, coupling.unit_count)
        model = reestimated(bench, result.model, channels_of_cut(bench, keep), wanted)
        yield fraction, Found(model, bench.kept(model), "")


def own_uniform(bench: Workbench, kept: Sequence[float], python: str) -> Outcomes:
    """The same share of every group, or of every group but residual streams: what the holdout prefers."""
    groups = bench.work.coupling.groups
    streams = tuple(glob.escape(groups[g].name) for g in sorted(bench.streams))
    for fraction in kept:
        tried = {}
        scopes: dict[tuple[str, ...], str] = {(): "all groups"}
        scopes.setdefault(streams, "without streams")
        for exclude, note in scopes.items():
            with uniform_budget(), suppress(BudgetError):
                tried[note] = pruned(bench, fraction, exclude=exclude).model
        yield fraction, best(bench, tried)


def uniform_budget() -> AbstractContextManager[object]:
    def within(choices: Pricing, cost: Costing, target: float, lateness: float = 1.0) -> Array:
        return uniform(cost, choices.curves, target)

    return patch("onnxprune.pipeline.search.trials.within", within)


def own_outputs() -> AbstractContextManager[object]:
    """Every layer is fitted to its own output, not to the residual sum that it feeds."""

    def target(coupling: Coupling, layer: Layer, channels: int) -> Target:
        found = target_of(coupling, layer, channels)
        if found.other is None:
            return found
        ones, zeros, everything = np.ones(channels), np.zeros(channels), (-np.inf, np.inf)
        own = {"value": layer.output, "until": layer.index, "other": None}
        return replace(found, **own, scale=ones, shift=zeros, window=everything)

    return patch("onnxprune.refit.job.target_of", target)


def per_layer() -> AbstractContextManager[object]:
    """Every layer keeps the least-squares solution on the original's own inputs, whatever reaches it."""

    def fit(train: object, test: object, base: Array, prior: Array, *rest: object) -> Fit:
        return Fit(prior, 1.0, 1.0, True)

    return patch("onnxprune.refit.one_layer.fit", fit)
