"""The searches over candidates: of several cuts the one that the budget asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.attempt import Candidate, attempt, quick
from onnxprune.budget.cost import Cost, Costing, count_parameters, macs, parameters, sizes, stored_bytes
from onnxprune.choose import Choices, keep_of, lossless, narrowest, past_lossless, trial_macs, within
from onnxprune.effort import EFFORTS, TRIAL_SAMPLES, UNTRIED, allocations
from onnxprune.errors import BudgetError
from onnxprune.judge import Judge
from onnxprune.options import Options
from onnxprune.progress import Progress, Turn
from onnxprune.result import SearchStep
from onnxprune.runtime.latency import compare_latency
from onnxprune.study import Study
from onnxprune.surgery.cut import cut
from onnxprune.surgery.edit import sweep

Array = np.ndarray
#: Halvings of the interval of kept MACs in the search for a drop, refits in full that follow them, and corrections in
#: the search for a latency.
HALVINGS, FULL, CORRECTIONS = 5, 3, 8
#: Kept shares of the MACs below which no drop is searched for, and that are not told apart.
LEAST_KEPT, FINEST = 0.02, 0.01
#: Kept share of the MACs at which orders of channels are held against each other where a drop is searched for.
USUAL = 0.7
#: By how much the kept MACs go down where nothing tells how much further they may.
STEP = 0.9
#: Share of a latency that may be left unused.
ROOM = 0.04
NO_FASTER = (
    "kernels are not expected to run these channel counts any faster than the original's: --round 8 keeps to counts "
    "that they do, or allow a larger cut"
)


@dataclass(frozen=True, eq=False)
class Found:
    """The candidate that was chosen, what from, and the path of the search."""

    candidate: Candidate
    choices: Choices
    steps: tuple[SearchStep, ...]


def find(work: Study, orders: Sequence[Choices], judge: Judge, options: Options, progress: Progress) -> Found:
    """The candidate that the budget asks for, of one of several orders of channels.

    Cost: one :func:`onnxprune.attempt.attempt`, and a quick one per order and allocation that ``effort`` lets it try;
    for a largest drop up to ``HALVINGS`` quick ones and ``FULL`` + 1 in full, and a quick one per order.

    Raises:
        BudgetError: where the budget cannot be met.
    """
    found = _Search(work, orders, judge, options, progress).find()
    time = found.choices.time
    if options.round_to is not None or time(found.candidate.counts) < time(sizes(work.coupling)):
        return found
    return replace(found, candidate=replace(found.candidate, notes=(*found.candidate.notes, NO_FASTER)))


@dataclass(frozen=True)
class _Search:
    work: Study
    orders: Sequence[Choices]
    judge: Judge
    options: Options
    progress: Progress

    @cached_property
    def cost(self) -> Cost:
        return macs(self.work.coupling)

    @cached_property
    def full(self) -> float:
        """MACs of the whole model."""
        return self.cost(sizes(self.work.coupling))

    def find(self) -> Found:
        kind, value = self.options.budget.kind, self.options.budget.value
        if kind == "max_drop":
            return self.by_drop(self.best_order(self.cost, USUAL))
        if kind == "latency":
            return self.by_latency(self.best_order(self.orders[0].time, value))
        latenesses = allocations(EFFORTS[self.options.effort], len(self.orders), trial_macs(self.work))
        return self.only(*self.best(latenesses, *cost_of(self.work, kind, value)))

    def attempt(self, choices: Choices, counts: Array, progress: Progress) -> Candidate:
        return attempt(self.work, choices, counts, self.judge, self.options, progress)

    def trial(self, choices: Choices, counts: Array, progress: Progress) -> Candidate:
        part, options = quick(self.work, self.options)
        return attempt(part, choices, counts, self.judge, options, progress)

    @property
    def finer(self) -> bool:
        """Whether an attempt is more than a trial."""
        return EFFORTS[self.options.effort].rounds > 0 or self.work.fit.count > TRIAL_SAMPLES

    def only(self, choices: Choices, counts: Array) -> Found:
        candidate = self.attempt(choices, counts, self.progress)
        return Found(candidate, choices, (self.step(candidate),))

    def step(self, candidate: Candidate) -> SearchStep:
        return SearchStep(self.cost(candidate.counts) / max(self.full, 1.0), candidate.drop.value)

    def best(self, latenesses: Sequence[float], cost: Costing, target: float) -> tuple[Choices, Array]:
        """Of a few ways to spend the budget the one that does the least damage on the holdout after a quick refit.

        What cuts in different places do to each other is in no curve of a single group; how much the early ones are
        made up for later differs from network to network, and so does which order of channels serves best.
        """
        ways: dict[bytes, tuple[Choices, Array]] = {}
        for choices in self.orders:
            for lateness in latenesses:
                counts = within(choices, cost, target, lateness)
                ways.setdefault(keep_of(self.work.coupling, choices.rankings, counts).tobytes(), (choices, counts))
        tried = list(ways.values())
        if len(tried) == 1:
            return tried[0]
        found = []
        for turn, way in enumerate(tried, start=1):
            candidate = self.trial(*way, Turn(self.progress, turn, len(tried), "trial"))
            found.append(self.judge.damage(candidate.model))
        return tried[int(np.argmin(found))]

    def best_order(self, cost: Costing, share: float) -> Choices:
        """The order of channels that serves best at ``share`` of ``cost``, or as near to it as it goes."""
        least = max(cost(narrowest(choices)) for choices in self.orders)
        return self.best(UNTRIED, cost, max(share * cost(sizes(self.work.coupling)), least))[0]

    def by_drop(self, choices: Choices) -> Found:
        """Cut what costs nothing, halve the interval of kept MACs below it by quick refits, then refit in full where
        they lead, and a step further.

        Raises:
            BudgetError: where no cut stays within the drop.
        """
        free, begun = self.begin(choices)
        low = max(self.cost(narrowest(choices)) / self.full, LEAST_KEPT)
        high = self.cost(free) / self.full

        def counts(share: float) -> Array:
            return np.asarray(np.minimum(within(choices, self.cost, share * self.full), free))

        halvings = _halvings(high - low)
        turns = halvings + FULL * self.finer
        best, failed, path = begun[-1], low, list(begun)
        damages: dict[float, float] = {}
        for turn in range(1, 1 + halvings):
            middle = (failed + high) / 2
            candidate = self.trial(choices, counts(middle), Turn(self.progress, turn, turns))
            if self.finer:
                damages[middle] = self.judge.damage(candidate.model)
            path.append(candidate)
            if self.allows(candidate):
                best, high = candidate, middle
            else:
                failed = middle
        if self.finer:
            share = high if best is not begun[-1] else failed
            found = self.refine(choices, counts, share, high, damages, (halvings, turns))
            path += found
            best = next((candidate for candidate in reversed(found) if self.allows(candidate)), best)
        steps = [self.step(candidate) for candidate in path]
        if best.keep.all():
            least = min((s for s in steps if s.macs_ratio < 1), key=lambda s: s.drop, default=steps[0])
            raise BudgetError(
                f"no cut stays within a drop of {self.options.budget.value:g} ({best.drop.metric}); the smallest seen "
                f"is {least.drop:.4g}, at {least.macs_ratio:.1%} of the MACs: allow more with --max-drop, or set a "
                "size with --macs"
            )
        return Found(best, choices, tuple(sorted(steps, key=lambda s: -s.macs_ratio)))

    def allows(self, candidate: Candidate) -> bool:
        return candidate.drop.value <= self.options.budget.value

    def begin(self, choices: Choices) -> tuple[Array, list[Candidate]]:
        """Widths that no later cut exceeds, and what was tried for them, that of these widths last.

        Dead channels go, with what else must go for widths that run fast, as far as the drop allows that.
        """
        ways = (*past_lossless(choices), lossless(choices), sizes(self.work.coupling).astype(np.int64))
        starts = {counts.tobytes(): counts for counts in ways}
        tried: list[Candidate] = []
        for turn, counts in enumerate(starts.values(), start=1):
            tried.append(self.attempt(choices, counts, Turn(self.progress, turn, len(starts), "free")))
            if self.allows(tried[-1]):
                break
        return tried[-1].counts, tried

    def refine(
        self,
        choices: Choices,
        counts: Callable[[float], Array],
        share: float,
        high: float,
        damages: Mapping[float, float],
        turns: tuple[int, int],
    ) -> list[Candidate]:
        """Up to ``FULL`` refits in full from ``share`` of the MACs on, in the order in which they were made; those that
        are allowed get ever smaller.

        ``high``: the least share that is known to be allowed; ``damages``: of trials, by share; ``turns``: how many
        are behind, and how many there are in all.
        """
        done, of = turns
        failed: float | None = None
        found: list[Candidate] = []
        for turn in range(1, 1 + FULL):
            candidate = self.attempt(choices, counts(share), Turn(self.progress, done + turn, of))
            found.append(candidate)
            if self.allows(candidate):
                high = share
            else:
                failed = share
            if failed is not None:
                share = (failed + high) / 2
            elif share in damages:
                # A full refit may go on to where it does as much damage as the trial did here.
                share = _reached(damages, share, self.judge.damage(candidate.model))
            else:
                share *= STEP
            if abs(high - share) < FINEST or share * self.full < self.cost(narrowest(choices)):
                break
        return found

    def by_latency(self, choices: Choices) -> Found:
        """The widest cut whose latency is at most the share asked for.

        By the user's table, which stands for another machine; else the target by this machine's table is corrected
        until the whole model's measured ratio holds with little room left.  Corrections stay between the targets that
        are known to be fast enough and too slow, however wrong the table is.
        """
        work, cost, wanted = self.work, choices.time, self.options.budget.value
        full = cost(sizes(work.coupling))
        if self.options.latency_table is not None:
            return self.only(choices, within(choices, cost, wanted * full))
        self.progress.stage("latency", CORRECTIONS)
        feeds = next(work.fit.batches(1))
        least = cost(narrowest(choices)) / full
        low, high = least, 1.0
        target, best, ratio = max(wanted, least), None, 1.0
        for _ in range(CORRECTIONS):
            counts = within(choices, cost, target * full)
            plain = sweep(cut(work.coupling, keep_of(work.coupling, choices.rankings, counts)), work.loaded.proto)
            ratio = compare_latency(work.loaded.proto, plain, feeds, work.engine)[0].ratio
            self.progress.advance()
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
                f"a latency of {wanted:g} cannot be reached: the narrowest model tried runs at {ratio:.2f} of the "
                "original"
            )
        return self.only(choices, best)


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


def _reached(damages: Mapping[float, float], share: float, full: float) -> float:
    """The share of MACs at which trials do as much more damage than at ``share`` as there a ``full`` refit did less.

    ``damages``: of trials, by share; between them, and below, the damage is exponential in the share.

    >>> round(_reached({0.6: 0.01, 0.4: 0.04}, 0.6, 0.005), 2), _reached({0.6: 0.01}, 0.6, 0.005)
    (0.5, 0.54)
    """
    shares = np.asarray(sorted(damages, reverse=True))
    # Damage may be none, or infinite.
    logs = np.log(np.clip([damages[s] for s in shares], 1e-12, 1e12))
    logs = np.maximum.accumulate(logs - logs[shares == share])
    gain = -float(np.log(np.clip(full, 1e-12, 1e12) / np.clip(damages[share], 1e-12, 1e12)))
    if gain <= 0 or logs[-1] <= 0:
        return share * STEP
    if gain <= logs[-1]:
        return float(np.interp(gain, logs, shares))
    return float(max(share - gain * (share - shares[-1]) / logs[-1], share / 2))


def _halvings(width: float) -> int:
    """Halvings of an interval of kept shares of MACs before its halves are not told apart."""
    return next((done for done in range(HALVINGS) if width / 2 ** (done + 1) < FINEST), HALVINGS)
