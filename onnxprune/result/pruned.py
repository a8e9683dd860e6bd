"""The result of a prune: model, plan and report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from onnxprune.plan import Plan
from onnxprune.result.display import page, summary
from onnxprune.result.report import Report
from onnxprune.surgeon import to_graph

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


@dataclass(frozen=True, eq=False)
class Result:
    """The result of :func:`onnxprune.prune`; a notebook shows its report.

    ``model``: the pruned and refitted model.  ``plan``: the channels kept per group, for :func:`onnxprune.apply`.
    ``report``: sizes, latency, drop and notes.  ``path``: the written file; None from Python, which writes nothing.
    """

    model: onnx.ModelProto
    plan: Plan
    report: Report
    path: Path | None = None

    def graph(self) -> gs.Graph:
        """The model as an onnx-graphsurgeon graph for further edits; ``model`` does not change.

        Cost: one copy of the model.

        Raises:
            ModelError: onnx-graphsurgeon cannot import the model.
        """
        return to_graph(self.model)

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str | None:
        return page(self)
