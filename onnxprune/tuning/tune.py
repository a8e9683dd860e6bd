"""The room's door: a model and its original in, the same model with better weights out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from onnxprune.allowance import LONGEST, Allowance
from onnxprune.calibration.dataset import Dataset
from onnxprune.engine.session import Engine
from onnxprune.progress import Progress
from onnxprune.result import CurveOfTuning, Tuning
from onnxprune.surgery.constants import with_constants
from onnxprune.tuning.augment import augment
from onnxprune.tuning.chance import FEW, better, lower
from onnxprune.tuning.clock import Clock
from onnxprune.tuning.device import device_of
from onnxprune.tuning.held import Held
from onnxprune.tuning.loop import BAR, Setting, State, cycle, initial
from onnxprune.tuning.pace import pace
from onnxprune.tuning.pair import Pair, pair
from onnxprune.tuning.samples import Samples
from onnxprune.tuning.workers import join

Array = np.ndarray
#: Samples of a step, and numbers in memory per sample from which on it takes fewer.
BATCH, ROOM = 32, 1 << 28
#: Shares of the longest time that the cosines of a tuning without a stated length take, one after the other.
TURNS = (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Request:
    """``augment``: see :func:`onnxprune.tuning.augment.augment`; ``device``: one of :data:`onnxprune.options.DEVICE_NAMES`; ``stopped`` is asked
    before every step, and ends the tuning with the best so far."""

    allowance: Allowance
    augment: str = "auto"
    device: str = "auto"
    seed: int = 0
    stopped: Callable[[], bool] = lambda: False


def tune(
    student: onnx.ModelProto,
    original: onnx.ModelProto,
    fit: Dataset,
    held: Dataset,
    engine: Engine,
    request: Request,
    progress: Progress,
) -> tuple[onnx.ModelProto, Tuning]:
    """``student`` with weights under which it answers more like ``original``; nothing but weights changes.

    ``held``: samples that are only looked at.  Where the error on them does not fall, ``student`` itself is returned.
    Cost: as ``request.allowance`` says; one run of the original and about three of the small model per step and sample.

    Raises:
        ModelError: where no weight can be tuned, with the operators that are in the way.
        OptionError: for a device that is not there.
    """
    since = time.monotonic()
    device, workers = device_of(request.device), join()
    # Several processes of one machine share its cores.
    torch.set_num_threads(max(engine.cores() // workers.size, 1))
    torch.manual_seed(request.seed)
    progress.stage("tune", None)
    samples = Samples(fit)
    both = pair(student, original, samples, engine, device)
    batch, micro = _sizes(both, samples)
    changes = augment(fit.specs, request.augment)
    unseen = Held(both, Samples(held), micro)
    setting = Setting(both, samples, unseen, changes, batch, micro, request.seed, workers, progress, request.stopped)
    begun = time.monotonic()
    start = initial(setting)
    looking = time.monotonic() - begun
    curve = [CurveOfTuning(0.0, 0, float("nan"), float(start.errors.mean()), start.same)]
    best = _run(setting, start, request.allowance, curve, since, looking)
    moved = lower(best.errors, start.errors)
    gained = moved and better(best.errors, start.errors)
    workers.leave()
    found = with_constants(student, _arrays(best)) if moved else student
    told = Tuning(
        before=float(start.errors.mean()),
        after=float(best.errors.mean() if moved else start.errors.mean()),
        gained=gained,
        curve=tuple(curve),
        seconds=time.monotonic() - since,
        samples=fit.count,
        held=held.count,
        weights=len(both.function.parameters),
        device=device.type,
        notes=(*both.notes, *_verdict(moved, gained, start, best)),
    )
    return found, told


def _run(
    setting: Setting, start: State, allowed: Allowance, curve: list[CurveOfTuning], since: float, looking: float
) -> State:
    """``since``: when the time that ``allowed`` states began; ``looking``: seconds of a look at the held-out samples,
    such as the last one."""
    if allowed.passes is not None:
        steps = max(round(allowed.passes * setting.fit.count / setting.batch), 1)
        full = pace(setting, start, steps, 0.0).rate(steps)
        setting.progress.stage("tune", BAR)
        return cycle(setting, start, Clock(steps, 0.0), full, 0, curve, since)
    whole = LONGEST if allowed.seconds is None else allowed.seconds
    found = pace(setting, start, None, whole)
    left = setting.workers.agreed(max(whole - (time.monotonic() - since) - looking, 1.0))
    if allowed.seconds is not None:
        setting.progress.stage("tune", BAR)
        return cycle(setting, start, Clock(None, left), found.rate(found.steps(left)), 0, curve, since)
    best = start
    for turn, share in enumerate(TURNS):
        setting.progress.stage("tune", BAR, turn + 1, len(TURNS))
        seconds = share * left
        after = cycle(setting, best, Clock(None, seconds), found.rate(found.steps(seconds)), turn, curve, since)
        if not lower(after.errors, best.errors):
            return best
        best, found = after, found.later()
        if setting.stopped():
            return best
    return best


def _sizes(both: Pair, samples: Samples) -> tuple[int, int]:
    """(samples per step, samples at once): small batches teach most per sample; large models take smaller ones."""
    limit = samples.dataset.batch_limit
    if limit is not None:
        return max(limit, min(8, samples.count)), limit
    numbers = both.function.numbers(both.given_of(samples.fetch([0])))
    batch = BATCH
    while batch > 4 and batch * numbers > ROOM:
        batch //= 2
    batch = max(min(batch, samples.count), 1)
    return batch, batch


def _arrays(state: State) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy() for name, value in state.weights.items()}


def _verdict(moved: bool, gained: bool, start: State, best: State) -> tuple[str, ...]:
    if gained:
        return ()
    count = len(start.errors)
    if count < FEW:
        return (f"{count} held-out samples are too few to tell a gain from chance: the weights stay; give more",)
    if not moved:
        return ("tuning gained nothing on the held-out samples: the weights stay as they were",)
    errors = f"from {start.errors.mean():.3g} to {best.errors.mean():.3g}"
    return (
        f"the error on {count} held-out samples falls {errors}; by chance it may fall as far: tune longer, or give more",
    )
