"""The border to onnx-graphsurgeon: its graphs come in as models, and a result goes out as one of them.

Nothing else here imports onnx-graphsurgeon, and this module does so on first use only.  Its import and export drop
what they do not know, such as doc strings, metadata and quantization annotations: give the file where there is one.
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

#: What the public functions take as a model.
Model: TypeAlias = "str | Path | onnx.ModelProto | gs.Graph"


def from_graph(model: Model) -> str | Path | onnx.ModelProto:
    """A ``gs.Graph`` exported to a new ModelProto; anything else as it is.

    Raises:
        ModelError: with onnx-graphsurgeon's own words, where it cannot export the graph.
    """
    # Who has a graph has imported its module.
    surgeon = sys.modules.get("onnx_graphsurgeon")
    if surgeon is None or not isinstance(model, surgeon.Graph):
        return model
    with _quietly("export the graph", "check it with onnx_graphsurgeon.export_onnx(graph)"):
        exported: onnx.ModelProto = surgeon.export_onnx(model, do_type_check=False)
    return exported


def to_graph(model: onnx.ModelProto) -> gs.Graph:
    """The model as a ``gs.Graph`` of its own: edits of the graph leave the model alone.

    Cost: one copy of the model.

    Raises:
        ModelError: with onnx-graphsurgeon's own words, where it cannot import the model; beyond 2 GB.
    """
    import onnx_graphsurgeon as gs

    with _quietly("import the model", "save the model and edit the file with another tool"):
        # Its exporter writes names into the tensors that it was given.
        return gs.import_onnx(onnx.ModelProto.FromString(model.SerializeToString()))


@contextmanager
def _quietly(doing: str, remedy: str) -> Iterator[None]:
    # Its logger prints to standard output, which belongs to results.
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
