"""How fast weights may move.  Fast steps heal a damaged model, but spoil one that was refitted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from onnxprune.tuning.loop import Setting, State, one_step
from onnxprune.tuning.recipe import Schedule
from onnxprune.tuning.samples import endless

#: Rates for a damaged model.  Each is tried for a few steps, the fastest first.
FAST = (0.02, 0.01)
#: Steps of a trial (minimum, maximum), and samples that measure its harm.
LEAST, MOST, LOOKED_AT = 4, 8, 64
#: A trial may raise the error by this share.
HARM = 0.1
#: Rate for a model near its best, at this number of steps.  There a rate harms first and helps later; a faster rate does
#: more of both.  So a longer run allows a faster rate.  A residual network of 20 layers at half of its MACs ends best at
#: 0.0025 to 0.005 after 400 steps of 32 pictures; 0.01 and 0.0016 end worse.  For other lengths the rate grows with the
#: square root of the steps, as does the distance that noise moves a weight.
CAREFUL, USUAL = 0.0035, 400
#: Bounds of the careful rate.  Below the first, weights hardly move.  The second is usual for training from scratch with
#: relative steps (Shazeer and Stern, arXiv 1804.04235).
SLOWEST, FASTEST = 0.001, 0.01
#: Maximum share of the time for trials.
TRIALS = 0.1


@dataclass(frozen=True)
class Pace:
    """``fast``: a rate that heals the start; ``None`` if none does.  ``seconds``: per step."""

    fast: float | None
    seconds: float

    def schedule(self, steps: float) -> Schedule:
        """The schedule of a run of ``steps``."""
        return Schedule(careful(steps) if self.fast is None else self.fast, steps)

    def later(self) -> Pace:
        """The pace of the next run, which starts from a healed model."""
        return Pace(None, self.seconds)

    def steps(self, seconds: float) -> float:
        """Estimated steps in ``seconds``."""
        return seconds / max(self.seconds, 1e-6)


def careful(steps: float) -> float:
    return min(max(CAREFUL * math.sqrt(steps / USUAL), SLOWEST), FASTEST)


def pace(setting: Setting, start: State, steps: int | None, seconds: float) -> Pace:
    """The fastest rate of :data:`FAST` at which a few steps from ``start`` hardly raise the error.

    The careful rate if there is none, or if trials take too long.  The run's length is ``steps`` or, if not known,
    ``seconds``.  Cost: at most :data:`MOST` steps per rate.
    """
    begun = time.monotonic()
    burst = MOST if steps is None else min(max(steps // 8, LEAST), MOST)
    optimizer = setting.pair.optimizer()
    before, made, spent = _error(setting), 0, 0.0
    for rate in FAST:
        optimizer.restart(start.weights)
        generator = np.random.default_rng((setting.seed, 1 << 16))
        rows = endless(setting.fit.count, setting.batch, generator)
        late = 0.0
        for place in range(burst):
            stepped = time.monotonic()
            one_step(setting, next(rows), generator)
            # Warm up as in a run: the first steps follow single batches, so large ones go astray.
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
    """Mean error of the outputs on some samples, without augmentation."""
    errors = []
    with torch.no_grad():
        for feeds in setting.fit.batches(setting.micro):
            wanted = setting.pair.judge(feeds)
            errors.append(setting.pair.look(feeds, wanted, None)[0].cpu().numpy())
            if sum(map(len, errors)) >= LOOKED_AT:
                break
    return float(np.concatenate(errors).mean())
