"""Inspect a model: what can be pruned, and what its layers cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.budget.cost import count_parameters, original_macs
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.graph.load import LoadedModel, load
from onnxprune.graph.view import view
from onnxprune.latency.signature import timed_layers
from onnxprune.latency.synthetic import layers_file
from onnxprune.linear.form import layers
from onnxprune.option_values import shapes_of
from onnxprune.pipeline.notes import loosening_notes, reading_notes
from onnxprune.report.describe import choice_lines, group_rows, operator_shares, outlook, prunable_share
from onnxprune.report.outline import layer_rows
from onnxprune.result import Inspection
from onnxprune.surgeon import Model


def inspection_of(loaded: LoadedModel, coupling: Coupling) -> Inspection:
    """Groups, locks, costs and layers of a model with its ``coupling``."""
    everything = np.ones(coupling.unit_count, dtype=np.bool_)
    shapes = coupling.facts.shapes
    return Inspection(
        model=str(loaded.path or "model"),
        macs=int(original_macs(coupling)),
        params=count_parameters(loaded.proto),
        bytes=loaded.file_bytes,
        nodes=len(view(loaded.proto).nodes),
        groups=group_rows(coupling, everything, frozenset()),
        prunable_macs_share=prunable_share(coupling),
        choices=choice_lines(coupling),
        inputs=tuple(f"{name} {'x'.join(map(str, shapes[name]))}" for name in coupling.graph.inputs if name in shapes),
        notes=(*reading_notes(loaded, coupling), *loosening_notes(coupling)),
        layers=layer_rows(coupling, everything, frozenset()),
        operators=operator_shares(coupling),
        outlook=outlook(coupling),
    )


def layers_to_time(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, object]:
    """The layers file of a model, as JSON: ``tools/measure_latency_table.py`` times these layers on a device.

    >>> sorted({entry["key"].split()[0] for entry in layers_to_time("models/demo.onnx")["entries"]})
    ['Conv', 'MatMul', 'byte', 'inputs', 'mac', 'widths']
    """
    coupling = couple(load(model).proto, shapes_of(shapes), None, "exact")
    return layers_file(timed.signature for timed in timed_layers(coupling, layers(coupling)))
