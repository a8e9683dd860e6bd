"""The notes of a run: what the user should know."""

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
    "the model gives the same answer for all {} samples, so --max-drop cannot detect a bad cut: {}, or give a size, "
    "such as --macs 0.7"
)
UNFITTED = (
    "a plan holds no weights, so the model is cut but not refitted; fine-tune it, or use the output of "
    "'onnxprune prune' instead"
)
NO_ACCURACY = "no accuracy is measured: {}"
NO_SCORES = (
    "--test has no effect: its labels are class numbers or boxes, but this model's outputs are not read as such; "
    "give --task detect for a detector, or your own metric with --eval"
)


def reading_notes(loaded: LoadedModel, coupling: Coupling) -> tuple[str, ...]:
    """Complaints about the original, and changes to it before the analysis."""
    notes = [f"onnx.checker on the original: {c}" for c in loaded.complaints]
    notes += loaded.repairs
    more = _operators(coupling.graph.model) - _operators(loaded.proto)
    if more["Gather"]:
        notes.append(
            "channel shuffles (Reshape, Transpose, Reshape) become Gathers, so that channels can leave one by one"
        )
    if more["DequantizeLinear"]:
        notes.append("a constant that several nodes read dequantized is dequantized for each of them, so that each can be cut alone")
    whole, quantized = _quantized_layers(coupling)
    if quantized:
        notes.append(
            f"{quantized} of {whole} layers have integer weights: they are not refitted, because the result would have "
            "to be rounded again; their channels are ranked by weight magnitude, and the output loss of each width is "
            "measured"
        )
    return tuple(notes)


def loosening_notes(coupling: Coupling) -> tuple[str, ...]:
    """What ``--approximate`` would unlock."""
    channels = sum(held.size for held in coupling.held if held.reason.remedy == LOOSEN)
    if not channels:
        return ()
    return (f"--approximate also narrows layer, RMS and group normalizations, which lock {channels:,} channels here",)


def few_samples(dataset: Dataset, options: Options) -> tuple[str, ...]:
    if options.samples is None or dataset.count >= options.samples:
        return ()
    return (f"the data has only {dataset.count} samples, fewer than --samples {options.samples}",)


def single_sample(dataset: Dataset) -> tuple[str, ...]:
    if dataset.count > 1:
        return ()
    return ("only one sample: it serves both for fitting and for measuring, so the drop is meaningless; provide more",)


def _operators(model: onnx.ModelProto) -> Counter[str]:
    """The number of main-graph nodes per operator."""
    return Counter(str(node.op_type) for node in model.graph.node)


def _quantized_layers(coupling: Coupling) -> tuple[int, int]:
    """The number of nodes with MACs and a stored weight, and of those with an integer weight."""
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
