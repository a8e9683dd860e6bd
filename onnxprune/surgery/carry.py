"""Editing a model with onnx-graphsurgeon without losing what its import and export drop or change.

Three versions of every part of a model are compared: the original, the original after an unedited round trip
through onnx-graphsurgeon, and the edited export. Where the last two agree nothing was edited, and the
original's own bytes are taken; where they differ, only the difference is laid over the original.

Measured on onnx-graphsurgeon 0.6.1, a round trip loses: doc_string, metadata_props, overload and device
configurations of nodes; model domain, version, doc_string, metadata, training_info and configuration; graph
metadata and quantization_annotation; inputs that are also initializers, unused initializers, stale
value_info, value_info of initializers; denotations; overload, value_info and metadata of functions;
attributes of tensor list, graph list, type and sparse kinds. It raises on empty list attributes, bytes
that are no UTF-8, optional, map and opaque types. It copies outer initializers into sub-graphs, and once
a weight has been read it writes int4 unpacked and strings as pointers. All of this is hidden from it, or
put right, here.
"""

from __future__ import annotations

from itertools import count

import onnx
import onnx_graphsurgeon as gs

from onnxprune.graph.tensors import map_tensors
from onnxprune.surgery.exchange import export_model, import_graph
from onnxprune.surgery.hide import bind, shadow_of
from onnxprune.surgery.merge import Merge
from onnxprune.surgery.origin import function_path, stamps_of, stub_of, tensors_of, visible_functions


def to_surgeon(model: onnx.ModelProto) -> gs.Graph:
    """Import a model for editing with onnx-graphsurgeon; get the result with `from_surgeon(graph, model)`.

    The model is neither changed nor copied: constants read their values from it when asked, in their own
    dtype (ml_dtypes for bfloat16, float8, 4 and 2 bits; object arrays for strings). Hidden from the
    graph, and back after `from_surgeon`: attributes that onnx-graphsurgeon has no kind for, sparse
    initializers (seen as variables without producer), functions that differ in `overload` only. Do not
    export the graph otherwise: its constants are placeholders. Raises ModelError if onnx-graphsurgeon
    still cannot import the model.
    """
    shadow, tensors = shadow_of(model)
    graph = import_graph(shadow)
    bind(graph, shadow.graph, model.graph, tensors, "")
    for function, twin, source in zip(graph.functions, shadow.functions, visible_functions(model), strict=True):
        bind(function, twin, source, tensors, function_path(source))
    return graph


def from_surgeon(graph: gs.Graph, original: onnx.ModelProto) -> onnx.ModelProto:
    """The model that an edited `to_surgeon(original)` stands for: a new one, `original` plus edits.

    Whatever was not edited keeps the original's bytes. Nodes are recognised by a stamp, whatever was
    renamed or moved; copies of a graph by their outputs. The graph stays as it is and can be edited on.
    Cost: one copy of the weights. Raises ModelError if onnx-graphsurgeon cannot export the graph.
    """
    base = export_model(to_surgeon(original))
    return Merge(tensors_of(original), stamps_of(graph)).model(original, base, export_model(graph))


def carry_over(original: onnx.ModelProto, exported: onnx.ModelProto) -> onnx.ModelProto:
    """`original` plus the edits that `exported`, an edited gs.export_onnx(gs.import_onnx(original)), shows.

    A new ModelProto; where nothing was edited it has the original's bytes. Nodes are recognised by their
    outputs, then by name. Raises ModelError if onnx-graphsurgeon cannot import the original: use the
    pair `to_surgeon` / `from_surgeon`, which can.
    """
    numbers = count()
    stubbed = map_tensors(original, lambda tensor: stub_of(tensor, next(numbers)))
    return Merge(tensors_of(original), {}).model(original, export_model(import_graph(stubbed)), exported)
