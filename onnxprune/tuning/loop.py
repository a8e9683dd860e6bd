"""The training loop: batches, gradients, and an occasional evaluation on held-out samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxprune.calibration.dataset import Feeds
from onnxprune.progress import Progress
from onnxprune.result import TuningPoint
from onnxprune.tuning.augment import Augment
from onnxprune.tuning.chance import better, lower
from onnxprune.tuning.clock import Clock
from onnxprune.tuning.held_out import HeldOut
from onnxprune.tuning.pair import ModelPair, samples_in
from onnxprune.tuning.recipe import Schedule
from onnxprune.tuning.samples import Samples, endless
from onnxprune.tuning.workers import Workers

Array = np.ndarray
Weights = Mapping[str, Tensor]
#: Maximum evaluations on the held-out samples in one cycle, after the first, and their maximum share of the time.
LOOKS, LOOKING = 10, 0.05
#: Below this error two models are the same but for rounding: a divergence in float32 is exact to some 1e-7.
EXACT = 1e-6
#: If training ends no better than it began: the shares of the way to try.
PARTS = (0.5, 0.25, 0.125)
#: Units of the progress bar.
BAR = 1000


@dataclass(frozen=True, eq=False)
class Setting:
    """``fit`` and ``held`` are disjoint.  ``batch``: samples per step, over all processes.  ``micro``: samples per pass.

    ``stopped`` is called before every step.
    """

    pair: ModelPair
    fit: Samples
    held: HeldOut
    augment: Augment
    batch: int
    micro: int
    seed: int
    workers: Workers
    progress: Progress
    stopped: Callable[[], bool]


@dataclass(frozen=True, eq=False)
class State:
    """``weights`` and their ``errors`` on the held-out samples, (samples,).

    ``same``: share of these samples with the original's class.
    """

    weights: dict[str, Tensor]
    errors: Array
    same: float | None


def initial(setting: Setting) -> State:
    weights = {name: value.detach().clone() for name, value in setting.pair.function.parameters.items()}
    return _look(setting, weights)


def cycle(
    setting: Setting,
    start: State,
    clock: Clock,
    schedule: Schedule,
    turn: int,
    curve: list[TuningPoint],
    since: float,
) -> State:
    """Train for one cosine from ``start``.

    Returns the averaged weights at the end, or earlier ones that are better by more than chance.  If these have no lower
    error than ``start``, part of the way there.  Appends to ``curve``, with times counted from ``since``.
    """
    pair, workers = setting.pair, setting.workers
    optimizer = pair.optimizer()
    optimizer.restart(start.weights)
    generator = np.random.default_rng((setting.seed, turn))
    rows = endless(setting.fit.count, setting.batch, generator)
    best, step, shown, due = start, 0, 0, 1 / LOOKS
    losses: list[float] = []
    clock.start()
    while True:
        share = workers.agreed(1.0 if setting.stopped() else clock.share(step))
        if share >= min(due, 1.0):
            looked = clock.elapsed()
            if step:
                state = _look(setting, optimizer.averaged())
                best = state if not better(best.errors, state.errors) else best
                _draw(setting, curve, state, losses, step, since)
            due = share + workers.agreed(max(1 / LOOKS, clock.part(clock.elapsed() - looked) / LOOKING))
        if share >= 1:
            if step and start.errors.mean() > EXACT and not lower(best.errors, start.errors):
                best = _part_way(setting, start, optimizer.averaged())
                curve.append(replace(curve[-1], held=float(best.errors.mean()), same_top1=best.same))
            return best
        losses.append(one_step(setting, next(rows), generator))
        optimizer.move(schedule.rate(share))
        step += 1
        now = int(clock.share(step) * BAR)
        setting.progress.advance(max(now - shown, 0))
        shown = max(now, shown)


def _part_way(setting: Setting, start: State, end: Weights) -> State:
    """The best of ``start`` and some weights between it and ``end``: few samples teach too much of themselves.

    Between a model and the same model after training, the error is often lower than at both (Wortsman et al., arXiv
    2109.01903).  A network of 50 layers, trained on 308 pictures in steps too large: 0.97, 1.10 at the end,
    0.93 halfway.
    """
    between = [{n: torch.lerp(w, end[n], share) for n, w in start.weights.items()} for share in PARTS]
    return min((start, *(_look(setting, weights) for weights in between)), key=lambda state: float(state.errors.mean()))


def _look(setting: Setting, weights: dict[str, Tensor]) -> State:
    return State(weights, *setting.held.look(weights))


def _draw(
    setting: Setting, curve: list[TuningPoint], state: State, losses: list[float], step: int, since: float
) -> None:
    done = curve[-1].samples if curve else 0
    recent = float(np.mean(losses)) if losses else float("nan")
    error = float(state.errors.mean())
    seen = done + len(losses) * setting.batch
    curve.append(TuningPoint(time.monotonic() - since, seen, recent, error, state.same))
    agreement = "" if state.same is None else f", same top-1 {state.same:.1%}"
    setting.progress.show(f"loss {recent:.3g}, held-out error {error:.3g}{agreement}")
    losses.clear()


def one_step(setting: Setting, rows: list[int], generator: np.random.Generator) -> float:
    """Compute the gradients of a batch's mean error, over all processes.  Returns the mean error."""
    parameters = list(setting.pair.function.parameters.values())
    total = torch.zeros(())
    for begin in range(0, len(rows), setting.micro):
        feeds = setting.augment(setting.fit.fetch(rows[begin : begin + setting.micro]), generator)
        share = setting.workers.share(range(samples_in(feeds)))
        if not share and setting.workers.size > 1:
            continue
        mine = _rows_of(feeds, share) if setting.workers.size > 1 else feeds
        errors = setting.pair.losses(mine)
        error = errors.sum() / (len(rows) if samples_in(feeds) > 1 else max(len(rows) // setting.micro, 1))
        if error.requires_grad:
            error.backward()
        total = total + error.detach().cpu()
    if setting.workers.size > 1:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        setting.workers.summed([*(p.grad for p in parameters if p.grad is not None), total])
    return float(total)


def _rows_of(feeds: Feeds, rows: list[int]) -> Feeds:
    return {name: array[rows] if array.ndim else array for name, array in feeds.items()}
