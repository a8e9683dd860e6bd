"""What every search is made of: candidates, trials of them, and the choice between a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.attempt import Candidate, attempt, quick
from onnxprune.budget.cost import Cost, Costing, macs, sizes
from onnxprune.choose import Choices, keep_of, narrowest, within
from onnxprune.effort import EFFORTS, TRIAL_SAMPLES, UNTRIED
from onnxprune.judge import Judge
from onnxprune.options import Options
from onnxprune.progress import Progress, Turn
from onnxprune.result import SearchStep
from onnxprune.study import Study

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Found:
    """The candidate that was chosen, what from, and the path of the search."""

    candidate: Candidate
    choices: Choices
    steps: tuple[SearchStep, ...]


@dataclass(frozen=True)
class Trials:
    """Candidates of one run, by the orders of channels that it may choose from."""

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
        made up for later differs from network to network, and so does which order of channels serves best.  Orders are
        held against each other at the first of ``latenesses``, the others are tried with the best of them.
        """
        damages: dict[bytes, float] = {}
        turns = len(self.orders) + len(latenesses) - 1

        def damage(way: tuple[Choices, Array]) -> float:
            choices, counts = way
            key = keep_of(self.work.coupling, choices.rankings, counts).tobytes()
            if key not in damages:
                turn = Turn(self.progress, len(damages) + 1, turns, "trial")
                damages[key] = self.judge.damage(self.trial(choices, counts, turn).model)
            return damages[key]

        first, *others = latenesses
        ways = [(choices, within(choices, cost, target, first)) for choices in self.orders]
        if len(ways) > 1:
            ways = [min(ways, key=damage)]
        ways += [(ways[0][0], within(ways[0][0], cost, target, lateness)) for lateness in others]
        return min(ways, key=damage) if len(ways) > 1 else ways[0]

    def best_order(self, cost: Costing, share: float) -> Choices:
        """The order of channels that serves best at ``share`` of ``cost``, or as near to it as it goes."""
        least = max(cost(narrowest(choices)) for choices in self.orders)
        return self.best(UNTRIED, cost, max(share * cost(sizes(self.work.coupling)), least))[0]
