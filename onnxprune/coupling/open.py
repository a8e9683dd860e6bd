"""From a model to its coupling: the entry point for the rest of the package."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxprune.coupling.coupled import couple_graph
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.unshared import with_own_constants, with_own_sizes
from onnxprune.engine.probe import measure_shapes, plausible_feeds
from onnxprune.errors import EndlessError, ModelError
from onnxprune.graph.facts import Facts, evaluate
from onnxprune.graph.inputs import Shapes, input_shapes
from onnxprune.graph.known import MeasuredShapes
from onnxprune.graph.shuffle import written_as_gathers
from onnxprune.graph.view import Graph, view

#: Maximum positions of one axis.  A minute of sound at 192 kHz has 11.5 million.
POSITIONS = 1 << 24


def couple(
    model: onnx.ModelProto,
    given: Mapping[str, tuple[int, ...]],
    sample: Mapping[str, tuple[int, ...]] | None,
    rules: str = "exact",
) -> Coupling:
    """The coupling of ``model`` at the input shapes that :func:`input_shapes` chooses.  Does not change ``model``.

    ``given`` holds input shapes stated by the user, ``sample`` the shapes of one data sample.  If shape inference leaves
    values of the main graph open, run the model on made-up inputs and measure their shapes.  If that run fails, lock
    whatever depends on these values.  ``rules`` is "exact", or "approximate", which also cuts the width of
    normalizations.  Cost: seconds for 2,000 nodes.

    Raises:
        ModelError: if ``given`` does not fit the model.
    """
    graph = view(model)
    shapes = input_shapes(graph, given, sample)
    facts = facts_of(graph, *shapes)
    for rewrite in (written_as_gathers, with_own_constants, with_own_sizes):
        rewritten = rewrite(graph, facts)
        if rewritten is not None:
            graph = view(rewritten)
            facts = facts_of(graph, *shapes)
    return couple_graph(graph, facts, rules)


def facts_of(graph: Graph, first: Shapes, alternative: Shapes) -> Facts:
    """Facts at ``first``.  One run at each of the two shapes measures what inference leaves open."""
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
    """Raise ModelError for a value that does not fit any machine: coupling keeps a number per position of each axis."""
    for value, shape in facts.shapes.items():
        if max(shape, default=0) > POSITIONS:
            raise ModelError(
                f"tensor '{value}' has {max(shape):,} positions along one axis, more than {POSITIONS:,}; its size comes "
                "from the graph or from an input: state smaller inputs with --shape, or export the model again"
            )


def _measured(graph: Graph, shapes: Shapes, names: list[str]) -> MeasuredShapes:
    try:
        return measure_shapes(graph.model, plausible_feeds(graph, shapes), names)
    except EndlessError:
        raise
    except ModelError:
        # Made-up inputs may not suit the model.  These values then stay unknown and get locks with that reason.
        return {}
