"""How fast weights may move.  Large steps repair a damaged model, but spoil one that was refitted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from onnxprune.tuning.held_out import HeldOut
from onnxprune.tuning.loop import EXACT, Setting, State, one_step
from onnxprune.tuning.recipe import Schedule
from onnxprune.tuning.samples import endless

#: Rates for a damaged model.  Each is tried for a few steps, the fastest first.  All rates are for batches of
#: :data:`USUAL_BATCH` samples; see :func:`scaled`.
FAST = (0.02, 0.01)
#: Steps of a trial (minimum, maximum), and held-out samples that measure it.  On the samples of the trial itself, large
#: steps seem to help where they harm: a network of 50 layers, refitted to 308 pictures, has half the error on these.
MIN_STEPS, MAX_STEPS, LOOKED_AT = 4, 8, 64
#: Rate for a model near its best, for this number of steps and samples per step.  There a rate harms first and helps
#: later; a faster rate does more of both.  So a longer run allows a faster rate.  A residual network of 50 layers at 0.35
#: of its MACs, after 8 passes over 308 pictures, has a held-out error of 0.810 with this rate, 0.812 with twice, 0.827 with
#: half of it; one of 53 layers with depthwise ones at 0.7, after 10 passes, 0.577 with twice, 0.572 with half of it.  For
#: other lengths the rate grows with the square root of the samples, as does the distance that noise moves a weight.
CAREFUL, USUAL_STEPS, USUAL_BATCH = 0.007, 400, 32
#: Bounds of the careful rate.  Below the first, weights hardly move.  The second is usual for training from scratch with
#: relative steps (Shazeer and Stern, arXiv 1804.04235).
SLOWEST, FASTEST = 0.001, 0.01
#: Shares of the careful rate, descending, and the rise of the error on held-out samples that rules one out.  A residual
#: network of 20 layers at half of its MACs rises by 1.3 at a rate of 0.01, and gains; networks with outputs that hardly
#: differ rise by 40 and more even at 0.001.
EASED, CRASH = (1.0, 0.25, 0.06), 4.0
#: How far the training loss may rise in a trial of a careful rate.  At a fast rate it must fall: a network of dense blocks
#: ended with twice the held-out error at a rate that raised it.
RUNAWAY = 1.0
#: Maximum share of the time for trials.
TRIALS = 0.1


@dataclass(frozen=True)
class Pace:
    """``fast``: a rate that repairs the start; ``None`` if none does.  ``seconds``: per step.  ``batch``: samples per step.
    ``eased``: share of the careful rate."""

    fast: float | None
    seconds: float
    batch: int
    eased: float = 1.0

    def schedule(self, steps: float) -> Schedule:
        """The schedule of a run of ``steps``."""
        return Schedule(self.eased * careful(steps, self.batch) if self.fast is None else self.fast, steps)

    def later(self) -> Pace:
        """The pace of the next run, which starts from a repaired model."""
        return Pace(None, self.seconds, self.batch, self.eased)

    def steps(self, seconds: float) -> float:
        """Estimated steps in ``seconds``."""
        return seconds / max(self.seconds, 1e-6)


def careful(steps: float, batch: int) -> float:
    """The careful rate of a run of ``steps`` with ``batch`` samples each."""
    samples = steps * batch / (USUAL_STEPS * USUAL_BATCH)
    return scaled(min(max(CAREFUL * math.sqrt(samples), SLOWEST), FASTEST), batch)


def scaled(rate: float, batch: int) -> float:
    """``rate`` for batches of another size: Adam's noise grows with its square root (Malladi et al., arXiv 2205.10287).

    >>> scaled(0.02, 32), scaled(0.02, 8)
    (0.02, 0.01)
    """
    return rate * math.sqrt(batch / USUAL_BATCH)


def pace(setting: Setting, start: State, steps: int | None, seconds: float) -> Pace:
    """The fastest rate of :data:`FAST` at which a few steps from ``start`` lower the error of held-out samples.

    If there is none, the careful rate, or the part of it at which the error does not explode.  The careful rate if trials
    take too long.  The run's length is ``steps`` or, if not known, ``seconds``.  Cost: at most :data:`MAX_STEPS` steps per
    rate.
    """
    held = setting.held.some(LOOKED_AT)
    trials = _Trials(setting, start, held, MAX_STEPS if steps is None else min(max(steps // 8, MIN_STEPS), MAX_STEPS))
    deadline = time.monotonic() + TRIALS * seconds if steps is None else math.inf
    before, batch = trials.error(), setting.batch
    for rate in (scaled(fast, batch) for fast in FAST):
        rise = trials.rise(rate, before, deadline, 0.0)
        if rise is None:
            return Pace(None, trials.per_step, batch)
        if rise < 0:
            return Pace(rate, trials.per_step, batch)
    length = seconds / max(trials.per_step, 1e-6) if steps is None else steps
    for eased in EASED[:-1] if before > EXACT else ():
        rise = trials.rise(eased * careful(length, batch), before, deadline, RUNAWAY)
        if rise is None or rise <= CRASH:
            return Pace(None, trials.per_step, batch, eased)
    # Nothing is below the last one, so a trial of it would decide nothing.
    return Pace(None, trials.per_step, batch, EASED[-1] if before > EXACT else 1.0)


@dataclass
class _Trials:
    """Runs of ``burst`` steps from ``start``, judged on ``held``.  ``per_step``: seconds of a step so far."""

    setting: Setting
    start: State
    held: HeldOut
    burst: int
    per_step: float = 0.0
    _made: int = 0
    _spent: float = 0.0

    def error(self) -> float:
        """Mean error of the current weights on held-out samples."""
        return float(self.held.look(self.setting.pair.function.parameters)[0].mean())

    def rise(self, rate: float, before: float, deadline: float, most: float) -> float | None:
        """The rise of the error above ``before``, as a share of it, by a burst at ``rate``.

        Infinite if the training loss rises by more than the share ``most``: hidden values can run away while the outputs,
        which hardly read them, improve.
        ``None`` after ``deadline`` by the clock of the first process.  Puts the weights back.
        """
        setting, workers = self.setting, self.setting.workers
        optimizer = setting.pair.optimizer()
        optimizer.restart(self.start.weights)
        generator = self._generator()
        rows = endless(setting.fit.count, setting.batch, generator)
        late, losses = 0.0, list[float]()
        for place in range(self.burst):
            stepped = time.monotonic()
            losses.append(one_step(setting, next(rows), generator))
            # Warm up as in a run: the first steps follow single batches, so large ones lead astray.
            optimizer.move(rate * (place + 1) / self.burst)
            self._made, self._spent = self._made + 1, self._spent + time.monotonic() - stepped
            late = workers.agreed(float(time.monotonic() > deadline))
            if late:
                break
        self.per_step = workers.agreed(self._spent / self._made)
        after = math.inf if late else workers.agreed(self.error())
        crashed = not late and self._first_loss() > (1 + most) * max(losses[0], EXACT)
        optimizer.restart(self.start.weights)
        if late:
            return None
        return math.inf if crashed else (after - before) / max(before, EXACT)

    def _first_loss(self) -> float:
        """The loss of the current weights on the first batch of a burst: other batches may have many times its loss."""
        generator = self._generator()
        rows = next(endless(self.setting.fit.count, self.setting.batch, generator))
        with torch.no_grad():
            return one_step(self.setting, rows, generator)

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng((self.setting.seed, 1 << 16))
