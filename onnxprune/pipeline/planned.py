"""The plan of a run: the channels that stay, and what was asked for."""

from __future__ import annotations

import numpy as np

from onnxprune.options import Options
from onnxprune.pipeline.setup import Context
from onnxprune.plan import Asked, Cut, Plan, Rounding, fingerprint
from onnxprune.surgery.checkpoint import tensor_cuts

Array = np.ndarray


def plan_of(context: Context, keep: Array, rounding: Rounding | None, options: Options) -> Plan:
    """The plan of a cut that ``options`` asked for."""
    cuts = []
    for group in context.coupling.groups:
        kept = np.flatnonzero(keep[group.units])
        if len(kept) < len(group):
            cuts.append(Cut(group.name, len(group), tuple(int(k) for k in kept)))
    rules = context.coupling.walked.rules
    tensors = tensor_cuts(context.coupling, keep)
    return Plan(fingerprint(context.loaded.proto), tuple(cuts), tensors, rules, rounding, _asked(options))


def _asked(options: Options) -> dict[str, Asked]:
    """What a plan records of the options: those that decide how many channels stay."""
    said: dict[str, Asked] = {budget.kind.replace("_", "-"): budget.value for budget in options.budgets}
    for name, widths in (("keep", options.keep), ("at-least", options.at_least), ("at-most", options.at_most)):
        said[name] = tuple(width.describe() for width in widths)
    said |= {"only": options.only, "exclude": options.exclude, "target": options.target or ()}
    return {name: value for name, value in said.items() if value != ()}
