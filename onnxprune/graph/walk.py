"""One pass over a graph: shapes, element types, and the values computed from constants and sizes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

from onnxprune.graph.dequantized import dequantizes
from onnxprune.graph.execute import CannotExecute, run_node
from onnxprune.graph.infer import NEWEST, declared_shape, infer_outputs, newest_schema
from onnxprune.graph.view import Body, Graph, Node

Array = np.ndarray
Shape = tuple[int, ...]
#: Value id -> (element type, shape), measured in a run.
Measured = Mapping[str, tuple[int, Shape]]

#: Operators with constant inputs that the graph must still compute: folding them would store int8 weights as floats,
#: or freeze random values.
NEVER_FOLDED = frozenset(
    [
        "DequantizeLinear",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
        "If",
        "Loop",
        "Scan",
        "SequenceEmpty",
    ]
)
#: Operators of the default domain without shape inference in onnx.  Their output has the shape of their input.
SHAPE_KEPT = frozenset({"GroupNormalization", "MeanVarianceNormalization", "SimplifiedLayerNormalization"})
#: Operators that slide a window.  If it is longer than its input, inference continues, but a run would fail.
WINDOWED = frozenset(
    ["Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "AveragePool", "LpPool", "MaxPool"]
)
#: Maximum elements of a value that counts as shape arithmetic.
SMALL = 4096
#: Maximum elements, over all constants, that one walk computes: a model may request more than fits any machine.
BEARABLE = 1 << 26


def sizes_of(node: Node, shape: Shape) -> Array:
    """The result of a Shape or Size ``node`` for a tensor of this ``shape``, int64."""
    if node.op == "Size":
        return np.asarray(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return np.asarray(shape[start:end], dtype=np.int64)


def _has_shapes(inferred: Mapping[str, onnx.TypeProto] | None) -> bool:
    return inferred is not None and all(declared_shape(kind) is not None for kind in inferred.values())


class Walk:
    """One pass over the graph.  Start it with :meth:`body` of the main graph; it visits bodies with their owner.

    Fills ``shapes``, ``dtypes``, ``values``, ``folded``, ``arithmetic`` and ``contradictions``, see
    :class:`onnxprune.graph.facts.Facts`.  ``sized`` holds the values that follow from sizes.  ``before`` holds the
    shapes of an earlier walk, for sizes that this one cannot determine.
    """

    def __init__(
        self,
        graph: Graph,
        input_shapes: Mapping[str, Shape],
        measured: Measured,
        grown: int,
        before: Mapping[str, Shape] | None = None,
    ) -> None:
        self.graph = graph
        self.measured = measured
        self.before = before or {}
        # Added to every axis whose size depends on the data.  Two walks then disagree on all sizes that follow from it.
        self.grown = grown
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.values: dict[str, Array] = {}
        self.folded: set[int] = set()
        self.arithmetic: set[int] = set()
        self.contradictions: set[int] = set()
        self._partial: dict[str, tuple[int | None, ...]] = {}
        self._types: dict[str, onnx.TypeProto] = {}
        self.sized: set[str] = set()
        self._computed = 0
        self._members: dict[str, list[Node]] = {}
        self._imports = [oh.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
        for node in graph.nodes:
            self._members.setdefault(node.scope, []).append(node)
        for name, tensor in graph.initializers.items():
            self._put(name, int(tensor.data_type), tuple(tensor.dims))
        for name in graph.inputs:
            kind = graph.types.get(name)
            if kind is not None and kind.HasField("tensor_type") and name in input_shapes:
                self._put(name, int(kind.tensor_type.elem_type), tuple(input_shapes[name]))

    def _put(self, value: str, dtype: int, shape: Shape) -> None:
        self.dtypes[value] = dtype
        self.shapes[value] = shape

    def body(self, body: Body) -> None:
        for node in self._members.get(body.scope, ()):
            self._visit(node)

    def _known(self, value: str | None) -> Array | None:
        if value is None:
            return None
        return self.values.get(value, self.graph.constants.get(value))

    def _visit(self, node: Node) -> None:
        if node.op == "Constant" and node.domain == "":
            out = node.outputs[0]
            if out is not None and out in self.graph.constants:
                value = self.graph.constants[out]
                self._put(out, int(oh.np_dtype_to_tensor_dtype(value.dtype)), value.shape)
                return
        if any(True for _ in node.bodies()):
            self._control(node)
            return
        self._infer(node)
        if not self._compute(node):
            for out in node.outputs:
                if out is not None and out not in self.shapes:
                    self._take_measured(out, node.domain == "")

    def _take_measured(self, value: str, inferred: bool) -> None:
        if value not in self.measured:
            return
        kind, shape = self.measured[value]
        if inferred:
            partial = self._partial.get(value, (None,) * len(shape))
            shape = tuple(
                size if known is not None else max(size, 1) + self.grown
                for size, known in zip(shape, partial, strict=False)
            )
        self._put(value, kind, shape)

    def _infer(self, node: Node) -> None:
        """Record the types and shapes of the node's outputs, as far as inference knows them."""
        if node.domain == "" and node.op in SHAPE_KEPT and node.outputs and node.outputs[0] is not None:
            self._alias(node.outputs[0], node.inputs[0])
            return
        schema = self._schema(node)
        types = None if schema is None else self._input_types(node)
        if schema is None or types is None:
            return
        inferred = self._inferred(node, schema, types)
        if inferred is None:
            # The checker and the final run judge the model.  Here the value stays unknown.
            self.contradictions.add(node.index)
            self._take_stated(node)
            return
        for name, value in zip(node.proto.output, node.outputs, strict=True):
            if value is not None and name in inferred and inferred[name].HasField("tensor_type"):
                self._record(node, value, inferred[name])
        if node.op == "Reshape" and not self._same_count(node.inputs[0], node.outputs[0]):
            self.contradictions.add(node.index)

    def _schema(self, node: Node) -> onnx.defs.OpSchema | None:
        """The operator's schema in the model's opset; ``None`` if onnx does not know the operator."""
        version = self.graph.opsets.get(node.domain)
        if version is None or not onnx.defs.has(node.proto.op_type, version, node.domain):
            return None
        return onnx.defs.get_schema(node.proto.op_type, version, node.domain)

    def _input_types(self, node: Node) -> dict[str, onnx.TypeProto] | None:
        """Types of the node's inputs, by their names in the node; ``None`` if one is unknown."""
        types: dict[str, onnx.TypeProto] = {}
        for name, value in zip(node.proto.input, node.inputs, strict=True):
            kind = None if value is None else self._type(value)
            if value is not None and kind is None:
                return None
            if kind is not None:
                types[name] = kind
        return types

    def _inferred(
        self, node: Node, schema: onnx.defs.OpSchema, types: Mapping[str, onnx.TypeProto]
    ) -> Mapping[str, onnx.TypeProto] | None:
        """Output types by ``schema`` or, if that leaves shapes open, by the operator's newest version."""
        data = {}
        for name, value in zip(node.proto.input, node.inputs, strict=True):
            known = self._known(value)
            if known is not None and known.size <= SMALL and known.dtype.kind in "iufb":
                data[name] = numpy_helper.from_array(known)

        def attempt(
            version: onnx.defs.OpSchema, imports: Sequence[onnx.OperatorSetIdProto]
        ) -> Mapping[str, onnx.TypeProto] | None:
            try:
                return infer_outputs(node, version, types, data, imports)
            except Exception:
                return None

        inferred = attempt(schema, self._imports)
        if not _has_shapes(inferred) and (newest := newest_schema(node, schema)) is not None:
            # Exporters use what only a later version of the operator allows (a negative axis), and runtimes accept it.
            later = attempt(newest, NEWEST)
            inferred = later if _has_shapes(later) else inferred
        return inferred

    def _record(self, node: Node, value: str, inferred: onnx.TypeProto) -> None:
        """Record the inferred type and shape of one output."""
        kind = inferred.tensor_type
        self.dtypes[value] = int(kind.elem_type)
        dims = declared_shape(inferred)
        if dims is None:
            return
        self._partial[value] = dims
        least = 1 if node.op in WINDOWED and not self._is_empty(node) else 0
        # Inference computes negative sizes if a window is larger than its input.
        if any(dim.HasField("dim_value") and dim.dim_value < least for dim in kind.shape.dim):
            self.contradictions.add(node.index)
        if all(d is not None for d in dims):
            self.shapes[value] = tuple(d for d in dims if d is not None)

    def _take_stated(self, node: Node) -> None:
        """Take the sizes that a Reshape states, although they contradict its input.

        The input's size may be a guess, if it depends on the data.  The stated sizes hold all the same.  Only the size
        that the Reshape leaves open counts as changing.
        """
        if node.op != "Reshape" or len(node.inputs) < 2:
            return
        source, out = node.inputs[0], node.outputs[0] if node.outputs else None
        target = self._known(node.inputs[1])
        shape = self.before.get(out or "")
        if target is None or shape is None or out is None or source not in self.dtypes or node.inputs[1] in self.sized:
            return
        stated = target.ravel().tolist()
        if 0 not in stated and len(stated) == len(shape):
            sizes = tuple(old + self.grown if size < 0 else size for size, old in zip(stated, shape, strict=True))
            self._put(out, self.dtypes[source], sizes)

    def _same_count(self, one: str | None, other: str | None) -> bool:
        """Whether two values have the same number of elements, as far as their shapes are known."""
        before, after = self.shapes.get(one or ""), self.shapes.get(other or "")
        return before is None or after is None or math.prod(before) == math.prod(after)

    def _is_empty(self, node: Node) -> bool:
        return any(0 in self.shapes.get(value, ()) for value in node.inputs if value is not None)

    def _type(self, value: str) -> onnx.TypeProto | None:
        if value not in self._types:
            if value not in self.shapes or not self.dtypes.get(value):
                return None
            self._types[value] = oh.make_tensor_type_proto(self.dtypes[value], self.shapes[value])
        return self._types[value]

    def _compute(self, node: Node) -> bool:
        """Evaluate ``node`` if its inputs are known.  Returns whether its outputs became known values."""
        if node.op in NEVER_FOLDED or node.domain != "" or dequantizes(self.graph, node):
            return False
        if node.op in ("Shape", "Size"):
            source, out = node.inputs[0], node.outputs[0]
            if source is None or out is None or source not in self.shapes:
                return False
            result = sizes_of(node, self.shapes[source])
            fixed = self._known(source) is not None and source not in self.sized and not self._is_weight(source)
            self._learn(node, (result,), sized=not fixed)
            return True
        feeds = [self._known(value) for value in node.inputs]
        present = [value for value in node.inputs if value is not None]
        if not present or any(self._known(value) is None for value in present):
            return False
        sized = any(value in self.sized for value in present)
        if (sized and not self._is_small(node)) or not self._is_bearable(node):
            return False
        try:
            results = run_node(node.proto, self.graph.opsets, feeds)
        except CannotExecute:
            return False
        if sized and any(r.size > SMALL or (r.dtype.kind == "f" and r.ndim > 1) for r in results):
            return False
        self._learn(node, results, sized)
        return True

    def _is_weight(self, value: str) -> bool:
        """Whether a cut may change the size of a constant.  It never changes that of a list of sizes or indices."""
        return value in self.graph.constants and self.dtypes[value] not in (
            onnx.TensorProto.INT64,
            onnx.TensorProto.INT32,
            onnx.TensorProto.BOOL,
        )

    def _is_small(self, node: Node) -> bool:
        shapes = [self.shapes.get(o) for o in node.outputs if o is not None]
        return all(s is None or int(np.prod(s, dtype=np.int64)) <= SMALL for s in shapes)

    def _is_bearable(self, node: Node) -> bool:
        """Whether the results of ``node`` fit into what one walk may compute, as far as their sizes are known."""
        shapes = [self.shapes.get(o) for o in node.outputs if o is not None]
        return self._computed + sum(math.prod(s) for s in shapes if s is not None) <= BEARABLE

    def _learn(self, node: Node, results: Sequence[Array], sized: bool) -> None:
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None:
                self.values[value] = result
                self._computed += result.size
                self._put(value, int(oh.np_dtype_to_tensor_dtype(result.dtype)), result.shape)
                if sized:
                    self.sized.add(value)
        (self.arithmetic if sized else self.folded).add(node.index)

    def _control(self, node: Node) -> None:
        """Visit the bodies of an If, Loop or Scan, then record the node's outputs."""
        branches = [self.graph.body_of(node, which) for which, _ in node.bodies()]
        carried = 0
        if node.op == "Loop":
            carried = self._enter_loop(node, branches[0])
        elif node.op == "Scan" and node.domain == "":
            carried = self._enter_scan(node, branches[0])
        taken = self._taken(node, branches) if node.op == "If" else branches
        for branch in branches:
            before = set(self.contradictions)
            self.body(branch)
            if branch not in taken:
                self.contradictions = before
        for position, out in enumerate(node.outputs):
            if out is not None and taken:
                self._leave(node, taken, position, out, carried)

    def _enter_loop(self, node: Node, body: Body) -> int:
        """Record the body's inputs.  Returns the number of carried values."""
        for position, name in enumerate(body.inputs):
            if position < 2:
                # The trip count, and the condition.
                self._put(name, (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)[position], ())
            else:
                self._alias(name, node.inputs[position])
        return len(node.inputs) - 2

    def _enter_scan(self, node: Node, body: Body) -> int:
        """Record the body's inputs: one slice of each scanned input.  Returns the number of carried values."""
        carried = len(node.inputs) - node.integer("num_scan_inputs", 0)
        axes = node.integers("scan_input_axes") or ()
        for position, name in enumerate(body.inputs):
            self._alias(name, node.inputs[position])
            if position >= carried and name in self.shapes:
                axis = axes[position - carried] if axes else 0
                dims = list(self.shapes[name])
                del dims[axis]
                self.shapes[name] = tuple(dims)
        return carried

    def _leave(self, node: Node, branches: list[Body], position: int, out: str, carried: int) -> None:
        """Record one output of a control-flow node, from the bodies that may run."""
        skip = 1 if node.op == "Loop" else 0
        inner = [b.outputs[position + skip] for b in branches if position + skip < len(b.outputs)]
        stacked = node.op in ("Loop", "Scan") and position >= carried
        shapes = {self.shapes.get(value) for value in inner}
        if not stacked and len(shapes) == 1 and None not in shapes and inner:
            self._alias(out, inner[0])
            return
        if stacked and len(shapes) == 1:
            self._stack(node, position - carried, out, next(iter(shapes)))
        self._take_measured(out, True)

    def _stack(self, node: Node, place: int, value: str, slice_shape: Shape | None) -> None:
        """Record the shape of a stacked output, except the number of slices, which the body does not determine."""
        if slice_shape is not None:
            axes = node.integers("scan_output_axes") if node.op == "Scan" else None
            axis = axes[place] % (len(slice_shape) + 1) if axes else 0
            self._partial[value] = (*slice_shape[:axis], None, *slice_shape[axis:])

    def _taken(self, node: Node, branches: list[Body]) -> list[Body]:
        """The branch that a known condition selects; both branches if the condition is unknown."""
        condition = self._known(node.inputs[0])
        if condition is None or condition.size != 1:
            return branches
        wanted = "then_branch" if bool(condition.reshape(())) else "else_branch"
        return [branch for branch in branches if branch.attribute == wanted]

    def _alias(self, value: str, source: str | None) -> None:
        if source is not None and source in self.shapes:
            self._put(value, self.dtypes[source], self.shapes[source])
