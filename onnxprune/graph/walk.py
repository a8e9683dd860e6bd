"""One pass over a graph: shapes, element types, and the values computed from constants and sizes alone."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper as oh

from onnxprune.graph.folding import compute
from onnxprune.graph.inference import infer
from onnxprune.graph.known import Known, MeasuredShapes, Shape
from onnxprune.graph.view import Body, Graph, Node


def propagate(
    graph: Graph,
    input_shapes: Mapping[str, Shape],
    measured: MeasuredShapes,
    grown: int,
    before: Mapping[str, Shape] | None = None,
) -> Known:
    """Walk over the main graph and all bodies; see :class:`onnxprune.graph.known.Known`.

    ``grown``: added to every size that depends on the data.  ``before``: shapes of an earlier walk.
    """
    known = Known(graph, input_shapes, measured, grown, before or {})
    _Walk(known).body(graph.main)
    return known


class _Walk:
    """Visits nodes in order, and bodies with their owner."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._members: dict[str, list[Node]] = {}
        for node in known.graph.nodes:
            self._members.setdefault(node.scope, []).append(node)

    def body(self, body: Body) -> None:
        for node in self._members.get(body.scope, ()):
            self._visit(node)

    def _visit(self, node: Node) -> None:
        if node.op == "Constant" and node.domain == "":
            out = node.outputs[0]
            if out is not None and out in self.known.graph.constants:
                value = self.known.graph.constants[out]
                self.known.put(out, int(oh.np_dtype_to_tensor_dtype(value.dtype)), value.shape)
                return
        if any(True for _ in node.bodies()):
            self._control(node)
            return
        infer(self.known, node)
        if not compute(self.known, node):
            for out in node.outputs:
                if out is not None and out not in self.known.shapes:
                    self.known.take_measured(out, node.domain == "")

    def _control(self, node: Node) -> None:
        """Visit the bodies of an If, Loop or Scan, then record the node's outputs."""
        branches = [self.known.graph.body_of(node, which) for which, _ in node.bodies()]
        carried = 0
        if node.op == "Loop":
            carried = self._enter_loop(node, branches[0])
        elif node.op == "Scan" and node.domain == "":
            carried = self._enter_scan(node, branches[0])
        taken = self._taken(node, branches) if node.op == "If" else branches
        for branch in branches:
            before = set(self.known.contradictions)
            self.body(branch)
            if branch not in taken:
                self.known.contradictions = before
        for position, out in enumerate(node.outputs):
            if out is not None and taken:
                self._leave(node, taken, position, out, carried)

    def _enter_loop(self, node: Node, body: Body) -> int:
        """Record the body's inputs.  Returns the number of carried values."""
        for position, name in enumerate(body.inputs):
            if position < 2:
                # The trip count, and the condition.
                self.known.put(name, (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)[position], ())
            else:
                self.known.alias(name, node.inputs[position])
        return len(node.inputs) - 2

    def _enter_scan(self, node: Node, body: Body) -> int:
        """Record the body's inputs: one slice of each scanned input.  Returns the number of carried values."""
        carried = len(node.inputs) - node.integer("num_scan_inputs", 0)
        axes = node.integers("scan_input_axes") or ()
        for position, name in enumerate(body.inputs):
            self.known.alias(name, node.inputs[position])
            if position >= carried and name in self.known.shapes:
                axis = axes[position - carried] if axes else 0
                dims = list(self.known.shapes[name])
                del dims[axis]
                self.known.shapes[name] = tuple(dims)
        return carried

    def _leave(self, node: Node, branches: list[Body], position: int, out: str, carried: int) -> None:
        """Record one output of a control-flow node, from the bodies that may run."""
        skip = 1 if node.op == "Loop" else 0
        inner = [b.outputs[position + skip] for b in branches if position + skip < len(b.outputs)]
        stacked = node.op in ("Loop", "Scan") and position >= carried
        shapes = {self.known.shapes.get(value) for value in inner}
        if not stacked and len(shapes) == 1 and None not in shapes and inner:
            self.known.alias(out, inner[0])
            return
        if stacked and len(shapes) == 1:
            self._stack(node, position - carried, out, next(iter(shapes)))
        self.known.take_measured(out, True)

    def _stack(self, node: Node, place: int, value: str, slice_shape: Shape | None) -> None:
        """Record the shape of a stacked output, except the number of slices, which the body does not determine."""
        if slice_shape is not None:
            axes = node.integers("scan_output_axes") if node.op == "Scan" else None
            axis = axes[place] % (len(slice_shape) + 1) if axes else 0
            self.known.partial[value] = (*slice_shape[:axis], None, *slice_shape[axis:])

    def _taken(self, node: Node, branches: list[Body]) -> list[Body]:
        """The branch that a known condition selects; both branches if the condition is unknown."""
        condition = self.known.value(node.inputs[0])
        if condition is None or condition.size != 1:
            return branches
        wanted = "then_branch" if bool(condition.reshape(())) else "else_branch"
        return [branch for branch in branches if branch.attribute == wanted]
