"""Calibrate: the second moments of every layer's input, if the model has something to prune."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.budget.rounding import check_multiple
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.locks import lock_text
from onnxprune.coupling.loosened import loosened
from onnxprune.errors import BudgetError
from onnxprune.linear.gram import SecondMoments
from onnxprune.options import Options
from onnxprune.pipeline.compute import HERE, Compute
from onnxprune.pipeline.rounding import multiple
from onnxprune.pipeline.setup import Context
from onnxprune.progress import Progress


def calibrate(
    context: Context, options: Options, progress: Progress, compute: Compute = HERE
) -> Mapping[int, SecondMoments]:
    """The second moments per layer index, on the samples to fit.

    Cost: one pass of the original over these samples.

    Raises:
        BudgetError: the model has nothing to prune, or the requested multiple is too coarse.  The message gives the
            reason.
    """
    if not context.coupling.groups:
        raise BudgetError(f"nothing in this model can be pruned: {nothing_reason(context.coupling)}")
    check_multiple(
        multiple(options), [len(group) for group in context.coupling.groups if group.id not in context.frozen]
    )
    return compute.moments(context, options, progress)


def nothing_reason(coupling: Coupling) -> str:
    """Why nothing in a model can be cut: the locks of the first few sets of channels."""
    if coupling.held:
        first = dict.fromkeys(f"'{held.name}': {lock_text(coupling, held)}" for held in coupling.held[:3])
        more = loosened(coupling)
        return "; ".join([*first, *([] if more is None else [str(more)])])
    return "no operator has weights with channels"
