"""The search for a largest drop, with refits of known output loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from graphs import Sketch
from workbench import OPTIONS, Bench, bench, correlated

import onnxprune
from onnxprune.budget.cost import macs, sizes
from onnxprune.budget.curve import Curve
from onnxprune.budget.rounding import Blocks
from onnxprune.budget.sensitivity import Survey
from onnxprune.errors import BudgetError
from onnxprune.pipeline.allocation import OVERSHOT, Allocation, lossless, past_lossless, within
from onnxprune.pipeline.candidate import Candidate, Conditions
from onnxprune.pipeline.pricing import Pricing, price
from onnxprune.pipeline.search import trials
from onnxprune.pipeline.search.find import SearchResult, find
from onnxprune.progress import Progress, Silent
from onnxprune.result import Drop
from onnxprune.target import Budget

ALLOWED, STEEP = 0.01, 12.0


@pytest.fixture(scope="module")
def on() -> Bench:
    sketch = Sketch()
    x = sketch.input("x", ["n", 24])
    for into, out in ((24, 96), (96, 80), (80, 12)):
        x = sketch.op("MatMul", x, sketch.weight(into, out))
        x = sketch.op("Relu", x) if out != 12 else x
    sketch.output(x, ["n", 12])
    return bench(sketch.model(), correlated((96, 24), rank=5))


@pytest.fixture(scope="module")
def pricing(on: Bench) -> Pricing:
    return price(on.work, replace(OPTIONS, round_to=1), {"qr": on.rankings}, on.grams, Silent())[0]


@dataclass(frozen=True)
class Known:
    """Stands for models, which are their output losses, and for their evaluator.

    At ``bound`` of the MACs a full refit loses ALLOWED; a trial loses it at ``bound`` + ``gap`` already.  A search should
    reckon with ``doubt`` times the drop.
    """

    on: Bench
    bound: float
    gap: float
    doubt: float = 1.0

    def cautious(self, drop: Drop, model: float) -> float:
        return drop.value * self.doubt

    def output_loss(self, model: float) -> float:
        return model

    def attempt(self, conditions: Conditions, allocation: Allocation, progress: Progress) -> Candidate:
        cost, counts = macs(self.on.coupling), allocation.counts
        share = cost(counts) / cost(sizes(self.on.coupling))
        bound = self.bound + (self.gap if conditions.options.effort == "fast" else 0.0)
        done = 0.0 if share > 0.999 else ALLOWED * float(np.exp(STEEP * (bound - share)))
        keep = allocation.keep(self.on.coupling)
        return Candidate(counts, keep, done, Drop("loss", done, 10))  # type: ignore[arg-type]


def searched(on: Bench, pricing: Pricing, known: Known, allowed: float, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    for name in ("attempt", "trial"):
        monkeypatch.setattr(trials, name, known.attempt)
    options = replace(OPTIONS, budgets=(Budget("max_drop", allowed),))
    return find(on.work, [pricing], known, options, Silent())  # type: ignore[arg-type]


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.15, 0.3])
@pytest.mark.parametrize("bound", [0.2, 0.45, 0.65])
def test_the_search_ends_near_the_smallest_model_that_a_full_refit_keeps_within_the_drop(
    on: Bench, pricing: Pricing, bound: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searched(on, pricing, Known(on, bound, gap), ALLOWED, monkeypatch)
    assert found.candidate.drop.value <= ALLOWED
    kept = macs(on.coupling)(found.candidate.counts) / macs(on.coupling)(sizes(on.coupling))
    assert bound <= kept <= bound + max(0.06, gap / 2)
    ratios = [step.macs_ratio for step in found.steps]
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize("doubt", [1.5, 3.0])
def test_the_search_stops_earlier_where_the_drop_is_in_doubt(
    on: Bench, pricing: Pricing, doubt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searched(on, pricing, Known(on, 0.45, 0.0, doubt), ALLOWED, monkeypatch)
    kept = macs(on.coupling)(found.candidate.counts) / macs(on.coupling)(sizes(on.coupling))
    sure = 0.45 + np.log(doubt) / STEEP
    assert sure <= kept <= sure + 0.06
    with pytest.raises(BudgetError, match="too few to be sure of it"):
        searched(on, pricing, Known(on, 0.45, 0.0, 1e9), ALLOWED, monkeypatch)


def test_dead_channels_go_with_what_else_must_for_fast_widths_as_far_as_the_drop_allows(
    on: Bench, pricing: Pricing, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = tuple(
        Curve(np.where(np.arange(len(c.loss)) < len(c.loss) - 4, least, 0.0), c.widths)
        for c, least in zip(pricing.curves, (2e-3, 1e-3), strict=True)
    )
    by_eight = tuple(Curve(c.loss, c.widths[c.widths % 8 == 0]) for c in fine)
    # Nothing may be measured again: the curves are made up.
    dying = replace(pricing, tiers=(by_eight, by_eight, fine), survey=Survey((), (), 0), losses=())
    whole = [int(n) for n in sizes(on.coupling)]
    free = lossless(dying).tolist()
    assert free == [n - 3 for n in whole]
    past = [counts.tolist() for counts in past_lossless(dying)]
    assert past[0] == [n - 8 for n in whole] and len(past) == 2
    assert sorted(a - b for a, b in zip(free, past[1], strict=True)) == [0, 5]

    cost, full = macs(on.coupling), macs(on.coupling)(sizes(on.coupling))
    between = (cost(np.asarray(past[0])) + cost(np.asarray(past[1]))) / 2 / full
    found = searched(on, dying, Known(on, between, 0.0), ALLOWED, monkeypatch)
    assert (found.candidate.counts <= past[1]).all() and (found.candidate.counts > past[0]).any()


def test_a_drop_that_no_cut_keeps_is_refused_with_the_smallest_seen(
    on: Bench, pricing: Pricing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        BudgetError, match=r"no cut stays within a drop of 1e-09 \(loss\); the smallest drop was .*, at 98.1% of"
    ):
        searched(on, pricing, Known(on, 0.5, 0.1), 1e-9, monkeypatch)


def gated(width: int) -> onnx.ModelProto:
    """A gated linear unit between two 1-D convolutions: one group of ``width`` channels."""
    sketch = Sketch()
    x = sketch.op("Conv", sketch.input("x", [1, 24, 20]), sketch.weight(2 * width, 24, 3), attrs={"pads": [1, 1]})
    u, v = sketch.split("Split", x, sketch.array([width, width]), outputs=2, attrs={"axis": 1})
    y = sketch.op("Mul", u, sketch.op("Sigmoid", v))
    y = sketch.op("Conv", y, sketch.weight(12, width, 3), attrs={"pads": [1, 1]})
    sketch.output(y, [1, 12, 20])
    return sketch.model()


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("width", [6, 12, 20, 24, 48])
def test_rounding_does_not_go_far_below_what_was_asked(
    block: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the counts that run fast leave a wide gap, the finest take their place."""
    monkeypatch.setattr("onnxprune.latency.source.machine_blocks", lambda: Blocks(block, 4))
    options = replace(OPTIONS, round_to=None)
    on = bench(gated(width), correlated((16, 24, 20), rank=3)[:, None], options)
    (found,) = price(on.work, options, {"qr": on.rankings}, on.grams, Silent())
    cost = macs(on.coupling)
    whole = cost(sizes(on.coupling))
    for asked in (0.9, 0.6, 0.4, 0.25):
        ratio = cost(within(found, cost, asked * whole)) / whole
        # Exactly, the finest counts meet the target from below by less than one channel.
        finest = np.floor(asked * width) / width
        assert OVERSHOT * asked <= ratio <= asked or ratio == pytest.approx(finest)


@pytest.mark.parametrize("width", [7, 12, 48])
def test_a_multiple_that_could_cut_nothing_is_not_advised(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.latency.source.machine_blocks", lambda: Blocks(16, 4))
    notes = onnxprune.prune(gated(width), macs=0.95, samples=4, effort="fast").report.notes
    advised = [int(note.split("--round ")[1].split()[0]) for note in notes if "--round" in note]
    assert all(multiple < width for multiple in advised)


def test_widths_that_leave_nothing_to_cut_are_the_reason_that_is_given() -> None:
    with pytest.raises(BudgetError, match=r"nothing may be cut: .*; options that limit the widths: --at-least \*=2000"):
        onnxprune.prune(gated(12), at_least={"*": 2000}, samples=8, effort="fast", threads=1)
