"""Two models run side by side, the second with the discrete choices of the first.

Where two scores all but tie, rounding decides which of them a TopK takes, and everything behind it differs wholly
although nothing is wrong.  So the choices are taken once: the other model is given their outcome, and what it would
have chosen by is compared instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh

from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine, open_literal_session, run, with_outputs
from onnxprune.graph.view import Node

Array = np.ndarray
#: Operators whose outputs jump where their inputs hardly move.
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
#: Those whose outcome is which elements go on, and how many.
PICKING = frozenset(["TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero", "Unique"])


def choosing(coupling: Coupling, keep: Array, operators: frozenset[str] = CHOOSING) -> tuple[Node, ...]:
    """Nodes of the main graph that choose, by values that are computed and that the cut ``keep`` leaves whole."""
    masks = coupling.masks(keep)
    shapes, graph, folded = coupling.facts.shapes, coupling.graph, coupling.facts.folded

    def whole(value: str | None) -> bool:
        return value is None or all(masks(value, axis).all() for axis in range(len(shapes.get(value, ()))))

    return tuple(
        node
        for node in graph.nodes
        if node.op in operators
        and node.domain == ""
        and not node.scope
        and node.index not in folded
        and all(whole(value) for value in (*node.inputs, *node.outputs))
    )


def side_by_side(
    first: onnx.ModelProto, second: onnx.ModelProto, nodes: Sequence[Node], feeds: Mapping[str, Array], engine: Engine
) -> tuple[list[Array], list[Array]]:
    """What ``first`` and ``second`` give and choose by at ``nodes``, which both have, where the choices are those of
    ``first``: outputs that are no choices, then the inputs of ``nodes`` that are computed.  Both run literally.

    Raises:
        ModelError: where one of them cannot be run like that.
    """
    made = {name for node in first.graph.node for name in node.output}
    chosen = list(dict.fromkeys(name for node in nodes for name in node.proto.output if name))
    read = list(dict.fromkeys(name for node in nodes for name in node.proto.input if name in made))
    outputs = [o.name for o in first.graph.output if o.name not in chosen]
    wanted = list(dict.fromkeys([*outputs, *(name for name in read if name not in chosen)]))
    found = run(open_literal_session(with_outputs(first, [*wanted, *chosen]), engine), feeds)
    outcome = dict(zip(chosen, found[len(wanted) :], strict=True))
    return found[: len(wanted)], run(open_literal_session(_given(second, outcome, wanted), engine), {**feeds, **outcome})


def _given(model: onnx.ModelProto, outcome: Mapping[str, Array], wanted: Sequence[str]) -> onnx.ModelProto:
    """A copy that is fed what it would have chosen, and computes ``wanted``."""
    found = with_outputs(model, wanted)
    kept = [node for node in found.graph.node if not any(name in outcome for name in node.output)]
    del found.graph.node[:]
    found.graph.node.extend(kept)
    stale = [info for info in found.graph.value_info if info.name not in outcome]
    del found.graph.value_info[:]
    found.graph.value_info.extend(stale)
    for name, array in outcome.items():
        found.graph.input.append(oh.make_tensor_value_info(name, oh.np_dtype_to_tensor_dtype(array.dtype), None))
    return found
