"""Concrete shapes, constant values and shape arithmetic of a graph at one set of input shapes.

There are three kinds of value, because channels move differently through each:

* *constants*: initializers, Constant nodes, and values computed from them alone;
* *shape arithmetic*: small values computed from ``Shape`` or ``Size`` of tensors (and constants);
* *data*: everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxprune.graph.execute import CannotExecute, run_node
from onnxprune.graph.folding import sizes_of
from onnxprune.graph.known import MeasuredShapes, Shape
from onnxprune.graph.view import Graph
from onnxprune.graph.walk import propagate

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known about every value id at one set of input shapes.

    ``shapes``: concrete shapes; values of unknown shape are absent.  ``dtypes``: ONNX element types.  ``values``: arrays
    of folded constants and of shape arithmetic.  ``folded``: nodes computed from constants alone.  ``arithmetic``: nodes
    that compute with sizes.  ``dynamic``: per value, which axes change with the sizes that a caller may choose, or have
    a size that only a run determines.  ``varying``: arithmetic values that change in this way.  ``contradictions``:
    nodes whose input shapes do not fit together.  ``alternative``: the shapes at the alternative input shapes.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    values: Mapping[str, Array]
    folded: frozenset[int]
    arithmetic: frozenset[int]
    dynamic: Mapping[str, tuple[bool, ...]]
    varying: frozenset[str]
    contradictions: frozenset[int] = frozenset()
    alternative: Mapping[str, Shape] = field(default_factory=dict)

    def always_equal(self, value: str, axis: int, other: str, other_axis: int) -> bool:
        """Whether two axes have the same size at both choices of the dynamic sizes."""
        return all(
            shapes[value][axis] == shapes[other][other_axis]
            for shapes in (self.shapes, self.alternative)
            if value in shapes and other in shapes
        )

    def varies(self, value: str) -> bool:
        """Whether this arithmetic value changes with the sizes that a caller may choose."""
        return value in self.varying

    def is_dynamic(self, value: str, axis: int) -> bool:
        flags = self.dynamic.get(value)
        return flags is not None and axis < len(flags) and flags[axis]

    def are_fixed(self, values: Iterable[str]) -> bool:
        """Whether no axis of ``values`` changes."""
        return not any(flag for value in values for flag in self.dynamic.get(value, ()))


def evaluate(
    graph: Graph,
    input_shapes: Mapping[str, Shape],
    alternative: Mapping[str, Shape] | None = None,
    measured: MeasuredShapes | None = None,
    measured_alternative: MeasuredShapes | None = None,
) -> Facts:
    """Facts of ``graph`` at ``input_shapes``.  Axes that differ at ``alternative`` are marked dynamic.

    ``measured`` and ``measured_alternative`` give (element type, shape) of values that inference leaves open, from one
    run at each of the two input shapes.  If an operator's own inference leaves an axis open, its size depends on the
    data: it counts as dynamic, whatever the measured size.  For operators unknown to ONNX, the measured size counts.
    """
    first = propagate(graph, input_shapes, measured or {}, 0)
    second = first
    if (alternative and dict(alternative) != dict(input_shapes)) or measured:
        second = propagate(graph, alternative or input_shapes, measured_alternative or {}, 1, first.shapes)
    dynamic: dict[str, tuple[bool, ...]] = {}
    for value, shape in first.shapes.items():
        other = second.shapes.get(value)
        if other is None or len(other) != len(shape):
            dynamic[value] = (True,) * len(shape)
        else:
            dynamic[value] = tuple(a != b for a, b in zip(shape, other, strict=True))
    varying = frozenset(
        value
        for value, array in first.values.items()
        if value in first.sized and not np.array_equal(array, second.values.get(value, np.empty(0)))
    )
    return Facts(
        first.shapes,
        first.dtypes,
        first.values,
        frozenset(first.folded),
        frozenset(first.arithmetic),
        dynamic,
        varying,
        frozenset(first.contradictions),
        second.shapes,
    )


def recompute(
    graph: Graph,
    facts: Facts,
    shape_of: Callable[[str], Shape],
    wanted: Iterable[str],
    replaced: Mapping[tuple[int, int], Array] | None = None,
) -> dict[str, Array]:
    """Recompute shape arithmetic at other sizes: values of ``wanted`` if tensors have the shapes ``shape_of``.

    ``replaced``: (node, slot) → the array that enters there instead.  Runs only the nodes that lead to ``wanted``.  A value
    that cannot be computed is absent from the result.
    """
    edited = replaced or {}
    known: dict[str, Array | None] = {}

    def get(value: str) -> Array | None:
        if value in known:
            return known[value]
        index = graph.producer.get(value)
        if index is None or index not in facts.arithmetic:
            known[value] = facts.values.get(value, graph.constants.get(value))
            return known[value]
        node = graph.nodes[index]
        known[value] = None
        if node.op in ("Shape", "Size") and node.inputs[0] is not None and node.inputs[0] not in facts.values:
            known[value] = sizes_of(node, shape_of(node.inputs[0]))
            return known[value]
        feeds = [
            edited[index, slot] if (index, slot) in edited else None if i is None else get(i)
            for slot, i in enumerate(node.inputs)
        ]
        if all(f is not None or i is None for f, i in zip(feeds, node.inputs, strict=True)):
            try:
                for name, result in zip(node.outputs, run_node(node.proto, graph.opsets, feeds), strict=False):
                    if name is not None:
                        known[name] = result
            except CannotExecute:
                known[value] = None
        return known[value]

    answers = {value: get(value) for value in wanted}
    return {value: array for value, array in answers.items() if array is not None}
