"""Run two models side by side, the second with some outcomes of the first.

If two scores nearly tie, rounding decides which of them a TopK takes.  Everything after it then differs although
nothing is wrong.  So only the first model chooses.  The second gets the outcome, and the values before and after the
choice are compared instead.

Outputs may also vanish: of -16 a Sigmoid makes 1e-7, and onnxruntime is exact to 6e-8.  Such outputs tell nothing about
a cut.  The values before the last activation do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh

from onnxprune.coupling.groups import Coupling
from onnxprune.engine.loadable import with_outputs
from onnxprune.engine.session import Engine, open_literal_session, run
from onnxprune.graph.view import Node

Array = np.ndarray
#: Operators whose outputs may jump after a tiny change of their inputs.
CHOOSING = frozenset(
    [
        "TopK",
        "NonMaxSuppression",
        "ArgMax",
        "ArgMin",
        "NonZero",
        "Unique",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "Equal",
        "Round",
        "Floor",
        "Ceil",
        "Sign",
    ]
)
#: Activations whose outputs may all be next to zero: a mask over a picture without an object.
VANISHING = frozenset(["Sigmoid", "HardSigmoid", "Relu", "Clip"])
#: Operators that only move numbers.
MOVING = frozenset(["Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice"])
#: Those whose outcome decides which elements continue, and how many.
PICKING = frozenset(["TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero", "Unique"])


def choosing(coupling: Coupling, keep: Array, operators: frozenset[str] = CHOOSING) -> tuple[Node, ...]:
    """Nodes of the main graph with one of ``operators``, not computed from constants alone, whose inputs and outputs the
    cut ``keep`` leaves whole."""
    masks = coupling.masks(keep)
    shapes, graph, folded = coupling.facts.shapes, coupling.graph, coupling.facts.folded

    def uncut(value: str | None) -> bool:
        return value is None or all(masks(value, axis).all() for axis in range(len(shapes.get(value, ()))))

    return tuple(
        node
        for node in graph.nodes
        if node.op in operators
        and node.domain == ""
        and not node.scope
        and node.index not in folded
        and all(uncut(value) for value in (*node.inputs, *node.outputs))
    )


def ending(coupling: Coupling, keep: Array) -> tuple[Node, ...]:
    """The nodes among :data:`VANISHING` that make outputs of the model: only moves follow them.

    Empty if the cut ``keep`` narrows one of them.
    """
    graph, found = coupling.graph, dict[int, Node]()
    seen = set(graph.outputs)
    waiting = list(seen)
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is None:
            continue
        node = graph.nodes[index]
        if node.op in VANISHING:
            found[index] = node
        elif node.op in MOVING:
            more = {value for value in node.inputs if value is not None} - seen
            seen |= more
            waiting.extend(more)
    whole = {node.index for node in choosing(coupling, keep, VANISHING)}
    return tuple(found[index] for index in sorted(found)) if whole.issuperset(found) else ()


def side_by_side(
    first: onnx.ModelProto, second: onnx.ModelProto, nodes: Sequence[Node], feeds: Mapping[str, Array], engine: Engine
) -> tuple[list[Array], list[Array]]:
    """Values of ``first`` and of ``second``, where ``second`` gets the outputs of ``nodes`` from ``first``.

    Both models have ``nodes``.  The values are the outputs of the model that are not outputs of ``nodes``, then the
    computed inputs of ``nodes``.  Both models run literally.

    Raises:
        ModelError: if one of them cannot run that way.
    """
    made = {name for node in first.graph.node for name in node.output}
    chosen = list(dict.fromkeys(name for node in nodes for name in node.proto.output if name))
    read = list(dict.fromkeys(name for node in nodes for name in node.proto.input if name in made))
    outputs = [o.name for o in first.graph.output if o.name not in chosen]
    wanted = list(dict.fromkeys([*outputs, *(name for name in read if name not in chosen)]))
    values = run(open_literal_session(first, engine, [*wanted, *chosen]), feeds)
    outcome = dict(zip(chosen, values[len(wanted) :], strict=True))
    guided = open_literal_session(_given(second, outcome, wanted), engine)
    return values[: len(wanted)], run(guided, {**feeds, **outcome})


def _given(model: onnx.ModelProto, outcome: Mapping[str, Array], wanted: Sequence[str]) -> onnx.ModelProto:
    """A copy that takes the values in ``outcome`` as inputs instead of computing them, and returns ``wanted``."""
    copy = with_outputs(model, wanted)
    computed = [node for node in copy.graph.node if not any(name in outcome for name in node.output)]
    del copy.graph.node[:]
    copy.graph.node.extend(computed)
    infos = [info for info in copy.graph.value_info if info.name not in outcome]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(infos)
    for name, array in outcome.items():
        copy.graph.input.append(oh.make_tensor_value_info(name, oh.np_dtype_to_tensor_dtype(array.dtype), None))
    return copy
