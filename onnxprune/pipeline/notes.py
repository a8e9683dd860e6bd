"""What a user should know about a run: the texts of the notes."""

from __future__ import annotations

from collections import Counter

import onnx

from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.atoms import LOOSEN
from onnxprune.coupling.groups import Coupling
from onnxprune.graph.dequantized import readers_behind
from onnxprune.graph.load import LoadedModel
from onnxprune.options import Options
from onnxprune.surgery.cut import constant_of

ALIKE = (
    "the model answers all {} samples alike, so that --max-drop sees no harm in any cut: {}, or say how much may go, "
    "such as --macs 0.7"
)
UNFITTED = (
    "a plan holds no weights: the model is cut, but not refitted to what it computed before; train it on, or use what "
    "'onnxprune prune' wrote"
)
NO_ACCURACY = "no accuracy is measured: {}"
DETECTOR_PRESET = (
    "this is a detector, and no --preprocess was given: most take --preprocess unit --letterbox; 'onnxprune help tasks' "
    "lists what exporters expect"
)
NO_SCORES = (
    "--test is not used: its labels are class numbers or boxes, and this model's outputs are not read as such "
    "(--task detect); --eval takes a metric of your own"
)


def reading_notes(loaded: LoadedModel, coupling: Coupling) -> tuple[str, ...]:
    """What was objected to in the original, and what was written otherwise than it stands there."""
    notes = [f"onnx.checker on the original: {c}" for c in loaded.complaints]
    notes += loaded.repairs
    more = _operators(coupling.graph.model) - _operators(loaded.proto)
    if more["Gather"]:
        notes.append(
            "channel shuffles (Reshape, Transpose, Reshape) are written as Gathers, to cut channels one by one"
        )
    if more["DequantizeLinear"]:
        notes.append("constants that several nodes read dequantized are dequantized for each, to be cut for each alone")
    whole, quantized = _quantized_layers(coupling)
    if quantized:
        notes.append(
            f"{quantized} of {whole} layers have integer weights, which no refit touches (it would have to be rounded "
            "again): their channels are ranked by their weights' size, and the damage of each width is measured"
        )
    return tuple(notes)


def loosening_notes(coupling: Coupling) -> tuple[str, ...]:
    """What other rules would let go."""
    channels = sum(held.size for held in coupling.held if held.reason.remedy == LOOSEN)
    if not channels:
        return ()
    return (f"--approximate also narrows layer, RMS and group normalizations, which hold {channels:,} channels here",)


def few_samples(dataset: Dataset, options: Options) -> tuple[str, ...]:
    if options.samples is None or dataset.count >= options.samples:
        return ()
    return (f"all {dataset.count} samples are used, fewer than --samples {options.samples}",)


def single_sample(dataset: Dataset) -> tuple[str, ...]:
    if dataset.count > 1:
        return ()
    return ("there is one sample only: it is fitted to and measured on, so that the drop tells nothing; give more",)


def _operators(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of the main graph each operator has."""
    return Counter(str(node.op_type) for node in model.graph.node)


def _quantized_layers(coupling: Coupling) -> tuple[int, int]:
    """(nodes with MACs and a stored weight, those of them whose weight is of integers)."""
    weighed: set[int] = set()
    integers: set[int] = set()
    for key, lines in coupling.units.items():
        if not isinstance(key, tuple) or len(lines) < 2:
            continue
        for index, _ in readers_behind(coupling.graph, key):
            bound = coupling.walked.bounds.get(index)
            if bound is not None and bound.rule.macs:
                weighed.add(index)
                if constant_of(coupling, key).dtype.kind in "iu":
                    integers.add(index)
    return len(weighed), len(integers)
