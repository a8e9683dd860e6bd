"""The fit of one layer: sample rows, fit toward a prior, keep the result if it is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.system import fold_onto
from onnxprune.linear.threads import product_threads
from onnxprune.refit.fit import STRENGTHS, fit, fit_bias
from onnxprune.refit.job import LayerJob
from onnxprune.refit.sampled import RowSource
from onnxprune.refit.shared import FOLD_RIDGE
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Prior:
    """``base`` (g, n+1, o) float64: the plain slice.  ``weights``, of the same shape: the ridge pulls the fit toward them.
    ``strengths``: ridge strengths to try.
    """

    base: Array
    weights: Array
    strengths: tuple[float, ...] = STRENGTHS


def prior_of(job: LayerJob, gram: SecondMoments | None) -> Prior:
    """The original weights, folded onto the kept inputs with the moments ``gram`` of the original.

    The plain slice if there are no moments, or nothing to fold.
    """
    base, full = job.part.base(), job.part.full()
    if gram is None or full.shape[0] != base.shape[0] or full.shape[1] == base.shape[1]:
        return Prior(base, base)
    alive = job.part.kept_features
    outs = job.part.kept_outputs.reshape(full.shape[0], -1)
    folded = np.empty_like(base)
    with product_threads(base.shape[1]):
        for g in range(full.shape[0]):
            folded[g] = fold_onto(gram, g, job.constant, full[g][:, outs[g]], alive, FOLD_RIDGE)
    return Prior(base, folded)


def fit_layer(job: LayerJob, prior: Prior, source: RowSource, solution: Solution) -> tuple[Refitted | None, Prior]:
    """Fit the layer to its target on its current inputs, and keep the result if it is better.

    Returns (result, prior).  The result is ``None`` if the cut changed nothing before the layer, or if the rows of the
    pruned model do not match the original's.  The prior serves the next fit of the layer: it holds the strengths that
    are worth trying then.
    """
    # On a second fit, the layer keeps its weights if the new fit is no better than the plain slice.
    base = prior.base
    solution.begin(job, base)
    rows = source.rows(job)
    if rows is None:
        return None, prior
    with product_threads(base.shape[1]):
        fitted = fit(*rows, base, prior.weights, job.window, prior.strengths)
    later = Prior(base, prior.weights, fitted.strengths)
    if fitted.before == 0.0:
        return None, later
    if fitted.accepted:
        solution.keep(job, job.where_usable(fitted.weights, base))
    return Refitted(job.layer.node.label, fitted.before, fitted.after, fitted.accepted), later


def fit_shared(job: LayerJob, source: RowSource, solution: Solution) -> Refitted | None:
    """Fit only the bias of a layer that shares its matrix; see :mod:`onnxprune.refit.shared`."""
    base = job.part.base()
    solution.begin(job, base)
    rows = source.rows(job)
    if rows is None:
        return None
    usual = solution.weights[job.index]
    fitted = fit_bias(*rows, base, usual, job.window)
    if not fitted.accepted:
        return None
    solution.keep(job, job.where_usable(fitted.weights, usual))
    return Refitted(job.layer.node.label, fitted.before, fitted.after, True)
