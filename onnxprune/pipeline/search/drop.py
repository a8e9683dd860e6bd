"""The smallest model within the allowed drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onnxprune.budget.cost import sizes
from onnxprune.errors import BudgetError
from onnxprune.pipeline.allocation import Allocation, lossless, narrowest, past_lossless, widest, within
from onnxprune.pipeline.candidate import Candidate
from onnxprune.pipeline.pricing import Pricing
from onnxprune.pipeline.search.trials import Chosen, Trials
from onnxprune.progress import Turn

Array = np.ndarray
#: Maximum halvings of the interval of kept MACs, and maximum full refits after them.
HALVINGS, FULL = 5, 3
#: The smallest share of MACs to search, and the difference of shares below which the search stops.
MIN_KEPT, FINEST = 0.02, 0.01
#: The factor on the kept MACs for the next step if there is no better guess.
STEP = 0.9


def by_drop(trials: Trials, pricing: Pricing) -> Chosen:
    """Search for the smallest model with an allowed drop.

    First remove what costs nothing.  Then bisect the interval of kept MACs with trials.  Then refine the result with
    full attempts, and go a step further if possible.  If no cut to widths that run fast stays within the drop, search
    again among all widths: fast widths are a preference, the drop is a bound.
    Cost: a few full attempts, up to ``HALVINGS`` trials, and up to ``FULL`` full attempts; at most twice.

    Raises:
        BudgetError: no cut stays within the drop.
    """
    with trials.sharing() as sharing:
        return _by_drop(sharing, pricing)


def _by_drop(trials: Trials, pricing: Pricing) -> Chosen:
    if np.array_equal(narrowest(pricing), sizes(trials.context.coupling)):
        raise BudgetError("nothing may be cut: the narrowest model allowed is the original")
    free, begun = _begin(trials, pricing)
    best, priced, tried = _bisected(trials, pricing, free, begun[-1])
    path = [*begun, *tried]
    if not _cuts(trials, best) and len(pricing.tiers) > 1:
        best, priced, tried = _bisected(trials, replace(pricing, tiers=pricing.tiers[-1:]), free, begun[-1])
        path += tried
    steps = [trials.step(candidate) for candidate in path]
    if not _cuts(trials, best):
        least = min((s for s in steps if s.macs_ratio < 1), key=lambda s: s.drop, default=steps[0])
        raise BudgetError(
            f"no cut stays within a drop of {allowed(trials):g} ({best.drop.metric}); the smallest drop was "
            f"{least.drop:.4g}, at {least.macs_ratio:.1%} of the MACs{_unsure(trials, least.drop)}: allow more with "
            "--max-drop, or set a size with --macs"
        )
    return Chosen(best, priced, tuple(sorted(steps, key=lambda s: -s.macs_ratio)))


def _unsure(trials: Trials, drop: float) -> str:
    """Why a drop within the limit does not do."""
    if drop > allowed(trials):
        return ""
    return ", but the held-out samples are too few to be sure of it (--samples gives more)"


def _cuts(trials: Trials, candidate: Candidate) -> bool:
    return not candidate.keep.all() and _allows(trials, candidate)


def _bisected(
    trials: Trials, pricing: Pricing, free: Array, start: Candidate
) -> tuple[Candidate, Pricing, list[Candidate]]:
    """(the best candidate, the prices after it, all new candidates); ``free`` and ``start``: the bound on the widths.

    The best one is ``start`` if no other is allowed.
    """
    low = max(trials.cost(narrowest(pricing)) / trials.full, MIN_KEPT)
    high = trials.cost(free) / trials.full

    def allocation(share: float) -> Allocation:
        return Allocation(pricing, np.asarray(np.minimum(within(pricing, trials.cost, share * trials.full), free)))

    halvings = _halvings(high - low)
    turns = halvings + FULL * trials.finer
    best, failed = start, low
    path: list[Candidate] = []
    losses: dict[float, float] = {}
    for turn in range(1, 1 + halvings):
        middle = (failed + high) / 2
        candidate = trials.trial(allocation(middle), Turn(trials.progress, turn, turns))
        if trials.finer:
            losses[middle] = trials.evaluator.output_loss(candidate.model)
        path.append(candidate)
        if _allows(trials, candidate):
            best, high = candidate, middle
        else:
            failed = middle
    if trials.finer:
        share = high if best is not start else failed
        pricing = trials.sharp(pricing, trials.cost, share * trials.full)
        refined = _refine(trials, allocation, trials.cost(narrowest(pricing)), share, high, losses, (halvings, turns))
        path += refined
        best = next((candidate for candidate in reversed(refined) if _allows(trials, candidate)), best)
    return best, pricing, path


def allowed(trials: Trials) -> float:
    """The largest drop that the user allows."""
    largest = trials.options.budget("max_drop")
    assert largest is not None
    return largest


def _allows(trials: Trials, candidate: Candidate) -> bool:
    largest = allowed(trials)
    return candidate.drop.value <= largest and trials.evaluator.cautious(candidate.drop, candidate.model) <= largest


def _begin(trials: Trials, pricing: Pricing) -> tuple[Array, list[Candidate]]:
    """Upper bound on widths for the search, and the candidates tried to find it (the last is the bound).

    Dead channels leave.  Live channels also leave to reach fast widths, if the drop allows it.
    """
    ways = (*past_lossless(pricing), lossless(pricing), widest(pricing))
    starts = {counts.tobytes(): counts for counts in ways}
    tried: list[Candidate] = []
    for turn, counts in enumerate(starts.values(), start=1):
        tried.append(trials.attempt(Allocation(pricing, counts), Turn(trials.progress, turn, len(starts), "free")))
        if _allows(trials, tried[-1]):
            break
    return tried[-1].counts, tried


def _refine(
    trials: Trials,
    allocation: Callable[[float], Allocation],
    least: float,
    share: float,
    high: float,
    losses: Mapping[float, float],
    turns: tuple[int, int],
) -> list[Candidate]:
    """Make up to ``FULL`` full attempts, starting at ``share`` of the MACs.  Returns the candidates in order.

    ``allocation`` gives the one for a share of the MACs; no allocation has fewer than ``least`` MACs.
    Each allowed candidate is smaller than the allowed ones before it.  ``high`` is the smallest share known to be
    allowed.  ``losses`` holds the output loss of the trials, by share.  ``turns`` is (turns done, turns in total).
    """
    done, of = turns
    failed: float | None = None
    refined: list[Candidate] = []
    for turn in range(1, 1 + FULL):
        candidate = trials.attempt(allocation(share), Turn(trials.progress, done + turn, of))
        refined.append(candidate)
        if _allows(trials, candidate):
            high = share
        else:
            failed = share
        if failed is not None:
            share = (failed + high) / 2
        elif share in losses:
            # Continue to the share where a full refit should lose as much as the trial lost here.
            share = _reached(losses, share, trials.evaluator.output_loss(candidate.model))
        else:
            share *= STEP
        if abs(high - share) < FINEST or share * trials.full < least:
            break
    return refined


def _reached(losses: Mapping[float, float], share: float, full: float) -> float:
    """The share of MACs at which a full refit should lose as much as the trial lost at ``share``.

    ``losses`` holds the output loss of trials, by share.  ``full`` is the loss of the full refit at ``share``.  The
    estimate assumes that a full refit divides the loss of a trial by the same factor everywhere, and that the loss is
    exponential in the share.

    >>> round(_reached({0.6: 0.01, 0.4: 0.04}, 0.6, 0.005), 2), _reached({0.6: 0.01}, 0.6, 0.005)
    (0.5, 0.54)
    """
    shares = np.asarray(sorted(losses, reverse=True))
    # The loss may be zero or infinite.
    logs = np.log(np.clip([losses[s] for s in shares], 1e-12, 1e12))
    logs = np.maximum.accumulate(logs - logs[shares == share])
    gain = -float(np.log(np.clip(full, 1e-12, 1e12) / np.clip(losses[share], 1e-12, 1e12)))
    if gain <= 0 or logs[-1] <= 0:
        return share * STEP
    if gain <= logs[-1]:
        return float(np.interp(gain, logs, shares))
    return float(max(share - gain * (share - shares[-1]) / logs[-1], share / 2))


def _halvings(width: float) -> int:
    """The number of halvings until an interval of MAC shares is narrower than ``FINEST``."""
    return next((done for done in range(HALVINGS) if width / 2 ** (done + 1) < FINEST), HALVINGS)
