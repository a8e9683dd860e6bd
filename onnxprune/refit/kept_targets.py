"""Activations of the original that refits need, computed once for all candidates that are fitted to the same samples.

A refit needs the targets of its layers and the outcome of the picking nodes.  Neither depends on the candidate.  The
first refit runs the original and keeps them; later refits read the same values.  The inputs of the cut layers do depend
on the candidate, so every refit computes them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from onnxprune.calibration.calibrated import Calibrated
from onnxprune.engine.segment import Runner
from onnxprune.engine.store import Store
from onnxprune.refit.job import LayerJob
from onnxprune.verify.guided import PICKING

Array = np.ndarray
#: Maximum bytes to keep, in memory and on disk.  Beyond it every refit runs the original again: a disk may be small, and
#: 64 pictures of a residual network of 50 layers take 2.8 GB.
MAX_BYTES = 4 << 30
#: Kept values take at most 1/PART of the memory for activations; the rest of them goes to disk.  A search keeps
#: two sets, for attempts and for trials.
PART = 16


class KeptTargets:
    """The original over one set of samples.  Use as a context manager: it may leave files in a temporary folder.

    All refits that share one must have the same model, samples and engine; they may differ in the cut, the rows and the
    rounds.
    """

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._most = most
        self._store: Store | None = None
        self._runner: Runner | None = None
        #: Values of the original that stay until the end.
        self.values: frozenset[str] = frozenset()

    def __enter__(self) -> KeptTargets:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.__exit__()
        self._store = self._runner = None

    def runner(
        self, given: Calibrated, jobs: Iterable[LayerJob], batches: Callable[[], Iterable[Mapping[str, Array]]]
    ) -> Runner | None:
        """The original over the ``batches()``, where earlier refits left it; ``None`` if its values would take too much room."""
        if self._runner is None:
            values = kept_values(given, jobs)
            if bytes_of(given, values) > self._most:
                return None
            self.values = values
            self._store = Store(given.memory // PART)
            self._runner = Runner(given.coupling.graph, given.coupling.facts, self._store, "o:", batches, given.engine)
        return self._runner


def kept_values(given: Calibrated, jobs: Iterable[LayerJob]) -> frozenset[str]:
    """The values of the original that any candidate's refit may read: targets, and outputs of nodes that may pick."""
    picking = (node for node in given.coupling.graph.nodes if node.op in PICKING and not node.scope)
    picked = (output for node in picking for output in node.outputs if output is not None)
    return frozenset({job.target.value for job in jobs} | set(picked))


def bytes_of(given: Calibrated, values: Iterable[str]) -> int:
    """Estimated bytes of ``values`` over all samples, from the shapes of one sample."""
    shapes = given.coupling.facts.shapes
    return given.dataset.count * sum(4 * math.prod(shapes[value]) for value in values if value in shapes)
