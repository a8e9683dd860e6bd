"""Two sets of concrete input shapes for the analysis of a graph; they differ in every size that a caller may choose."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.facts import evaluate
from onnxprune.graph.infer import declared_shape
from onnxprune.graph.view import Graph, Node

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


@dataclass(frozen=True)
class _Sizes:
    """Sizes to try for open dims: (first, alternative) of the side of an image, of a sequence, and of the batch."""

    side: tuple[int, int]
    length: tuple[int, int]
    batch: tuple[int, int] = (1, 2)


#: Tried in this order until all shapes fit together.  The later ones serve waveforms and spectrograms, whose first
#: convolutions need a long input, and models with a fixed frame length.  Then come models whose batch holds the frames
#: of clips.  The last two keep a batch of one, for models that run only with one sample.
_ATTEMPTS = (
    _Sizes((224, 256), (16, 24)),
    _Sizes((320, 384), (64, 96)),
    _Sizes((64, 96), (512, 512)),
    _Sizes((512, 640), (512, 768)),
    _Sizes((32, 64), (1024, 1536)),
    _Sizes((128, 192), (16000, 24000)),
    _Sizes((224, 224), (576, 576)),
    _Sizes((224, 224), (256, 256)),
    _Sizes((224, 256), (16, 24), (8, 16)),
    _Sizes((224, 256), (16, 24), (1, 1)),
    _Sizes((224, 224), (512, 512), (1, 1)),
)

#: Maximum number of batch sizes to try that the graph's constants name.
FROZEN = 3


def input_shapes(
    graph: Graph, given: Mapping[str, tuple[int, ...]], sample: Mapping[str, tuple[int, ...]] | None
) -> tuple[Shapes, Shapes]:
    """(first, alternative): the shape of every tensor input at two choices of its dynamic dims.

    ``given`` states shapes of inputs.  Both results have the given size; 0 or less leaves a dim open.  ``sample`` has the
    shapes of one data sample; the first result takes its sizes for dynamic dims other than the batch.  Every other
    dynamic dim gets a usual size.  The batch (the first axis) is 1, then 2.  Dims of one name get one size.

    Tries several usual sizes until no operator finds its input shapes contradictory.  The last attempts use one batch
    for both results, taken from the graph's constants.  If every attempt has contradictions, returns the shapes with
    the fewest.  Cost: two evaluations per attempt.

    Raises:
        ModelError: if ``given`` names an unknown input or contradicts the shape that the model states.
    """
    _check(graph, given)
    best: tuple[Shapes, Shapes] | None = None
    best_score: tuple[int, int] | None = None
    tried: list[tuple[Shapes, Shapes]] = []
    for sizes in itertools.chain(_ATTEMPTS, _frozen_batches(graph)):
        pair = (_shapes(graph, given, sample, sizes, 0), _shapes(graph, given, sample, sizes, 1))
        if pair in tried:
            continue
        tried.append(pair)
        facts = [evaluate(graph, shapes) for shapes in pair]
        contradictions = sum(len(f.contradictions) for f in facts)
        if not contradictions:
            return pair
        score = (contradictions, -sum(len(f.shapes) for f in facts))
        if best_score is None or score < best_score:
            best, best_score = pair, score
    return best or ({}, {})


def _frozen_batches(graph: Graph) -> Iterator[_Sizes]:
    """Batch sizes from the constant shapes of Reshape and Expand, the most frequent first; one size for both results.

    Exporters that trace a run write its batch into such shapes, whatever the inputs declare.
    """
    named: Counter[int] = Counter()
    for node in graph.nodes:
        shape = node.inputs[1] if node.op in ("Reshape", "Expand") and len(node.inputs) > 1 else None
        if shape is not None and shape in graph.constants and graph.constants[shape].size > 1:
            named[int(graph.constants[shape].ravel()[0])] += 1
    for batch in [size for size, _ in named.most_common() if size > 1][:FROZEN]:
        yield replace(_ATTEMPTS[0], batch=(batch, batch))


def _inputs(graph: Graph) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """Tensor inputs with their declared dims.  An input of unknown rank counts as a scalar."""
    for name in graph.inputs:
        kind = graph.types.get(name)
        if kind is not None and kind.HasField("tensor_type"):
            yield name, declared_shape(kind) or ()


def _check(graph: Graph, given: Mapping[str, tuple[int, ...]]) -> None:
    declared = dict(_inputs(graph))
    for name, shape in given.items():
        if name not in declared:
            known = ", ".join(f"'{k}'" for k in declared) or "none"
            raise ModelError(f"a shape is given for '{name}', but the model has no such input; its inputs: {known}")
        kind = graph.types[name].tensor_type
        stated = declared[name]
        if kind.HasField("shape") and (
            len(stated) != len(shape)
            or any(d is not None and g > 0 and d != g for d, g in zip(stated, shape, strict=True))
        ):
            raise ModelError(
                f"input '{name}' has shape {_text(stated)}, so {_text(shape)} does not fit: {_misfit(stated, shape)}"
            )


def _text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "() (a scalar)"


def _misfit(stated: Sequence[int | None], given: Sequence[int]) -> str:
    """What to change about a ``given`` shape that does not fit the ``stated`` one."""
    if len(stated) != len(given):
        return f"give {len(stated)} sizes"
    wrong = [axis for axis, (size, other) in enumerate(zip(stated, given, strict=True)) if size not in (None, other)]
    return ", ".join(f"axis {axis} must be {stated[axis]}" for axis in wrong)


def _shapes(
    graph: Graph,
    given: Mapping[str, tuple[int, ...]],
    sample: Mapping[str, tuple[int, ...]] | None,
    sizes: _Sizes,
    which: int,
) -> Shapes:
    named: dict[str, int] = {}
    shapes: dict[str, list[int | None]] = {}
    for name, dims in _inputs(graph):
        stated = given.get(name)
        shape: list[int | None] = list(dims) if dims or stated is None else [None] * len(stated)
        for axis, size in enumerate(stated or ()):
            if size > 0:
                shape[axis] = size
                label = _label(graph, name, axis)
                if label:
                    named[label] = size
        shapes[name] = shape
    for name, shape in shapes.items():
        for axis in [k for k, size in enumerate(shape) if size is None]:
            label = _label(graph, name, axis)
            if label not in named or not label:
                size = _choose(graph, name, shape, axis, (sample or {}).get(name), sizes, which)
                if not label:
                    shape[axis] = size
                    continue
                named[label] = size
    # Named dims come in a second pass, so that the order of the inputs does not matter.
    for name, shape in shapes.items():
        for axis in [k for k, size in enumerate(shape) if size is None]:
            shape[axis] = named[_label(graph, name, axis)]
    return {name: tuple(size for size in shape if size is not None) for name, shape in shapes.items()}


def _label(graph: Graph, name: str, axis: int) -> str:
    kind = graph.types[name].tensor_type
    if not kind.HasField("shape") or axis >= len(kind.shape.dim):
        return ""
    dim = kind.shape.dim[axis]
    return str(dim.dim_param) if dim.HasField("dim_param") else ""


def _choose(
    graph: Graph,
    name: str,
    shape: list[int | None],
    axis: int,
    sample: tuple[int, ...] | None,
    sizes: _Sizes,
    which: int,
) -> int:
    kind = graph.types[name].tensor_type.elem_type
    label = _label(graph, name, axis).lower()
    if (axis == 0 and len(shape) > 1) or "batch" in label or (axis == 1 and _is_state(graph.types[name])):
        return sizes.batch[which]
    channels = _channels(graph, name)
    if channels is not None and axis == channels[0]:
        return channels[1]
    pair = sizes.length
    if len(shape) >= 4 and kind not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        if axis == 1 and shape[-1] not in (1, 3, 4):
            return 3
        if axis == len(shape) - 1 and shape[1] in (1, 3, 4) and shape[2] is not None and shape[2] > 4:
            return 224 if which == 0 else 256
        pair = sizes.side
    if sample is not None and len(sample) == len(shape):
        return sample[axis] if which == 0 else sample[axis] + max(32, pair[1] - pair[0])
    return pair[which]


def _is_state(kind: onnx.TypeProto) -> bool:
    """Whether the input is the state of a recurrent layer: layers first, batch second."""
    dims = declared_shape(kind) or ()
    return len(dims) == 3 and dims[1] is None and dims[0] is not None and dims[0] > 1 and dims[2] is not None


def _channels(graph: Graph, name: str) -> tuple[int, int] | None:
    """(axis, size) of an input's channels, from the convolution that reads it; ``None`` if there is none."""
    for index, slot in graph.consumers.get(name, ()):
        node: Node = graph.nodes[index]
        if node.op == "Conv" and slot == 0 and len(node.inputs) > 1:
            weight = graph.initializers.get(node.inputs[1] or "")
            if weight is not None and len(weight.dims) > 1:
                return 1, int(np.prod([weight.dims[1], node.integer("group", 1)]))
    return None
