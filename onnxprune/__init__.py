"""onnxprune: make an ONNX network smaller and faster without training, labels or the framework it came from.

``prune`` does the main work.  ``tune``, ``inspect``, ``why``, ``compare`` and ``apply`` match the commands of the same names.
``torch_plan`` carries a plan over to a checkpoint.  ``analyse`` returns the coupling itself.  In a notebook, results show
as pages.  Each docstring has a tested example, unless it needs an extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onnxprune import telemetry

if TYPE_CHECKING:
    from onnxprune.api import analyse, apply, compare, inspect, prune, tune, why
    from onnxprune.errors import OnnxPruneError
    from onnxprune.plan import Plan
    from onnxprune.result import Comparison, Inspection, Report, Result, Tuned
    from onnxprune.surgery.checkpoint import torch_plan

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Inspection",
    "OnnxPruneError",
    "Plan",
    "Report",
    "Result",
    "Tuned",
    "__version__",
    "analyse",
    "apply",
    "compare",
    "inspect",
    "prune",
    "torch_plan",
    "tune",
    "why",
]

_HOMES = {
    "analyse": "api",
    "apply": "api",
    "compare": "api",
    "inspect": "api",
    "prune": "api",
    "tune": "api",
    "why": "api",
    "torch_plan": "surgery.checkpoint",
    "OnnxPruneError": "errors",
    "Plan": "plan",
    "Comparison": "result",
    "Inspection": "result",
    "Report": "result",
    "Result": "result",
    "Tuned": "result",
}


# Later imports may load onnxruntime, which would record events from the start.
telemetry.turn_off()


def __getattr__(name: str) -> object:
    # Loaded on first use: `onnxprune --help` must not wait for onnxruntime.
    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxprune.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
