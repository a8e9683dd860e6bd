"""Rank the units of every group with each selector to try."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.budget.cost import original_macs
from onnxprune.effort import EFFORTS, selectors, trial_samples
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking


def rank(
    context: Context,
    options: Options,
    grams: Mapping[int, SecondMoments],
    progress: Progress,
    compute: Compute = HERE,
) -> Mapping[str, tuple[Ranking, ...]]:
    """Rank the units of every group.  Returns the rankings per selector name, in the order of the groups.

    ``grams`` holds the second moments per layer index.  Cost: that of the selectors.
    """
    tried = selectors(EFFORTS[options.effort], trial_macs(context))
    names = (options.select,) if options.select != AUTO else tried
    progress.stage("select", len(context.coupling.groups))
    rankings = compute.ranked(context, options, grams, names, progress)
    return {name: tuple(one[name] for one in rankings) for name in names}


def trial_macs(context: Context) -> float:
    """Multiply-accumulates of one trial.

    A trial runs the original and the cut model, and its refit costs about the same again for each.
    """
    return float(4 * original_macs(context.coupling) * trial_samples(context.fit.count))
