"""The boundary to onnx-graphsurgeon: convert its graphs to models, and results to its graphs.

Only this module imports onnx-graphsurgeon, on first use.  Its import and export drop what they do not know, such as doc
strings, metadata and quantization annotations: prefer the file if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnx

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

#: A model, as the public functions accept it.
Model: TypeAlias = "str | Path | onnx.ModelProto | gs.Graph"


def from_graph(model: Model) -> str | Path | onnx.ModelProto:
    """A ``gs.Graph`` exported to a new ModelProto; anything else unchanged.

    Raises:
        ModelError: if onnx-graphsurgeon cannot export the graph; contains its message.
    """
    # If the model is a gs.Graph, its module is already imported.
    surgeon = sys.modules.get("onnx_graphsurgeon")
    if surgeon is None or not isinstance(model, surgeon.Graph):
        return model
    with _quietly("export the graph", "check it with onnx_graphsurgeon.export_onnx(graph)"):
        exported: onnx.ModelProto = surgeon.export_onnx(model, do_type_check=False)
    return exported


def to_graph(model: onnx.ModelProto) -> gs.Graph:
    """The model as an independent ``gs.Graph``: edits of the graph do not change the model.

    Cost: one copy of the model.

    Raises:
        ModelError: if onnx-graphsurgeon cannot import the model (contains its message), or the model exceeds 2 GB.
    """
    import onnx_graphsurgeon as gs

    with _quietly("import the model", "save the model and edit the file with another tool"):
        # The exporter writes names into the tensors it gets, so give it a copy.
        return gs.import_onnx(onnx.ModelProto.FromString(model.SerializeToString()))


@contextmanager
def _quietly(doing: str, remedy: str) -> Iterator[None]:
    # onnx-graphsurgeon logs to standard output, which belongs to results.
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    try:
        yield
    except Exception as error:  # it throws whatever protobuf, numpy or its own checks throw
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"onnx-graphsurgeon cannot {doing}: {reason}; {remedy}") from error
    finally:
        G_LOGGER.severity = before
