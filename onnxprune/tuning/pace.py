"""How fast weights may move: found by trying, since a model that was refitted is spoilt by what heals a damaged one."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from onnxprune.tuning.loop import Setting, State, one_step
from onnxprune.tuning.recipe import Optimizer
from onnxprune.tuning.samples import endless

#: Rates that are tried, the fastest first.
RATES = (0.02, 0.01, 0.005, 0.0025, 0.00125, 0.0006)
#: Steps of a trial, at least and at most, and samples on which its harm is measured.
LEAST, MOST, LOOKED_AT = 4, 12, 64
#: By how much of the start's error a trial may raise it: what a cosine takes back later.
HARM = 0.1
#: A model that no fast step heals is near its best.  There a rate harms first and helps later, the more of both the
#: faster: a run of so many steps takes this rate, others one that grows with the root of their number.
CAREFUL, USUAL = 0.0025, 1000
#: Share of the whole that trials may take.
TRIALS = 0.15


def pace(setting: Setting, start: State, steps: int | None, seconds: float) -> float:
    """The fastest of :data:`RATES` at which a few steps from ``start`` raise the error by little.

    ``steps`` or, where they are not known, ``seconds`` of the whole run: trials that take too much of the time end with
    a slow rate.  Cost: at most as many steps as there are rates times :data:`MOST`.
    """
    begun = time.monotonic()
    burst = MOST if steps is None else min(max(steps // 8, LEAST), MOST)
    pair = setting.pair
    parameters = pair.function.parameters
    optimizer = Optimizer(list(parameters), list(parameters.values()))
    before = _error(setting)
    for place, rate in enumerate(RATES[:-1]):
        optimizer.restart(start.weights)
        generator = np.random.default_rng((setting.seed, 1 << 16))
        rows = endless(setting.fit.count, setting.batch, generator)
        late = 0.0
        for _ in range(burst):
            one_step(setting, next(rows), generator)
            optimizer.move(rate)
            late = setting.workers.agreed(float(steps is None and time.monotonic() - begun > TRIALS * seconds))
            if late:
                break
        if late:
            optimizer.restart(start.weights)
            return RATES[min(place + 2, len(RATES) - 1)]
        after = _error(setting)
        if setting.workers.agreed(float(after <= (1 + HARM) * before)):
            optimizer.restart(start.weights)
            left = steps or seconds * burst * (place + 1) / max(time.monotonic() - begun, 1e-3)
            return rate if place < 2 else min(rate, setting.workers.agreed(careful(left)))
    optimizer.restart(start.weights)
    return RATES[-1]


def careful(steps: float) -> float:
    return CAREFUL * math.sqrt(steps / USUAL)


def _error(setting: Setting) -> float:
    """Mean error of the outputs on some samples as they are."""
    found = []
    with torch.no_grad():
        for feeds in setting.fit.batches(setting.micro):
            found.append(setting.pair.errors(feeds, None, False).cpu().numpy())
            if sum(map(len, found)) >= LOOKED_AT:
                break
    return float(np.concatenate(found).mean())
