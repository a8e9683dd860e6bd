"""From a model to its coupling: the one door that the rest of the package uses."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxprune.coupling.groups import Coupling, analyse
from onnxprune.coupling.unshared import with_own_constants, with_own_sizes
from onnxprune.engine.probe import measure, plausible_feeds
from onnxprune.errors import EndlessError, ModelError
from onnxprune.graph.facts import Facts, evaluate
from onnxprune.graph.inputs import Shapes, input_shapes
from onnxprune.graph.shuffle import written_as_gathers
from onnxprune.graph.view import Graph, view
from onnxprune.graph.walk import Measured

#: Positions of one axis at most; a minute of sound at 192 kHz has 11.5 million.
POSITIONS = 1 << 24


def couple(
    model: onnx.ModelProto,
    given: Mapping[str, tuple[int, ...]],
    sample: Mapping[str, tuple[int, ...]] | None,
    rules: str = "exact",
) -> Coupling:
    """The coupling of ``model`` (not changed), at input shapes that :func:`input_shapes` chooses.

    ``given``: shapes of inputs as the user states them; ``sample``: shapes of one data sample.  Where shape
    inference leaves values of the main graph open, the model is run on made-up inputs and their shapes are
    measured; if it cannot be run on those, what depends on these values is locked.  ``rules``: "exact", or
    "approximate", which also cuts the width of normalizations.  Cost: seconds for 2,000 nodes.

    Raises:
        ModelError: where ``given`` does not fit the model.
    """
    graph = view(model)
    shapes = input_shapes(graph, given, sample)
    facts = facts_of(graph, *shapes)
    for rewrite in (written_as_gathers, with_own_constants, with_own_sizes):
        rewritten = rewrite(graph, facts)
        if rewritten is not None:
            graph = view(rewritten)
            facts = facts_of(graph, *shapes)
    return analyse(graph, facts, rules)


def facts_of(graph: Graph, first: Shapes, alternative: Shapes) -> Facts:
    """Facts at ``first``, with what inference leaves open measured in one run at each of the two shapes."""
    facts = evaluate(graph, first, alternative)
    _check_sizes(facts)
    unknown = [
        out
        for node in graph.nodes
        if not node.scope
        for out in node.outputs
        if out is not None and out not in facts.shapes
    ]
    if not unknown:
        return facts
    return evaluate(graph, first, alternative, _measured(graph, first, unknown), _measured(graph, alternative, unknown))


def _check_sizes(facts: Facts) -> None:
    """Raise ModelError for a value that no machine holds: what follows keeps a number for every position of an axis."""
    for value, shape in facts.shapes.items():
        if max(shape, default=0) > POSITIONS:
            raise ModelError(
                f"tensor '{value}' has {max(shape):,} positions along one axis, more than {POSITIONS:,}: its size is "
                "computed in the graph, or follows from an input's; state smaller inputs with --shape, or export anew"
            )


def _measured(graph: Graph, shapes: Shapes, names: list[str]) -> Measured:
    try:
        return measure(graph.model, plausible_feeds(graph, shapes), names)
    except EndlessError:
        raise
    except ModelError:
        # Made-up inputs need not suit the model; then these values stay unknown and lock, with that as reason.
        return {}
