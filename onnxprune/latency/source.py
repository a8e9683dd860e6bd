"""The source of a cut's time: the user's table, this machine's table, or the block steps of its kernels."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.budget.cost import Costing, stepped_macs
from onnxprune.budget.rounding import Blocks, blocks_like, machine_blocks
from onnxprune.coupling.groups import Coupling
from onnxprune.engine.session import Engine
from onnxprune.latency.cache import entry_count, measured_table
from onnxprune.latency.cost import latency
from onnxprune.latency.signature import timed_layers
from onnxprune.latency.table import Table, read_table
from onnxprune.linear.form import Layer
from onnxprune.options import Options
from onnxprune.progress import Progress

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, eq=False)
class TimeModel:
    """``time``: the cost of a cut, in seconds if it was ``measured``, else in executed MACs."""

    time: Costing
    blocks: Blocks
    measured: bool


def time_model(
    coupling: Coupling, layers: tuple[Layer, ...], options: Options, engine: Engine, progress: Progress
) -> TimeModel:
    """The time model that ``options`` ask for.

    Only a latency budget measures this machine (see :func:`onnxprune.latency.cache.measured_table`).  Every other
    budget uses the block steps of the kernels, so it gives the same cut every time.

    Raises:
        BudgetError: the user's table is unreadable or lacks a layer.
    """
    if options.latency_table is not None:
        return _by_table(coupling, layers, read_table(options.latency_table))
    if options.budget("latency") is not None and engine.providers[0] == CPU:
        signatures = [t.signature for t in timed_layers(coupling, layers)]
        entries = entry_count(signatures, engine.cores())
        if entries:
            progress.stage("latency table", entries)
        return _by_table(coupling, layers, measured_table(signatures, engine.cores(), progress.advance))
    blocks = machine_blocks() if options.block is None else blocks_like(options.block)
    return TimeModel(stepped_macs(coupling, blocks.block, blocks.align), blocks, False)


def _by_table(coupling: Coupling, layers: tuple[Layer, ...], table: Table) -> TimeModel:
    return TimeModel(latency(coupling, timed_layers(coupling, layers), table), table.blocks, True)
