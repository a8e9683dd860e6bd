"""Measure in one run what inference cannot know: types and shapes of values inside a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh

from onnxprune.engine.session import Engine, open_session, run
from onnxprune.graph.view import Graph

Array = np.ndarray
Shape = tuple[int, ...]


def measure_shapes(
    model: onnx.ModelProto, feeds: Mapping[str, Array], names: Sequence[str]
) -> dict[str, tuple[int, Shape]]:
    """(ONNX element type, shape) of the main-graph values ``names``, from one run of ``model`` on ``feeds``.

    Leaves out values that are not tensors (sequences, optionals).  Cost: one run.

    Raises:
        ModelError: if onnxruntime cannot load the model or cannot run it on these feeds.
    """
    if not names:
        return {}
    session = open_session(model, Engine(threads=1), names)
    tensors = [o.name for o in session.get_outputs() if o.type.startswith("tensor(")]
    measured: dict[str, tuple[int, Shape]] = {}
    if not tensors:
        # onnxruntime takes an empty list of outputs as a request for all of them.
        return measured
    for name, array in zip(tensors, run(session, feeds, tensors), strict=True):
        measured[name] = (int(oh.np_dtype_to_tensor_dtype(array.dtype)), tuple(array.shape))
    return measured


def plausible_feeds(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Made-up arrays for the graph's tensor inputs: seeded noise, ones for integers, true for booleans.

    If the graph compares an integer input with constants (a sampling rate, a mode), it gets the first of these.
    """
    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, shape in shapes.items():
        kind = np.dtype(oh.tensor_dtype_to_np_dtype(graph.types[name].tensor_type.elem_type))
        if kind.kind in "iu":
            known = expected_integer(graph, name)
            feeds[name] = np.full(shape, 1 if known is None else known, dtype=kind)
        elif kind.kind == "b":
            feeds[name] = np.ones(shape, dtype=kind)
        elif kind.kind == "O":
            feeds[name] = np.full(shape, "a", dtype=kind)
        else:
            feeds[name] = generator.standard_normal(shape).astype(kind)
    return feeds


def expected_integer(graph: Graph, name: str) -> int | None:
    """The first constant that the graph compares the input ``name`` with; ``None`` if there is none."""
    for index, slot in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        other = node.inputs[1 - slot] if node.op == "Equal" and len(node.inputs) == 2 else None
        if other is not None and other in graph.constants and graph.constants[other].size:
            return int(graph.constants[other].ravel()[0])
    return None
