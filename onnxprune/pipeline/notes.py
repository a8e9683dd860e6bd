"""The notes of a run: what the user should know."""

from __future__ import annotations

from collections import Counter

import onnx

from onnxprune.budget.cost import macs, node_macs, original_macs
from onnxprune.calibration.dataset import Dataset
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.loosened import loosened
from onnxprune.devices import TARGETS
from onnxprune.graph.dequantized import readers_of_constant
from onnxprune.graph.load import LoadedModel
from onnxprune.linear.form import layers
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
DETECTOR_PRESET = (
    "the outputs look like a detector's, and no --preprocess was given: pictures are cropped at the centre and normalised "
    "as for classifiers. Most detectors need --preprocess unit --letterbox; 'onnxprune help tasks' lists what exporters "
    "expect"
)
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
        notes.append("a quantized constant with several readers gets one DequantizeLinear per reader, so that each can be cut alone")
    total, quantized = _quantized_layers(coupling)
    if quantized:
        notes.append(
            f"{quantized} of {total} layers have integer weights: they are not refitted, because the result would have "
            "to be rounded again; their channels are ranked by weight magnitude, and the output loss of each width is "
            "measured"
        )
    else:
        notes += _unfitted(coupling)
    return tuple(notes)


def _unfitted(coupling: Coupling) -> list[str]:
    """A note if more than half of the MACs are in nodes that are not refitted: without a weight, or inside a body."""
    fitted = {layer.index for layer in layers(coupling)}
    spent: Counter[str] = Counter()
    for index, count in node_macs(coupling, macs(coupling)).items():
        if index not in fitted:
            spent[coupling.graph.nodes[index].op] += int(count)
    total = original_macs(coupling)
    if not coupling.groups or spent.total() <= total / 2:
        return []
    return [
        f"{spent.total() / total:.0%} of the MACs are in operators that are not refitted, because they have no weight or "
        f"are inside an If, Loop or Scan ({', '.join(op for op, _ in spent.most_common(3))}): their channels can be cut, "
        "but only the layers around them can compensate the cut"
    ]


def loosening_notes(coupling: Coupling) -> tuple[str, ...]:
    """What ``--approximate`` would unlock."""
    more = loosened(coupling)
    return () if more is None else (str(more),)


def few_samples(dataset: Dataset, options: Options) -> tuple[str, ...]:
    if options.samples is None or dataset.count >= options.samples:
        return ()
    return (f"the data has only {dataset.count} samples, fewer than --samples {options.samples}",)


def rounding_wins(options: Options) -> tuple[str, ...]:
    """A note if both --round and --target are given."""
    if options.target is None or options.round_to is options.block is None:
        return ()
    asked = f"--round {options.round_to}" if options.round_to is not None else f"--round auto:{options.block}"
    multiple = TARGETS[options.target].multiple
    return (f"{asked} takes precedence over --target {options.target}, which asks for multiples of {multiple}",)


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
        for index, _ in readers_of_constant(coupling.graph, key):
            bound = coupling.walked.bounds.get(index)
            if bound is not None and bound.rule.macs:
                weighed.add(index)
                if constant_of(coupling, key).dtype.kind in "iu":
                    integers.add(index)
    return len(weighed), len(integers)
