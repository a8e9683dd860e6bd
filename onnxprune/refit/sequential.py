"""Sequential refit: fits every linear layer, in graph order, from inputs in the pruned model to outputs of the original.

The original and the pruned graph run side by side over all calibration batches (:mod:`onnxprune.refit.pair`).  If the
input of a layer differs from the original's, rows of the pruned input X and of the target Y are sampled.  The new
weights minimise ‖XW − Y‖² + λ‖D(W − W₀)‖².  W₀ are the original weights, folded onto the kept inputs with the original's
moments.  λ is the best of a few on held-out rows.  If no λ beats both W₀ and the plain slice there, the better of these
two stays.  Later layers see the refitted outputs of earlier ones, so they correct errors instead of adding to them.

Some nodes pick elements (a TopK, a NonMaxSuppression).  There the original picks for both models: a row in the pruned
model without its counterpart in the original would have no target.

Layers that share a matrix get one common fit (:mod:`onnxprune.refit.shared`).

If a layer reads a hidden one (:mod:`onnxprune.refit.hidden`), the hidden layer is then refined against the reader's
residual (:mod:`onnxprune.refit.rounds`), and the reader is fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.release import return_memory
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph
from onnxprune.linear.form import Layer
from onnxprune.progress import Progress
from onnxprune.refit.hidden import HiddenLayer, stretches, taking_part
from onnxprune.refit.job import LayerJob, jobs_of
from onnxprune.refit.kept_targets import KeptTargets
from onnxprune.refit.one_layer import Prior, fit_layer, fit_shared, prior_of
from onnxprune.refit.rounds import Refinement
from onnxprune.refit.sampled import RowSource
from onnxprune.refit.sampling import sampling
from onnxprune.refit.shared import fit_together, shared
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted

Array = np.ndarray
#: (layer, result of its fit, its prior) -> the result after its hidden layers are refined.
Improve = Callable[[LayerJob, Refitted, Prior], Refitted]


@dataclass(frozen=True, eq=False)
class Refit:
    """``weights``: new constants per use, in pruned shapes.  ``layers``: errors of each layer before and after its fit."""

    weights: Mapping[Use, Array]
    layers: tuple[Refitted, ...]


@dataclass(frozen=True, eq=False)
class Fits:
    """The layers to fit, and the weights found so far.

    ``jobs``: by node index, in graph order.  ``shared``: see :func:`onnxprune.refit.shared.shared`.  ``hidden``: see
    :func:`onnxprune.refit.hidden.stretches`; empty without rounds of refinement.
    """

    jobs: Mapping[int, LayerJob]
    shared: Mapping[int, tuple[Layer, ...]]
    hidden: Mapping[int, Sequence[HiddenLayer]]
    solution: Solution


def fits_of(coupling: Coupling, layers: Sequence[Layer], keep: Array, pruned: Graph, rounds: int = 0) -> Fits:
    """The fits of ``pruned``, the graph cut by ``keep``, before the first of them."""
    alike = shared(coupling, layers)
    hidden = stretches(coupling, [layer for layer in layers if layer.index not in alike]) if rounds else {}
    solution = Solution(alike, {*alike, *taking_part(hidden)})
    return Fits(jobs_of(coupling, keep, layers, pruned), alike, hidden, solution)


def refit(
    given: Calibrated, keep: Array, pruned: Graph, rounds: int, progress: Progress, kept: KeptTargets | None = None
) -> Refit:
    """Refit every layer of ``pruned``, the graph cut by ``keep``.

    ``kept``: activations of the original that earlier refits to the same samples kept.  They do not change the result.
    Cost: one pass of the original, unless it is kept, and one of the pruned model over the samples (each node runs once
    per batch).  Per layer rows·n² for the moments and n³/3 per strength, with n = kept inputs · taps.  Each of ``rounds`` of refinement
    costs two more fits and about ten passes of the two layers.
    """
    fits = fits_of(given.coupling, given.layers, keep, pruned, rounds)
    with sampling(given, keep, pruned, fits.jobs.values(), fits.solution.constants, kept) as sampler:
        refinement = Refinement(fits.jobs, fits.hidden, sampler, fits.solution, rounds)
        return fit_all(fits, given, sampler, progress, refinement.improve)


def unrefined(_: LayerJob, fitted: Refitted, __: Prior) -> Refitted:
    """The result of a fit as it is, for a refit without refinement."""
    return fitted


def fit_all(
    fits: Fits, given: Calibrated, source: RowSource, progress: Progress, improve: Improve = unrefined
) -> Refit:
    """Fit the layers in graph order, to rows of ``source``, which reads the weights of ``fits.solution``.

    ``improve``: what follows the fit of a layer with hidden layers before it.
    """
    jobs, solution = fits.jobs, fits.solution
    for members in dict.fromkeys(fits.shared.values()):
        fit_together([jobs[layer.index] for layer in members], given.grams, solution)
    fitted: list[Refitted] = []
    progress.stage("refit", len(jobs))
    for job in source.in_order(list(jobs.values()), fits.hidden):
        if job.index in fits.shared:
            result = fit_shared(job, source, solution)
        else:
            result, prior = fit_layer(job, prior_of(job, given.grams.get(job.index)), source, solution)
            if result is not None and fits.hidden.get(job.index):
                result = improve(job, result, prior)
        fitted += [result] if result is not None else []
        progress.advance()
        # The rows of one layer are some hundred MB.
        return_memory()
    return Refit(solution.constants, tuple(fitted))
