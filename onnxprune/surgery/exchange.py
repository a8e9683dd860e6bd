"""In and out of onnx-graphsurgeon, quietly, with what its exporter cannot write put into a form that it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxprune.errors import ModelError

# Stands for an empty list while onnx-graphsurgeon exports, since it cannot tell an empty list's type.
_EMPTY_LIST = "\0onnxprune.empty"


LISTS = {onnx.AttributeProto.FLOATS: "floats", onnx.AttributeProto.INTS: "ints", onnx.AttributeProto.STRINGS: "strings"}


class _Sealed(LazyValues):  # type: ignore[misc]
    """Values in memory, converted by onnx, which unlike the exporter packs small types and writes strings."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype
        self.nbytes = values.nbytes

    @property
    def tensor(self) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(self.values)

    def load(self) -> np.ndarray[Any, Any]:
        return self.values


@contextmanager
def _quietly(doing: str) -> Iterator[None]:
    # Its logger prints to standard output, which belongs to results.
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"onnx-graphsurgeon {gs.__version__} cannot {doing} the model ({reason}); "
            "simplify the model, or report it with the model attached"
        ) from error
    finally:
        G_LOGGER.severity = before


def import_graph(model: onnx.ModelProto) -> gs.Graph:
    """Raises ModelError with onnx-graphsurgeon's own words where it cannot import the model."""
    with _quietly("import"):
        return gs.import_onnx(model)


def export_model(graph: gs.Graph) -> onnx.ModelProto:
    """The graph as it is exported, and left as it was; raises ModelError where it cannot be."""
    undo: list[Callable[[], None]] = []
    try:
        for part in [graph, *graph.functions]:
            _seal(part, undo)
        # The exporter adds the domains of new nodes to the list that the graph was imported with.
        domains = graph.import_domains
        if domains is not None:
            graph.import_domains = list(domains)
            undo.append(partial(setattr, graph, "import_domains", domains))
        with _quietly("export"):
            return gs.export_onnx(graph, do_type_check=False)
    finally:
        for step in reversed(undo):
            step()


def _seal(graph: gs.Graph, undo: list[Callable[[], None]]) -> None:
    constants: dict[int, gs.Constant] = {}

    def note(value: Any) -> None:
        # Another type declared for export asks the exporter for a conversion, which is its own business.
        fits = isinstance(value, gs.Constant) and isinstance(value._values, np.ndarray)
        if fits and value._export_dtype in (None, value._values.dtype):
            constants[id(value)] = value

    def note_attributes(attributes: dict[str, Any]) -> None:
        for name, value in list(attributes.items()):
            note(value)
            if isinstance(value, gs.Graph):
                _seal(value, undo)
            elif isinstance(value, (list, tuple)) and not value:
                attributes[name] = _EMPTY_LIST
                undo.append(partial(attributes.__setitem__, name, value))

    for tensor in [*graph.inputs, *graph.outputs]:
        note(tensor)
    for node in graph.nodes:
        for tensor in [*node.inputs, *node.outputs]:
            note(tensor)
        note_attributes(node.attrs)
    if isinstance(graph, gs.Function):
        note_attributes(graph.attrs)
    for constant in constants.values():
        if isinstance(constant._values, _Sealed):
            # A body that reads it, too, has been here.
            continue
        undo.append(partial(setattr, constant, "_values", constant._values))
        constant._values = _Sealed(constant._values)


def is_empty_list(attribute: onnx.AttributeProto) -> bool:
    """Whether this attribute of an export stands for an empty list."""
    return bool(attribute.type == onnx.AttributeProto.STRING and attribute.s == _EMPTY_LIST.encode())


def restore_empty_lists(part: Message) -> None:
    """Put empty lists back, in place, wherever an export has something that stands for them."""
    if isinstance(part, onnx.AttributeProto):
        if is_empty_list(part):
            part.ClearField("s")
            # Of the list kinds only integers occur empty in the standard: axes, shapes, pads of nothing.
            part.type = onnx.AttributeProto.INTS
        elif part.type == onnx.AttributeProto.GRAPH:
            restore_empty_lists(part.g)
        return
    if isinstance(part, onnx.NodeProto):
        for attribute in part.attribute:
            restore_empty_lists(attribute)
        return
    if isinstance(part, (onnx.GraphProto, onnx.FunctionProto)):
        for node in part.node:
            restore_empty_lists(node)
