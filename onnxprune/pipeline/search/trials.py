"""The parts of every search: attempts, trials, and the choice between a few candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.budget.cost import Cost, Costing, macs, sizes
from onnxprune.effort import EFFORTS, UNTRIED, trial_samples
from onnxprune.options import Options
from onnxprune.pipeline.allocation import Allocation, narrowest, within
from onnxprune.pipeline.candidate import Candidate, Conditions, attempt, trial
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.evaluator import Evaluator
from onnxprune.pipeline.pricing import Pricing, sharpened
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress, Turn
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.result import SearchStep

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Chosen:
    """The chosen candidate, its pricing, and the path of the search."""

    candidate: Candidate
    pricing: Pricing
    steps: tuple[SearchStep, ...]


@dataclass(frozen=True)
class Trials:
    """Makes the candidates of one run, from its ``orders`` of channels.

    ``for_attempts``, ``for_trials``: the original's activations for their refits, if several are to share them (:meth:`sharing`).
    """

    context: Context
    orders: Sequence[Pricing]
    evaluator: Evaluator
    options: Options
    progress: Progress
    compute: Compute = HERE
    for_attempts: KeptTargets | None = None
    for_trials: KeptTargets | None = None

    @contextmanager
    def sharing(self) -> Iterator[Trials]:
        """Context in which the original runs once for all attempts, and once for all trials, of the result."""
        with KeptTargets() as attempts, KeptTargets() as trials:
            yield replace(self, for_attempts=attempts, for_trials=trials)

    @cached_property
    def cost(self) -> Cost:
        return macs(self.context.coupling)

    @cached_property
    def full(self) -> float:
        """MACs of the whole model."""
        return self.cost(sizes(self.context.coupling))

    def attempt(self, allocation: Allocation, progress: Progress) -> Candidate:
        return attempt(self._conditions(self.for_attempts), allocation, progress)

    def trial(self, allocation: Allocation, progress: Progress) -> Candidate:
        return trial(self._conditions(self.for_trials), allocation, progress)

    def _conditions(self, targets: KeptTargets | None) -> Conditions:
        return Conditions(self.context, self.evaluator, self.options, self.compute, targets)

    @property
    def finer(self) -> bool:
        """Whether a full attempt does more than a trial."""
        return EFFORTS[self.options.effort].rounds > 0 or self.context.fit.count > trial_samples(self.context.fit.count)

    def only(self, allocation: Allocation) -> Chosen:
        """The candidate with ``allocation``, without a search."""
        candidate = self.attempt(allocation, self.progress)
        return Chosen(candidate, allocation.pricing, (self.step(candidate),))

    def step(self, candidate: Candidate) -> SearchStep:
        return SearchStep(self.cost(candidate.counts) / max(self.full, 1.0), candidate.drop.value)

    def sharp(self, pricing: Pricing, cost: Costing, target: float, lateness: float = UNTRIED[0]) -> Pricing:
        """``pricing`` with measured losses at the widths that an allocation for ``cost`` of at most ``target`` chooses.

        Cost: one measurement per group and sharpening of ``effort``.
        """
        turns = EFFORTS[self.options.effort].sharpenings
        for turn in range(1, 1 + turns):
            counts, progress = within(pricing, cost, target, lateness), Turn(self.progress, turn, turns)
            better = sharpened(self.context, self.options, pricing, counts, progress, self.compute)
            if better is pricing:
                break
            pricing = better
        return pricing

    def best(self, latenesses: Sequence[float], cost: Costing, target: float) -> Allocation:
        """Try a few ways to spend the budget, and return the one with the least output loss after a quick refit.

        A curve describes one group alone; it does not show how cuts of different groups interact.  Networks differ in
        how much later layers compensate early cuts, and in the best order of channels.  The first of ``latenesses``
        is tried with every order, then all of them with the best order and its widths measured.
        """
        if len(latenesses) == len(self.orders) == 1:
            return self._best(latenesses, cost, target)
        with self.sharing() as trials:
            return trials._best(latenesses, cost, target)

    def _best(self, latenesses: Sequence[float], cost: Costing, target: float) -> Allocation:
        losses: dict[bytes, float] = {}
        turns = len(latenesses) + (len(self.orders) if len(self.orders) > 1 else 0)

        def loss(allocation: Allocation) -> float:
            key = allocation.keep(self.context.coupling).tobytes()
            if key not in losses:
                turn = Turn(self.progress, len(losses) + 1, turns, "trial")
                losses[key] = self.evaluator.output_loss(self.trial(allocation, turn).model)
            return losses[key]

        ways = [Allocation(pricing, within(pricing, cost, target, latenesses[0])) for pricing in self.orders]
        order = min(ways, key=loss) if len(ways) > 1 else ways[0]
        sharp = self.sharp(order.pricing, cost, target, latenesses[0])
        ways = [Allocation(sharp, within(sharp, cost, target, lateness)) for lateness in latenesses]
        return min(ways, key=loss) if len(ways) > 1 else ways[0]

    def best_order(self, cost: Costing, share: float) -> Pricing:
        """The best order of channels at ``share`` of ``cost``, or at the lowest cost that all orders can reach."""
        least = max(cost(narrowest(pricing)) for pricing in self.orders)
        return self.best(UNTRIED, cost, max(share * cost(sizes(self.context.coupling)), least)).pricing
