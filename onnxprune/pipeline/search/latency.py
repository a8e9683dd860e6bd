"""The widest model within the requested latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.budget.cost import Costing, sizes
from onnxprune.budget.excess import joint
from onnxprune.errors import BudgetError
from onnxprune.latency.stopwatch import compare_latency
from onnxprune.pipeline.allocation import Allocation, narrowest, within
from onnxprune.pipeline.pricing import Pricing
from onnxprune.pipeline.search.trials import Chosen, Trials
from onnxprune.surgery.cut import cut
from onnxprune.surgery.sweep import sweep

#: Maximum corrections of the target, the difference of targets below which to stop, and the share of the latency that
#: may remain unused.
CORRECTIONS, FINEST, ROOM = 8, 0.01, 0.04


def by_latency(trials: Trials, pricing: Pricing, wanted: float, others: Sequence[tuple[Costing, float]]) -> Chosen:
    """The widest cut whose latency is at most the share ``wanted``, and that meets ``others`` (cost, target).

    The user's table stands for another machine, so it decides alone.  Otherwise we start with this machine's table,
    measure the whole model, and correct the target until the measured ratio is just below ``wanted``.  The target
    stays between one known to be fast enough and one known to be too slow, so even a wrong table does no harm.
    """
    context, cost = trials.context, pricing.time
    full = cost(sizes(context.coupling))
    if trials.options.latency_table is not None:
        return trials.only(Allocation(pricing, within(pricing, *joint([(cost, wanted * full), *others]))))
    trials.progress.stage("latency", CORRECTIONS)
    feeds = next(context.fit.batches(1))
    least = cost(narrowest(pricing)) / full
    low, high = least, 1.0
    best: Allocation | None = None
    target, ratio = max(wanted, least), 1.0
    for _ in range(CORRECTIONS):
        allocation = Allocation(pricing, within(pricing, *joint([(cost, target * full), *others])))
        plain = sweep(cut(context.coupling, allocation.keep(context.coupling)), context.loaded.proto)
        ratio = compare_latency(context.loaded.proto, plain, feeds, context.engine)[0].ratio
        trials.progress.advance()
        if ratio <= wanted:
            if best is not None and np.array_equal(allocation.counts, best.counts):
                # The other budgets limit the widths: a larger latency would not change them.
                break
            low, best = target, allocation
        else:
            high = target
        if wanted * (1 - ROOM) <= ratio <= wanted or high - low < FINEST:
            break
        guess = max(target * (1 - ROOM / 2) * wanted / ratio, target / 2)
        between = (low + high) / 2 if best is not None else least
        target = guess if low < guess < high else between
    if best is None:
        raise BudgetError(
            f"--latency {wanted:g} cannot be met: the narrowest model tried takes {ratio:.2f} of the original's time; allow "
            "more"
        )
    return trials.only(best)
