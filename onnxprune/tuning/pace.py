"""How fast weights may move: a damaged model bears fast steps, one that was refitted is spoilt by them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from onnxprune.tuning.loop import Setting, State, one_step
from onnxprune.tuning.recipe import Optimizer
from onnxprune.tuning.samples import endless

#: Rates that only a damaged model bears; tried for a few steps each, the fastest first.
FAST = (0.02, 0.01)
#: Steps of a trial, at least and at most, and samples on which its harm is measured.
LEAST, MOST, LOOKED_AT = 4, 8, 64
#: By how much of the start's error a trial may raise it.
HARM = 0.1
#: A model that no fast step heals is near its best.  There a rate harms first and helps later, the more of both the
#: faster, so that a longer run bears a faster one: a residual network of 20 layers at half of its MACs ends best at 0.0025
#: to 0.005 after 400 steps of 32 pictures; 0.01 and 0.0016 end worse.  Between runs the rate grows with the root of the steps: that far
#: noise moves a weight.
CAREFUL, USUAL = 0.0035, 400
#: Below the first, weights hardly move; the second is the usual rate of training from scratch with relative steps
#: (Shazeer and Stern, arXiv 1804.04235).
SLOWEST, FASTEST = 0.001, 0.01
#: Share of the whole that trials may take.
TRIALS = 0.1


@dataclass(frozen=True)
class Pace:
    """``fast``: a rate that heals the start, ``None`` where none does.  ``seconds`` of a step."""

    fast: float | None
    seconds: float

    def rate(self, steps: float) -> float:
        """The highest rate of a run of so many steps."""
        return careful(steps) if self.fast is None else self.fast

    def later(self) -> Pace:
        """For a run that starts where this one ended: healed."""
        return Pace(None, self.seconds)

    def steps(self, seconds: float) -> float:
        """How many steps are made in so many seconds, about."""
        return seconds / max(self.seconds, 1e-6)


def careful(steps: float) -> float:
    return min(max(CAREFUL * math.sqrt(steps / USUAL), SLOWEST), FASTEST)


def pace(setting: Setting, start: State, steps: int | None, seconds: float) -> Pace:
    """The fastest of :data:`FAST` at which a few steps from ``start`` raise the error by little; the careful one where
    there is none, or trials take too much of the time.

    ``steps`` or, where they are not known, ``seconds`` of the whole run.  Cost: as many steps as there are rates times
    :data:`MOST`.
    """
    begun = time.monotonic()
    burst = MOST if steps is None else min(max(steps // 8, LEAST), MOST)
    pair = setting.pair
    parameters = pair.function.parameters
    optimizer = Optimizer(list(parameters), list(parameters.values()))
    before, made, spent = _error(setting), 0, 0.0
    for rate in FAST:
        optimizer.restart(start.weights)
        generator = np.random.default_rng((setting.seed, 1 << 16))
        rows = endless(setting.fit.count, setting.batch, generator)
        late = 0.0
        for place in range(burst):
            stepped = time.monotonic()
            one_step(setting, next(rows), generator)
            # As in a run: the first steps follow single batches, and go astray where they are large.
            optimizer.move(rate * (place + 1) / burst)
            made, spent = made + 1, spent + time.monotonic() - stepped
            late = setting.workers.agreed(float(steps is None and time.monotonic() - begun > TRIALS * seconds))
            if late:
                break
        harmless = not late and _error(setting) <= (1 + HARM) * before
        per_step = setting.workers.agreed(spent / made)
        if late or setting.workers.agreed(float(harmless)):
            optimizer.restart(start.weights)
            return Pace(None if late else rate, per_step)
    optimizer.restart(start.weights)
    return Pace(None, per_step)


def _error(setting: Setting) -> float:
    """Mean error of the outputs on some samples as they are."""
    found = []
    with torch.no_grad():
        for feeds in setting.fit.batches(setting.micro):
            wanted = setting.pair.judge(feeds)
            found.append(setting.pair.look(feeds, wanted, None)[0].cpu().numpy())
            if sum(map(len, found)) >= LOOKED_AT:
                break
    return float(np.concatenate(found).mean())
