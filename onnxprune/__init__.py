"""onnxprune: make an ONNX network smaller and faster without training, labels or the framework it came from.

``prune`` is the main job; ``tune``, ``inspect``, ``why``, ``compare`` and ``apply`` are the command line's commands of the same
names; ``torch_plan`` carries a plan over to a checkpoint; ``analyse`` gives the coupling itself.  In a notebook their
results show as pages.  Each docstring has an example that runs, where no extra is needed.
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


# Whatever is imported next may import onnxruntime, which would begin to record events at once.
telemetry.turn_off()


def __getattr__(name: str) -> object:
    # Loaded on first use: `onnxprune --help` must not wait for onnxruntime.
    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxprune.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
