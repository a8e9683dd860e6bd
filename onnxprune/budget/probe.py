"""The output loss of changed constants, measured in graph order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from onnxprune.budget.relay import Relay
from onnxprune.calibration.dataset import Dataset
from onnxprune.calibration.outputs import outputs_of
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.engine.session import Engine, open_session
from onnxprune.engine.store import Store
from onnxprune.graph.uses import Use
from onnxprune.measure.loss import OutputLoss, output_loss
from onnxprune.surgery.cut import cut, masked_constants

Array = np.ndarray
#: Samples per run.
BATCH = 32
#: Maximum bytes of outputs to keep between surveys.  Outputs of segmentation networks take several times as much.
MAX_BYTES = 64 << 20


class KeptMeasure:
    """The output loss against the original on some samples, made once for all surveys on them."""

    def __init__(self) -> None:
        self._made: OutputLoss | None = None

    def get(self, make: Callable[[], OutputLoss]) -> OutputLoss:
        """The measure that an earlier call kept, else a new one.  Keeps it if its reference has at most :data:`MAX_BYTES`."""
        made = self._made or make()
        if sum(array.nbytes for array in made.reference) <= MAX_BYTES:
            self._made = made
        return made


class Probe:
    """Runs the original over ``dataset``.  Then measures it with changed constants, again and again.

    ``stops``: node indices, ascending.  A measurement changes constants of nodes from a stop on, and runs only these.
    ``kept``: the measure of earlier probes on the same samples.
    """

    def __init__(
        self,
        coupling: Coupling,
        dataset: Dataset,
        engine: Engine,
        store: Store,
        stops: Sequence[int],
        kept: KeptMeasure,
    ) -> None:
        graph, facts = coupling.graph, coupling.facts
        self._coupling, self._dataset, self._engine = coupling, dataset, engine
        self._outputs = [v for v in graph.outputs if v in graph.producer and graph.producer[v] not in facts.folded]
        self._measure = kept.get(self._new_measure)
        batches = dataset.batches(dataset.batch_limit or BATCH)
        self._relay = Relay(graph, facts, store, batches, engine, stops, self._outputs)

    def loss(self, constants: Mapping[Use, Array], stop: int) -> float:
        """The output loss with ``constants``, all in nodes from ``stop`` on.  Calls must not go back to an earlier stop."""
        self._relay.advance(stop)
        return self._measure.of(self._relay.outcome(constants))

    def loss_of_cut(self, group: Group, kept: Array) -> float:
        """The output loss of a cut of ``group`` alone, without a refit.  ``kept``: boolean per local unit.

        Cost: one pass of the model, masked by its constants; if constants cannot mask it, of the cut model.
        """
        keep = np.ones(self._coupling.unit_count, dtype=np.bool_)
        keep[group.units] = kept
        constants = masked_constants(self._coupling, keep)
        if constants is not None:
            return self._measure.of(self._relay.outcome(constants))
        return self._measure.of(self._run(cut(self._coupling, keep)))

    def _new_measure(self) -> OutputLoss:
        return output_loss(self._coupling, self._outputs, self._run(self._coupling.graph.model))

    def _run(self, model: onnx.ModelProto) -> list[Array]:
        return outputs_of(open_session(model, self._engine), self._dataset, self._outputs)
