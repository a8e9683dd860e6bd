"""The shapes, element types and values that one walk over a graph knows so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh

from onnxprune.graph.view import Graph, Node

Array = np.ndarray
Shape = tuple[int, ...]
#: Value id -> (element type, shape), measured in a run.
MeasuredShapes = Mapping[str, tuple[int, Shape]]


class Known:
    """What one walk knows.

    ``shapes``, ``dtypes``, ``values``, ``folded``, ``arithmetic`` and ``contradictions``: see
    :class:`onnxprune.graph.facts.Facts`.  ``sized`` holds the values that follow from sizes.  ``partial`` holds shapes
    with open sizes.  ``computed`` counts the elements of all computed values.  ``imports``: the model's opsets.
    """

    def __init__(
        self, graph: Graph, input_shapes: Mapping[str, Shape], measured: MeasuredShapes, grown: int, before: Mapping[str, Shape]
    ) -> None:
        self.graph = graph
        self.imports = [oh.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
        # Added to every axis whose size depends on the data.  Two walks then disagree on all sizes that follow from it.
        self.grown = grown
        # Shapes of an earlier walk, for sizes that this one cannot determine.
        self.before = before
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.values: dict[str, Array] = {}
        self.folded: set[int] = set()
        self.arithmetic: set[int] = set()
        self.contradictions: set[int] = set()
        self.sized: set[str] = set()
        self.partial: dict[str, tuple[int | None, ...]] = {}
        self.computed = 0
        self._measured = measured
        self._types: dict[str, onnx.TypeProto] = {}
        for name, tensor in graph.initializers.items():
            self.put(name, int(tensor.data_type), tuple(tensor.dims))
        for name in graph.inputs:
            kind = graph.types.get(name)
            if kind is not None and kind.HasField("tensor_type") and name in input_shapes:
                self.put(name, int(kind.tensor_type.elem_type), tuple(input_shapes[name]))

    def put(self, value: str, dtype: int, shape: Shape) -> None:
        self.dtypes[value] = dtype
        self.shapes[value] = shape

    def alias(self, value: str, source: str | None) -> None:
        """Give ``value`` the type and shape of ``source``."""
        if source is not None and source in self.shapes:
            self.put(value, self.dtypes[source], self.shapes[source])

    def value(self, name: str | None) -> Array | None:
        """The computed value or constant; ``None`` if it is unknown."""
        return None if name is None else self.values.get(name, self.graph.constants.get(name))

    def take_measured(self, value: str, inferred: bool) -> None:
        """Take a measured shape.  ``inferred``: sizes that inference leaves open depend on the data, so they grow."""
        if value not in self._measured:
            return
        kind, shape = self._measured[value]
        if inferred:
            partial = self.partial.get(value, (None,) * len(shape))
            shape = tuple(
                size if known is not None else max(size, 1) + self.grown
                for size, known in zip(shape, partial, strict=False)
            )
        self.put(value, kind, shape)

    def type_of(self, value: str) -> onnx.TypeProto | None:
        """The type with its shape; ``None`` if either is unknown."""
        if value not in self._types:
            if value not in self.shapes or not self.dtypes.get(value):
                return None
            self._types[value] = oh.make_tensor_type_proto(self.dtypes[value], self.shapes[value])
        return self._types[value]

    def learn(self, node: Node, results: Sequence[Array], sized: bool) -> None:
        """Record the computed outputs of ``node``.  ``sized``: they follow from sizes."""
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None:
                self.values[value] = result
                self.computed += result.size
                self.put(value, int(oh.np_dtype_to_tensor_dtype(result.dtype)), result.shape)
                if sized:
                    self.sized.add(value)
        (self.arithmetic if sized else self.folded).add(node.index)
