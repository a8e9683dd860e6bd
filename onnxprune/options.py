"""Everything that a user may choose, in one value; the command line and the Python API share it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.devices import TARGETS
from onnxprune.errors import OptionError
from onnxprune.option_kinds import KINDS, one_of
from onnxprune.target import Budget, BudgetKind, Width
from onnxprune.tuning_length import TuningLength

if TYPE_CHECKING:
    # Only for the annotation: importing it loads onnxruntime, which `--help` must not wait for.
    from onnxprune.calibration.preprocess import Preprocess

#: Leaves the choice to the run; for selectors see :func:`onnxprune.effort.selectors`.
AUTO = "auto"
#: The tasks that ``--task`` states; :data:`AUTO` leaves it to the outputs.
TASKS = (AUTO, "classify", "detect", "segment", "pose", "embed", "ctc", "regress")
SELECTORS = (AUTO, "qr", "obs", "magnitude", "random")
REFITS = ("lstsq", "none")
RULES = ("exact", "approximate")
#: How pictures may be changed while a model is tuned.
AUGMENTS = ("mirror", "shift", "mix", "cut")
DEVICE_NAMES = ("auto", "cpu", "cuda")
EFFORT_NAMES = ("fast", "default", "best")
#: Keys of :data:`onnxprune.calibration.preprocess.PRESETS`, which loads numpy.
PRESET_NAMES = ("imagenet", "unit", "symmetric", "caffe", "raw")
#: More threads than this only wait for each other.
THREADS_PER_CORE = 4


@dataclass(frozen=True)
class Options:
    """The choices of a run.

    ``budgets``: at most one of each kind; the result meets all.  Empty: the default one, see
    :func:`onnxprune.pipeline.defaults.with_defaults`.
    ``samples``: the maximum of calibration samples; None: what the model's cost allows
    (:func:`onnxprune.effort.samples`; for made-up ones see :mod:`onnxprune.calibration.synthetic`).
    ``preprocess``: None for the default of the model's input.
    ``select``, ``refit``, ``rules``, ``effort``: one of :data:`SELECTORS`, :data:`REFITS`, :data:`RULES`,
    :data:`EFFORT_NAMES`.  The approximate rules also narrow normalizations, whose mean and variance then cover only
    the remaining channels.
    ``round_to``: channel counts are multiples of it.  None: the counts that run fastest, by ``latency_table`` (a file of
    times measured elsewhere), or on ``target`` (a name of :data:`onnxprune.devices.TARGETS`), or else on kernels that
    compute ``block`` channels at once (None: the block of this machine's instruction set).
    ``exclude``, ``only``: globs over nodes, tensors, groups and ``op:TYPE``.
    ``keep``, ``at_least``, ``at_most``: how many channels the groups that a glob matches keep.
    ``evaluate``: the user's metric, ``FILE.py:FUNCTION`` or a callable ``f(session_runner) -> float``; higher is better.
    ``test``: labelled data, for the report only.
    ``threads``: 0 for all cores, at most :data:`THREADS_PER_CORE` each.
    ``memory``: bytes; None for all that the machine has.
    ``shapes``: input name to shape, for dynamic dims.
    ``tune``: how long to tune the result; None: no tuning.  ``augment``: how tuning varies pictures: "auto", "none", or
    some of "mirror", "shift", "mix" and "cut", separated by commas.  ``device``: one of :data:`DEVICE_NAMES`.
    ``task``: one of :data:`TASKS`.  ``layout``: how a detector's outputs are written, see
    :mod:`onnxprune.tasks.detect.layout`.  ``pictures``: how many held-out samples the report shows.
    ``workers``: the number of processes on this machine that share the calibration and the pricing of groups.
    ``cluster`` instead: the address of a dask scheduler whose workers share them.

    Raises:
        OptionError: for a value that an option cannot have.
    """

    budgets: tuple[Budget, ...] = ()
    samples: int | None = None
    preprocess: Preprocess | None = None
    select: str = AUTO
    refit: str = "lstsq"
    round_to: int | None = None
    block: int | None = None
    latency_table: Path | None = None
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    keep: tuple[Width, ...] = ()
    at_least: tuple[Width, ...] = ()
    at_most: tuple[Width, ...] = ()
    target: str | None = None
    evaluate: object | None = None
    test: object | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0
    memory: int | None = None
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rules: str = "exact"
    effort: str = "default"
    tune: TuningLength | None = None
    augment: str = "auto"
    device: str = "auto"
    task: str = AUTO
    layout: str = ""
    pictures: int = 4
    workers: int = 0
    cluster: str | None = None

    def __post_init__(self) -> None:
        # The command line has checked these; a caller in Python would learn of them from a KeyError, or never.
        for name in ("exclude", "only", "providers"):
            _check_tuple(name, getattr(self, name))
        for name, kind in KINDS.items():
            kind.check(name, getattr(self, name))
        one_of("select", self.select, SELECTORS)
        one_of("refit", self.refit, REFITS)
        one_of("rules", self.rules, RULES)
        one_of("effort", self.effort, EFFORT_NAMES)
        one_of("device", self.device, DEVICE_NAMES)
        one_of("task", self.task, TASKS)
        if self.layout and self.task not in (AUTO, "detect", "pose"):
            raise OptionError(f"layout says how a detector's outputs are written; it does not go with task {self.task!r}")
        for name, value, least in (
            ("samples", self.samples, 1),
            ("round_to", self.round_to, 1),
            ("block", self.block, 1),
            ("threads", self.threads, 0),
            ("memory", self.memory, 1),
            ("seed", self.seed, 0),
            ("pictures", self.pictures, 0),
            ("workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise OptionError(f"{name} must be at least {least}, got {value}")
        if self.workers and self.cluster is not None:
            raise OptionError("workers starts processes here, cluster uses the workers of a scheduler; give one of them")
        _check_count("threads", self.threads)
        _check_count("workers", self.workers)
        _check_kinds(self.budgets)
        if self.target is not None:
            one_of("target", self.target, tuple(TARGETS))

    def budget(self, kind: BudgetKind) -> float | None:
        """The value of the budget of one kind; None if there is none."""
        return next((budget.value for budget in self.budgets if budget.kind == kind), None)


def _check_count(name: str, count: int) -> None:
    # The run starts them all, threads even for each of dozens of sessions, until the system refuses.
    cores = os.cpu_count() or 1
    most = THREADS_PER_CORE * cores
    if count > most:
        rest = ", or 0 for as many as there are cores" if name == "threads" else ""
        raise OptionError(
            f"{name}: {count} are too many for the {cores} cores of this machine; give at most {most}{rest}"
        )


def _check_kinds(budgets: Sequence[Budget]) -> None:
    kinds = [budget.kind for budget in budgets]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        raise OptionError(f"budgets: '{twice}' is given twice; give one")


def _check_tuple(name: str, given: object) -> None:
    if isinstance(given, str):
        raise OptionError(f"{name} takes several: give ({given!r},), not {given!r}")
