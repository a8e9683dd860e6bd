"""One candidate: a cut, its refit, its drop - and the searches over candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.budget.cost import Cost, Costing, count_parameters, macs, parameters, sizes, stored_bytes
from onnxprune.choose import Choices, keep_of, lossless, narrowest, trial_macs, within
from onnxprune.effort import EFFORTS, TRIAL_SAMPLES, UNTRIED, allocations
from onnxprune.errors import BudgetError
from onnxprune.judge import Judge
from onnxprune.options import Options
from onnxprune.progress import Progress, Turn
from onnxprune.refit.sequential import refit
from onnxprune.result import Drop, Refitted, SearchStep
from onnxprune.runtime.latency import compare_latency
from onnxprune.study import DEFAULT_MEMORY, Study
from onnxprune.surgery.cut import cut
from onnxprune.surgery.edit import sweep

Array = np.ndarray
#: Halvings of the interval of kept MACs in the search for a drop, and corrections in the search for a latency.
HALVINGS, CORRECTIONS = 5, 8
#: Kept shares of the MACs below which no drop is searched for, and that are not told apart.
LEAST_KEPT, FINEST = 0.02, 0.01
#: Kept share of the MACs at which orders of channels are held against each other where a drop is searched for.
USUAL = 0.7
#: Share of a latency that may be left unused.
ROOM = 0.04


@dataclass(frozen=True, eq=False)
class Candidate:
    """``counts``: units kept per group, (groups,); ``keep``: one boolean per unit; ``model``: cut, refitted, swept.

    ``refits``: the fits that are in ``model``; ``notes``: what the user should know about it.
    """

    counts: Array
    keep: Array
    model: onnx.ModelProto
    drop: Drop
    refits: tuple[Refitted, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """The candidate that was chosen, what from, and the path of the search."""

    candidate: Candidate
    choices: Choices
    steps: tuple[SearchStep, ...]


def attempt(
    work: Study, choices: Choices, counts: Array, judge: Judge, options: Options, progress: Progress
) -> Candidate:
    """Cut to ``counts`` (units kept per group), refit, and judge; a refit that is worse than none is left out.

    Cost: see :func:`onnxprune.refit.sequential.refit`, and two passes over the holdout.
    """
    keep = keep_of(work.coupling, choices.rankings, counts)
    plain = sweep(cut(work.coupling, keep), work.loaded.proto)
    unfitted = Candidate(counts, keep, plain, judge.drop(plain))
    if options.refit == "none" or keep.all():
        return unfitted
    found = refit(
        work.coupling,
        keep,
        work.layers,
        choices.grams,
        work.fit,
        work.engine,
        options.memory or DEFAULT_MEMORY,
        options.seed,
        EFFORTS[options.effort].rounds,
        progress,
    )
    if not found.weights:
        return replace(unfitted, refits=found.layers)
    model = sweep(cut(work.coupling, keep, found.weights), work.loaded.proto)
    drop = judge.drop(model)
    if unfitted.drop.value < drop.value:
        return replace(unfitted, notes=("the refit was worse than the plain cut on the holdout, and was left out",))
    return Candidate(counts, keep, model, drop, found.layers)


def find(work: Study, orders: Sequence[Choices], judge: Judge, options: Options, progress: Progress) -> Found:
    """The candidate that the budget asks for, of one of several orders of channels.

    Cost: one :func:`attempt`, and a quick one per order and allocation that ``effort`` lets it try; for a largest drop
    up to ``HALVINGS`` + 2 of them, and a quick one per order.

    Raises:
        BudgetError: where the budget cannot be met.
    """
    kind, value = options.budget.kind, options.budget.value
    if kind == "max_drop":
        cost = macs(work.coupling)
        return _by_drop(
            work, _best_order(work, orders, cost, USUAL, judge, options, progress), judge, options, progress
        )
    if kind == "latency":
        choices = _best_order(work, orders, orders[0].time, value, judge, options, progress)
        return _by_latency(work, choices, judge, options, progress)
    cost, target = cost_of(work, kind, value)
    latenesses = allocations(EFFORTS[options.effort], len(orders), trial_macs(work))
    choices, counts = _best(work, orders, latenesses, cost, target, judge, options, progress)
    candidate = attempt(work, choices, counts, judge, options, progress)
    return Found(candidate, choices, (_step(work, candidate),))


def _best(
    work: Study,
    orders: Sequence[Choices],
    latenesses: Sequence[float],
    cost: Costing,
    target: float,
    judge: Judge,
    options: Options,
    progress: Progress,
) -> tuple[Choices, Array]:
    """Of a few ways to spend the budget the one that does the least damage on the holdout after a quick refit.

    What cuts in different places do to each other is in no curve of a single group; how much the early ones are
    made up for later differs from network to network, and so does which order of channels serves best.
    """
    ways: dict[bytes, tuple[Choices, Array]] = {}
    for choices in orders:
        for lateness in latenesses:
            counts = within(choices, cost, target, lateness)
            ways.setdefault(keep_of(work.coupling, choices.rankings, counts).tobytes(), (choices, counts))
    tried = list(ways.values())
    if len(tried) == 1:
        return tried[0]
    quick = replace(options, effort="fast")
    some = np.linspace(0, work.fit.count - 1, min(work.fit.count, TRIAL_SAMPLES)).round().astype(np.int64)
    part = replace(work, fit=work.fit.take(some))
    found = []
    for turn, way in enumerate(tried, start=1):
        tell = Turn(progress, turn, len(tried), "trial")
        found.append(judge.damage(attempt(part, *way, judge, quick, tell).model))
    return tried[int(np.argmin(found))]


def _best_order(
    work: Study,
    orders: Sequence[Choices],
    cost: Costing,
    share: float,
    judge: Judge,
    options: Options,
    progress: Progress,
) -> Choices:
    """The order of channels that serves best at ``share`` of ``cost``, or as near to it as it goes."""
    full = cost(sizes(work.coupling))
    least = max(cost(narrowest(choices)) for choices in orders)
    return _best(work, orders, UNTRIED, cost, max(share * full, least), judge, options, progress)[0]


def cost_of(work: Study, kind: str, value: float) -> tuple[Cost, float]:
    """(cost, target) of a budget in MACs, parameters or bytes: a share of the whole model's, or bytes."""
    if kind == "size":
        cost, full = stored_bytes(work.coupling, work.loaded.file_bytes), float(work.loaded.file_bytes)
    elif kind == "params":
        cost, full = parameters(work.coupling), float(count_parameters(work.loaded.proto))
    else:
        cost = macs(work.coupling)
        full = cost(sizes(work.coupling))
    target = value if kind == "size" and value > 1 else value * full
    if target >= full:
        # Nothing need go, even where arrays that a cut would split count twice.
        target = max(target, cost(sizes(work.coupling)))
    # Rounding of sums of products must not refuse what is exactly at the target.
    return cost, target * (1 + 1e-12)


def _step(work: Study, candidate: Candidate) -> SearchStep:
    cost = macs(work.coupling)
    full = cost(sizes(work.coupling))
    return SearchStep(cost(candidate.counts) / max(full, 1.0), candidate.drop.value)


def _by_drop(work: Study, choices: Choices, judge: Judge, options: Options, progress: Progress) -> Found:
    """Halve the interval of kept MACs; what costs nothing (dead channels) is tried first and never given up."""
    cost = macs(work.coupling)
    full = cost(sizes(work.coupling))
    free = lossless(choices)
    low = max(cost(narrowest(choices)) / full, LEAST_KEPT)
    high = cost(free) / full
    best = attempt(work, choices, free, judge, options, Turn(progress, 1, 1 + _halvings(high - low)))
    steps = [_step(work, best)]
    if best.drop.value > options.budget.value:
        best = attempt(work, choices, sizes(work.coupling), judge, options, progress)
        high = 1.0
    turns = 1 + _halvings(high - low)
    for turn in range(2, 2 + HALVINGS):
        middle = (low + high) / 2
        if high - middle < FINEST:
            break
        counts = np.minimum(within(choices, cost, middle * full), free)
        candidate = attempt(work, choices, counts, judge, options, Turn(progress, turn, turns))
        steps.append(_step(work, candidate))
        if candidate.drop.value <= options.budget.value:
            best, high = candidate, middle
        else:
            low = middle
    if best.keep.all():
        lowest = min(s.drop for s in steps[1:]) if len(steps) > 1 else 0.0
        raise BudgetError(
            f"no cut stays within a drop of {options.budget.value:g}; the smallest seen is {lowest:.4g}: "
            "allow more with --max-drop, or set a size with --macs"
        )
    return Found(best, choices, tuple(sorted(steps, key=lambda s: -s.macs_ratio)))


def _halvings(width: float) -> int:
    """Halvings of an interval of kept shares of MACs before its halves are not told apart."""
    return next((done for done in range(HALVINGS) if width / 2 ** (done + 1) < FINEST), HALVINGS)


def _by_latency(work: Study, choices: Choices, judge: Judge, options: Options, progress: Progress) -> Found:
    """The widest cut whose latency is at most the share asked for.

    By the user's table, which stands for another machine; else the target by this machine's table is corrected
    until the whole model's measured ratio holds with little room left.  Corrections stay between the targets that
    are known to be fast enough and too slow, however wrong the table is.
    """
    cost, wanted = choices.time, options.budget.value
    full = cost(sizes(work.coupling))
    if options.latency_table is not None:
        candidate = attempt(work, choices, within(choices, cost, wanted * full), judge, options, progress)
        return Found(candidate, choices, (_step(work, candidate),))
    progress.stage("latency", CORRECTIONS)
    feeds = next(work.fit.batches(1))
    least = cost(narrowest(choices)) / full
    low, high = least, 1.0
    target, best, ratio = max(wanted, least), None, 1.0
    for _ in range(CORRECTIONS):
        counts = within(choices, cost, target * full)
        plain = sweep(cut(work.coupling, keep_of(work.coupling, choices.rankings, counts)), work.loaded.proto)
        ratio = compare_latency(work.loaded.proto, plain, feeds, work.engine)[0].ratio
        progress.advance()
        if ratio <= wanted:
            low, best = target, counts
        else:
            high = target
        if wanted * (1 - ROOM) <= ratio <= wanted or high - low < FINEST:
            break
        guess = max(target * (1 - ROOM / 2) * wanted / ratio, target / 2)
        between = (low + high) / 2 if best is not None else least
        target = guess if low < guess < high else between
    if best is None:
        raise BudgetError(
            f"a latency of {wanted:g} cannot be reached: the narrowest model tried runs at {ratio:.2f} of the original"
        )
    candidate = attempt(work, choices, best, judge, options, progress)
    return Found(candidate, choices, (_step(work, candidate),))
