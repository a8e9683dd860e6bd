"""Sequential refit: every linear layer, in graph order, from the pruned network's inputs to the original's outputs.

The original and the pruned graph run side by side over all calibration batches (:mod:`onnxprune.refit.pair`).  At each
layer whose input differs from the original's, rows of the pruned input X and of the target Y are sampled; the new
weights minimise ‖XW − Y‖² + λ‖D(W − W₀)‖², where W₀ are the weights folded on the original inputs.  λ is the best of a
few on held-out rows; where no λ beats W₀ and the plain slice there, the better of those two stays.  Because later
layers see the refitted outputs of earlier ones, errors are corrected instead of adding up.

Where a node picks some elements (a TopK, a NonMaxSuppression), the original decides for both which go on and how many:
rows that others were picked for have no target.

Layers that share a matrix are given one together (:mod:`onnxprune.refit.shared`).

Where a layer reads a hidden one (:mod:`onnxprune.refit.hidden`), the hidden layer is then refined against what the
reader still misses (:mod:`onnxprune.refit.rounds`), and the reader fitted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.calibration.moments import batch_size, blocks
from onnxprune.engine.segment import Runner
from onnxprune.engine.store import Store
from onnxprune.graph.view import Graph
from onnxprune.progress import Progress
from onnxprune.refit.hidden import stretches
from onnxprune.refit.job import Job, jobs_of
from onnxprune.refit.one_layer import fit_layer, fit_shared, prior_of
from onnxprune.refit.pair import Pair
from onnxprune.refit.rounds import Refinement
from onnxprune.refit.sampled import Sampler
from onnxprune.refit.shared import fit_together, shared
from onnxprune.refit.solution import Solution
from onnxprune.result import Refitted
from onnxprune.surgery.edit import Use
from onnxprune.verify.guided import PICKING, choosing

Array = np.ndarray
#: Bytes of one batch's inputs and outputs of layers.
BATCH_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Refit:
    """New constants per use (pruned shapes), and what each layer's fit was worth."""

    weights: Mapping[Use, Array]
    layers: tuple[Refitted, ...]


def refit(given: Calibrated, keep: Array, pruned: Graph, rounds: int, progress: Progress) -> Refit:
    """Refit every layer of ``pruned``, the graph cut by ``keep``.

    Cost: one pass of the original and one of the pruned model over the samples (each node runs once per batch),
    plus, per layer, rows·n² for the moments and n³/3 per strength, n = kept inputs · taps; ``rounds`` of
    refinement of the hidden layers cost two more fits and about ten passes of the two layers each.
    """
    coupling = given.coupling
    jobs = jobs_of(coupling, keep, given.layers, pruned)
    alike = shared(coupling, given.layers)
    solution = Solution(alike)
    for members in dict.fromkeys(alike.values()):
        fit_together([jobs[layer.index] for layer in members], given.grams, solution)
    hidden = stretches(coupling, [layer for layer in given.layers if layer.index not in alike]) if rounds else {}
    fitted: list[Refitted] = []
    progress.stage("refit", len(jobs))
    with Store(given.memory) as store:
        size = _size(given)
        pair = _pair(given, keep, pruned, store, size)
        pair.pruned.replaced = solution.constants
        together = blocks(given.dataset, size)
        sampler = Sampler(coupling, pair, together, given.dataset.count, given.rows, given.seed)
        refinement = Refinement(jobs, hidden, sampler, solution, rounds)
        for job in pair.in_order(list(jobs.values()), hidden):
            found = fit_shared(job, sampler, solution) if job.index in alike else _fit(job, given, refinement)
            fitted += [found] if found is not None else []
            progress.advance()
    return Refit(solution.constants, tuple(fitted))


def _fit(job: Job, given: Calibrated, refinement: Refinement) -> Refitted | None:
    prior = prior_of(job, given.grams.get(job.index))
    found, prior = fit_layer(job, prior, refinement.sampler, refinement.solution)
    if found is None or not refinement.hidden.get(job.index):
        return found
    return refinement.improve(job, found, prior)


def _size(given: Calibrated) -> int:
    """Samples whose activations are looked at together: a tenth of all at most, so that some can be held out."""
    biggest = sorted({v for layer in given.layers for v in (layer.data, layer.output)})
    return max(1, min(batch_size(given.coupling, biggest, BATCH_BYTES), -(-given.dataset.count // 10)))


def _pair(given: Calibrated, keep: Array, pruned: Graph, store: Store, size: int) -> Pair:
    coupling = given.coupling
    batches = list(given.dataset.batches(size))
    original = Runner(coupling.graph, coupling.facts, store, "o:", batches, given.engine)
    small = Runner(pruned, coupling.facts, store, "p:", batches, given.engine)
    return Pair(original, small, choosing(coupling, keep, PICKING))
