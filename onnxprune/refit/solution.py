"""What the refit has come to so far."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np

from onnxprune.refit.job import Job
from onnxprune.surgery.edit import Use

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Solution:
    """``constants``: new ones per use (pruned shapes); ``weights``: per layer index, (g, n+1, o) float64, those that a
    layer has now.  ``shared``: indices of layers whose matrix others read, too."""

    shared: Container[int]
    constants: dict[Use, Array] = field(default_factory=dict)
    weights: dict[int, Array] = field(default_factory=dict)

    def keep(self, job: Job, weights: Array) -> None:
        """From now on the layer of ``job`` has ``weights``."""
        self.weights[job.index] = weights
        found = dict(job.part.constants(weights, job.target.home))
        use = job.part.weight_use
        if job.index in self.shared and np.array_equal(found[use], job.part.sliced(use)):
            # Who else reads it keeps reading the same.
            del found[use]
        self.constants.update(found)
