"""The multiple of channels that a run was asked for, and the channel counts that it prefers."""

from __future__ import annotations

from onnxprune.devices import TARGETS
from onnxprune.latency.source import TimeModel
from onnxprune.options import Options
from onnxprune.plan import Rounding


def multiple(options: Options) -> int | None:
    """The multiple of channels from ``--round`` or else ``--target``; None if neither is given, or ``--round auto:N``."""
    if options.round_to is None and options.block is None and options.target is not None:
        return TARGETS[options.target].multiple
    return options.round_to


def rounding_of(options: Options, timing: TimeModel) -> Rounding:
    """Describe the channel counts that the run prefers."""
    asked, blocks = multiple(options), timing.blocks
    if asked is None:
        return Rounding("" if timing.measured else f"auto:{blocks.block}", blocks.block, blocks.because)
    return Rounding(str(asked), None, f"--round {asked}" if options.round_to is not None else f"--target {options.target}")
