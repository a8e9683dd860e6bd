"""Rank the units of every group with each selector to try."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.budget.cost import original_macs
from onnxprune.budget.rounding import check_multiple
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.locks import lock_text
from onnxprune.coupling.loosened import loosened
from onnxprune.effort import EFFORTS, selectors, trial_samples
from onnxprune.errors import BudgetError
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import AUTO, Options
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.rounded import multiple
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress
from onnxprune.selection.base import Ranking, evidence
from onnxprune.selection.table import SELECTORS


def rank(
    context: Context, options: Options, progress: Progress, compute: Compute = HERE
) -> tuple[Mapping[str, tuple[Ranking, ...]], Mapping[int, SecondMoments]]:
    """Calibrate, and rank the units of every group with each selector to try.

    Returns the rankings per selector name, and the second moments per layer index.
    Cost: one pass of the original over the calibration data, plus the cost of the selectors.

    Raises:
        BudgetError: the model has nothing to prune, or the requested multiple is too coarse.  The message gives the
            reason.
    """
    if not context.coupling.groups:
        raise BudgetError(f"nothing in this model can be pruned: {nothing_reason(context.coupling)}")
    check_multiple(
        multiple(options), [len(group) for group in context.coupling.groups if group.id not in context.frozen]
    )
    moments = compute.moments(context, options, progress)
    effort = EFFORTS[options.effort]
    tried = selectors(effort, trial_macs(context))
    names = (options.select,) if options.select != AUTO else tried
    progress.stage("select", len(context.coupling.groups))
    rankings: dict[str, list[Ranking]] = {name: [] for name in names}
    for group in context.coupling.groups:
        known = evidence(context.coupling, group, context.layers, moments.grams)
        for name in names:
            rankings[name].append(SELECTORS[name](known, options.seed + group.id))
        progress.advance()
    return {name: tuple(ranked) for name, ranked in rankings.items()}, moments.grams


def trial_macs(context: Context) -> float:
    """Multiply-accumulates of one trial.

    A trial runs the original and the cut model, and its refit costs about the same again for each.
    """
    return float(4 * original_macs(context.coupling) * trial_samples(context.fit.count))


def nothing_reason(coupling: Coupling) -> str:
    """Why nothing in a model can be cut: the locks of the first few sets of channels."""
    if coupling.held:
        first = dict.fromkeys(f"'{held.name}': {lock_text(coupling, held)}" for held in coupling.held[:3])
        more = loosened(coupling)
        return "; ".join([*first, *([] if more is None else [str(more)])])
    return "no operator has weights with channels"
