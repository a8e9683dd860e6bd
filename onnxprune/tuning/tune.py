"""The entry point of the package: from a model and its original to the same model with better weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from onnxprune.calibration.dataset import Dataset
from onnxprune.engine.session import Engine
from onnxprune.errors import ModelError
from onnxprune.progress import Progress
from onnxprune.result import Tuning, TuningPoint
from onnxprune.surgery.constants import with_constants
from onnxprune.tuning.augment import augment
from onnxprune.tuning.chance import FEW, better, lower
from onnxprune.tuning.clock import Clock
from onnxprune.tuning.device import device_of
from onnxprune.tuning.held_out import HeldOut
from onnxprune.tuning.loop import BAR, EXACT, Setting, State, cycle, initial
from onnxprune.tuning.mixed import mixed
from onnxprune.tuning.pace import pace
from onnxprune.tuning.pair import ModelPair, pair
from onnxprune.tuning.samples import Samples
from onnxprune.tuning.workers import join
from onnxprune.tuning_length import LONGEST, TuningLength

Array = np.ndarray
#: Samples per step.  A step takes fewer if it would hold more than this many numbers in memory.
BATCH, ROOM = 32, 1 << 28
#: If no length is given: the cosines in sequence, as shares of the longest time.
TURNS = (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Request:
    """``augment``: see :func:`onnxprune.tuning.augment.augment`.  ``device``: one of
    :data:`onnxprune.options.DEVICE_NAMES`.  ``stopped`` is called before every step.  If it returns True, the tuning ends
    with the best weights so far.
    """

    length: TuningLength
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
    """``student`` with new weights, so that it answers more like ``original``.  Only weights change.

    ``held``: samples for evaluation only.  If the error on them does not fall, returns ``student`` itself.
    Cost: set by ``request.length``.  Per step and sample, one run of the original and about three of the small model.

    Raises:
        ModelError: no weight can be tuned.  The message names the operators in the way.
        OptionError: the device does not exist.
    """
    since = time.monotonic()
    device, workers = device_of(request.device), join()
    # Processes on one machine share its cores.
    torch.set_num_threads(max(engine.cores() // workers.size, 1))
    torch.manual_seed(request.seed)
    progress.stage("tune", None)
    samples = Samples(fit)
    both = pair(student, original, samples, engine, device)
    batch, micro = _sizes(both, samples)
    both = mixed(both, original, next(samples.batches(micro)))
    changes = augment(fit.specs, request.augment)
    unseen = HeldOut(both, Samples(held), micro)
    setting = Setting(both, samples, unseen, changes, batch, micro, request.seed, workers, progress, request.stopped)
    begun = time.monotonic()
    start = initial(setting)
    _check_finite(start)
    looking = time.monotonic() - begun
    curve = [TuningPoint(0.0, 0, float("nan"), float(start.errors.mean()), start.same)]
    best = _run(setting, start, request.length, curve, since, looking)
    moved = start.errors.mean() > EXACT and lower(best.errors, start.errors)
    gained = moved and better(best.errors, start.errors)
    workers.leave()
    model = with_constants(student, _arrays(best)) if moved else student
    tuning = Tuning(
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
    return model, tuning


def _check_finite(start: State) -> None:
    bad = int((~np.isfinite(start.errors)).sum())
    if bad:
        raise ModelError(
            f"nothing can be tuned: the error on {bad} of {len(start.errors)} held-out samples is infinite or not a number "
            "before the first step, so no step could be said to reduce it; check the outputs of both models there"
        )


def _run(
    setting: Setting, start: State, length: TuningLength, curve: list[TuningPoint], since: float, looking: float
) -> State:
    """Tune for ``length``, counted from ``since``.  ``looking``: seconds reserved for the last
    evaluation on the held-out samples."""
    if length.passes is not None:
        steps = max(round(length.passes * setting.fit.count / setting.batch), 1)
        schedule = pace(setting, start, steps, 0.0).schedule(steps)
        setting.progress.stage("tune", BAR)
        return cycle(setting, start, Clock(steps, 0.0), schedule, 0, curve, since)
    whole = LONGEST if length.seconds is None else length.seconds
    chosen = pace(setting, start, None, whole)
    left = setting.workers.agreed(max(whole - (time.monotonic() - since) - looking, 1.0))
    if length.seconds is not None:
        setting.progress.stage("tune", BAR)
        return cycle(setting, start, Clock(None, left), chosen.schedule(chosen.steps(left)), 0, curve, since)
    best = start
    for turn, share in enumerate(TURNS):
        setting.progress.stage("tune", BAR, turn + 1, len(TURNS))
        seconds = share * left
        after = cycle(setting, best, Clock(None, seconds), chosen.schedule(chosen.steps(seconds)), turn, curve, since)
        if not lower(after.errors, best.errors):
            return best
        best, chosen = after, chosen.later()
        if setting.stopped():
            return best
    return best


def _sizes(both: ModelPair, samples: Samples) -> tuple[int, int]:
    """(samples per step, samples per pass).  Small batches teach most per sample.  Large models need smaller ones."""
    limit = samples.dataset.batch_limit
    if limit is not None:
        return max(limit, min(8, samples.count)), limit
    numbers = sum(both.function.numbers(both.given_of(samples.fetch([0]))))
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
        return (f"{count} held-out samples are too few to tell a gain from chance: the weights stay unchanged; provide more",)
    if not moved:
        return ("tuning gained nothing on the held-out samples: the weights stay unchanged",)
    errors = f"from {start.errors.mean():.3g} to {best.errors.mean():.3g}"
    return (
        f"the error on {count} held-out samples falls {errors}, which may be chance: tune longer, or provide more",
    )
