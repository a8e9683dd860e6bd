"""The results of a run, as values.  Every report shows such a value."""

from __future__ import annotations

from onnxprune.result.change import Change
from onnxprune.result.comparison import Comparison, OperatorTime
from onnxprune.result.display import page, summary
from onnxprune.result.drop import Drop, DropSource
from onnxprune.result.inspection import Inspection, Outlook
from onnxprune.result.pruned import Result
from onnxprune.result.report import Report, Shown
from onnxprune.result.rows import GroupRow, LayerRow
from onnxprune.result.search import CurvePoint, GroupCurve, Refitted, SearchStep
from onnxprune.result.tuning import Stage, Tuned, Tuning, TuningPoint
from onnxprune.result.verification import Verification

__all__ = [
    "Change",
    "Comparison",
    "CurvePoint",
    "Drop",
    "DropSource",
    "GroupCurve",
    "GroupRow",
    "Inspection",
    "LayerRow",
    "OperatorTime",
    "Outlook",
    "Refitted",
    "Report",
    "Result",
    "SearchStep",
    "Shown",
    "Stage",
    "Tuned",
    "Tuning",
    "TuningPoint",
    "Verification",
    "page",
    "summary",
]
