"""The weights that the refit has settled on so far."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np

from onnxprune.graph.uses import Use
from onnxprune.refit.job import LayerJob

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Solution:
    """``constants``: new constants per use, in pruned shapes.  ``weights``: node index -> current weights of the layer,
    (g, n+1, o) float64, for layers in ``remembered``: weights of a whole model would take twice its memory.
    ``shared``: indices of layers that share their matrix with others.
    """

    shared: Container[int]
    remembered: Container[int]
    constants: dict[Use, Array] = field(default_factory=dict)
    weights: dict[int, Array] = field(default_factory=dict)

    def begin(self, job: LayerJob, weights: Array) -> None:
        """The weights of the layer of ``job`` before its fit, unless it has some."""
        if job.index in self.remembered:
            self.weights.setdefault(job.index, weights)

    def keep(self, job: LayerJob, weights: Array) -> None:
        """Set the weights of the layer of ``job``."""
        if job.index in self.remembered:
            self.weights[job.index] = weights
        constants = dict(job.part.constants(weights, job.target.home))
        use = job.part.weight_use
        if job.index in self.shared and np.array_equal(constants[use], job.part.sliced(use)):
            # An unchanged matrix stays shared.
            del constants[use]
        self.constants.update(constants)
