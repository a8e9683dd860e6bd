"""The smallest cut of a model whose drop is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.errors import BudgetError
from onnxprune.pipeline.allocation import Pricing, lossless, narrowest, past_lossless, widest, within
from onnxprune.pipeline.candidate import Candidate
from onnxprune.pipeline.search.trials import Found, Trials
from onnxprune.progress import Turn

Array = np.ndarray
#: Halvings of the interval of kept MACs, and refits in full that follow them.
HALVINGS, FULL = 5, 3
#: Kept shares of the MACs below which no drop is searched for, and that are not told apart.
LEAST_KEPT, FINEST = 0.02, 0.01
#: By how much the kept MACs go down where nothing tells how much further they may.
STEP = 0.9


def by_drop(trials: Trials, pricing: Pricing) -> Found:
    """Cut what costs nothing, halve the interval of kept MACs below it by quick refits, then refit in full where
    they lead, and a step further.

    Cost: a few attempts in full for the beginning, up to ``HALVINGS`` quick ones, and ``FULL`` in full.

    Raises:
        BudgetError: where no cut stays within the drop.
    """
    free, begun = _begin(trials, pricing)
    low = max(trials.cost(narrowest(pricing)) / trials.full, LEAST_KEPT)
    high = trials.cost(free) / trials.full

    def counts(share: float) -> Array:
        return np.asarray(np.minimum(within(pricing, trials.cost, share * trials.full), free))

    halvings = _halvings(high - low)
    turns = halvings + FULL * trials.finer
    best, failed, path = begun[-1], low, list(begun)
    damages: dict[float, float] = {}
    for turn in range(1, 1 + halvings):
        middle = (failed + high) / 2
        candidate = trials.trial(pricing, counts(middle), Turn(trials.progress, turn, turns))
        if trials.finer:
            damages[middle] = trials.evaluator.damage(candidate.model)
        path.append(candidate)
        if _allows(trials, candidate):
            best, high = candidate, middle
        else:
            failed = middle
    if trials.finer:
        share = high if best is not begun[-1] else failed
        found = _refine(trials, pricing, counts, share, high, damages, (halvings, turns))
        path += found
        best = next((candidate for candidate in reversed(found) if _allows(trials, candidate)), best)
    steps = [trials.step(candidate) for candidate in path]
    if best.keep.all() or not _allows(trials, best):
        least = min((s for s in steps if s.macs_ratio < 1), key=lambda s: s.drop, default=steps[0])
        raise BudgetError(
            f"no cut stays within a drop of {allowed(trials):g} ({best.drop.metric}); the smallest seen "
            f"is {least.drop:.4g}, at {least.macs_ratio:.1%} of the MACs: allow more with --max-drop, or set a "
            "size with --macs"
        )
    return Found(best, pricing, tuple(sorted(steps, key=lambda s: -s.macs_ratio)))


def allowed(trials: Trials) -> float:
    """The largest drop that the user allows."""
    found = trials.options.asked("max_drop")
    assert found is not None
    return found


def _allows(trials: Trials, candidate: Candidate) -> bool:
    return candidate.drop.value <= allowed(trials)


def _begin(trials: Trials, pricing: Pricing) -> tuple[Array, list[Candidate]]:
    """Widths that no later cut exceeds, and what was tried for them, that of these widths last.

    Dead channels go, with what else must go for widths that run fast, as far as the drop allows that.
    """
    ways = (*past_lossless(pricing), lossless(pricing), widest(pricing))
    starts = {counts.tobytes(): counts for counts in ways}
    tried: list[Candidate] = []
    for turn, counts in enumerate(starts.values(), start=1):
        tried.append(trials.attempt(pricing, counts, Turn(trials.progress, turn, len(starts), "free")))
        if _allows(trials, tried[-1]):
            break
    return tried[-1].counts, tried


def _refine(
    trials: Trials,
    pricing: Pricing,
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
        candidate = trials.attempt(pricing, counts(share), Turn(trials.progress, done + turn, of))
        found.append(candidate)
        if _allows(trials, candidate):
            high = share
        else:
            failed = share
        if failed is not None:
            share = (failed + high) / 2
        elif share in damages:
            # A full refit may go on to where it does as much damage as the trial did here.
            share = _reached(damages, share, trials.evaluator.damage(candidate.model))
        else:
            share *= STEP
        if abs(high - share) < FINEST or share * trials.full < trials.cost(narrowest(pricing)):
            break
    return found


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
