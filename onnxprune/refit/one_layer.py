"""The fit of one layer: its rows, its prior, and what is kept of the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.linear.gram import SecondMoments, with_constant
from onnxprune.linear.solve import fold
from onnxprune.linear.threads import product_threads
from onnxprune.refit.fit import STRENGTHS, fit, fit_bias
from onnxprune.refit.job import Job
from onnxprune.refit.sampled import Sampler
from onnxprune.refit.shared import FOLD_RIDGE
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Prior:
    """``weights`` that a fit is drawn toward, (g, n+1, o), and the ``strengths`` of the ridge that are tried."""

    weights: Array
    strengths: tuple[float, ...] = STRENGTHS


def prior_of(job: Job, gram: SecondMoments | None) -> Prior:
    """All of the original weights, folded onto the kept inputs with the original's moments; the plain slice where
    there are no moments, or nothing to fold."""
    base, full = job.base, job.part.full()
    if gram is None or full.shape[0] != base.shape[0] or full.shape[1] == base.shape[1]:
        return Prior(base)
    taps = (full.shape[1] - 1) // len(job.part.kept_inputs)
    alive = np.flatnonzero(np.append(np.repeat(job.part.kept_inputs, taps), True))
    outs = job.part.kept_outputs.reshape(full.shape[0], -1)
    found = np.empty_like(base)
    with product_threads(base.shape[1]):
        for g in range(full.shape[0]):
            found[g] = fold(with_constant(gram.of(g), job.constant), full[g][:, outs[g]], alive, FOLD_RIDGE)
    return Prior(found)


def fit_layer(job: Job, prior: Prior, sampler: Sampler, solution: Solution) -> tuple[Refitted | None, Prior]:
    """Fit the layer to its target on its inputs as they are now, and keep the result where it is better.

    ``None`` where nothing before the layer was changed, or where its rows are not those of the original.  Also the
    prior for when the layer is fitted again, with the strengths that are then worth trying.
    """
    # A layer fitted again keeps what it has where the new fit is no better than the plain slice.
    solution.weights.setdefault(job.index, job.base)
    rows = sampler.rows(job)
    if rows is None:
        return None, prior
    with product_threads(job.base.shape[1]):
        found = fit(*rows, job.base, prior.weights, job.window, prior.strengths)
    later = Prior(prior.weights, found.strengths)
    if found.before == 0.0:
        return None, later
    if found.accepted:
        solution.keep(job, job.where_usable(found.weights, job.base))
    return Refitted(job.layer.node.label, found.before, found.after, found.accepted), later


def fit_shared(job: Job, sampler: Sampler, solution: Solution) -> Refitted | None:
    """Fit the bias only, of a layer whose matrix is settled; see :mod:`onnxprune.refit.shared`."""
    solution.weights.setdefault(job.index, job.base)
    rows = sampler.rows(job)
    if rows is None:
        return None
    usual = solution.weights[job.index]
    found = fit_bias(*rows, job.base, usual, job.window)
    if found.accepted:
        solution.keep(job, job.where_usable(found.weights, usual))
    return Refitted(job.layer.node.label, found.before, found.after, True) if found.before else None
