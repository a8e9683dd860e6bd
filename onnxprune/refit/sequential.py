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

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.moments import batch_size, blocks
from onnxprune.engine.release import return_memory
from onnxprune.engine.segment import Runner
from onnxprune.engine.store import Store
from onnxprune.graph.uses import Use
from onnxprune.graph.view import Graph
from onnxprune.progress import Progress
from onnxprune.refit.hidden import stretches, taking_part
from onnxprune.refit.job import LayerJob, jobs_of
from onnxprune.refit.kept_targets import PART, KeptTargets
from onnxprune.refit.one_layer import fit_layer, fit_shared, prior_of
from onnxprune.refit.pair import RunnerPair
from onnxprune.refit.rounds import Refinement
from onnxprune.refit.sampled import Sampler
from onnxprune.refit.shared import fit_together, shared
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted
from onnxprune.verify.guided import PICKING, choosing

Array = np.ndarray
#: Bytes of one batch: inputs and outputs of layers.
BATCH_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Refit:
    """``weights``: new constants per use, in pruned shapes.  ``layers``: errors of each layer before and after its fit."""

    weights: Mapping[Use, Array]
    layers: tuple[Refitted, ...]


def refit(
    given: Calibrated, keep: Array, pruned: Graph, rounds: int, progress: Progress, kept: KeptTargets | None = None
) -> Refit:
    """Refit every layer of ``pruned``, the graph cut by ``keep``.

    ``kept``: activations of the original that earlier refits to the same samples kept.  They do not change the result.
    Cost: one pass of the original, unless it is kept, and one of the pruned model over the samples (each node runs once
    per batch).  Per layer rows·n² for the moments and n³/3 per strength, with n = kept inputs · taps.  Each of ``rounds`` of refinement
    costs two more fits and about ten passes of the two layers.
    """
    coupling = given.coupling
    jobs = jobs_of(coupling, keep, given.layers, pruned)
    alike = shared(coupling, given.layers)
    hidden = stretches(coupling, [layer for layer in given.layers if layer.index not in alike]) if rounds else {}
    solution = Solution(alike, {*alike, *taking_part(hidden)})
    for members in dict.fromkeys(alike.values()):
        fit_together([jobs[layer.index] for layer in members], given.grams, solution)
    fitted: list[Refitted] = []
    progress.stage("refit", len(jobs))
    size = _size(given)
    # Not a list: it would keep all samples in memory, in addition to the store.
    batches = partial(given.dataset.batches, size)
    original = None if kept is None else kept.runner(given, jobs.values(), batches)
    with Store(given.memory if original is None else given.memory - 2 * (given.memory // PART)) as store:
        if original is None:
            original = Runner(coupling.graph, coupling.facts, store, "o:", batches, given.engine)
        small = Runner(pruned, coupling.facts, store, "p:", batches, given.engine)
        pair = RunnerPair(original, small, choosing(coupling, keep, PICKING), frozenset() if kept is None else kept.values)
        pair.pruned.replaced = solution.constants
        together = blocks(given.dataset, size)
        sampler = Sampler(coupling, pair, together, given.dataset.count, given.rows, given.seed, given.refining)
        refinement = Refinement(jobs, hidden, sampler, solution, rounds)
        for job in pair.in_order(list(jobs.values()), hidden):
            result = fit_shared(job, sampler, solution) if job.index in alike else _fit(job, given, refinement)
            fitted += [result] if result is not None else []
            progress.advance()
            # The rows of one layer are some hundred MB.
            return_memory()
    return Refit(solution.constants, tuple(fitted))


def _fit(job: LayerJob, given: Calibrated, refinement: Refinement) -> Refitted | None:
    prior = prior_of(job, given.grams.get(job.index))
    fitted, prior = fit_layer(job, prior, refinement.sampler, refinement.solution)
    if fitted is None or not refinement.hidden.get(job.index):
        return fitted
    return refinement.improve(job, fitted, prior)


def _size(given: Calibrated) -> int:
    """Samples per batch: at most a tenth of all, so that some batches can be held out."""
    biggest = sorted({v for layer in given.layers for v in (layer.data, layer.output)})
    return max(1, min(batch_size(given.coupling, biggest, BATCH_BYTES), -(-given.dataset.count // 10)))
