"""What each value of a graph depends on: nothing, the shapes of the inputs, or their values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum

from onnxprune.tuning.program import Block, Step


class Level(IntEnum):
    """``FIXED``: the same in every run.  ``SHAPED``: the same for equal input shapes.  ``DATA``: anything else."""

    FIXED = 0
    SHAPED = 1
    DATA = 2


@dataclass(frozen=True, eq=False)
class Levels:
    """``level``: the level of each value.  ``unsized``: values whose shape depends on data.  ``learnt``: values that
    depend on a trained weight.  ``apart``: learnt values that two models may fill with different things, because a
    comparison of values decides their places or number."""

    level: dict[str, Level] = field(default_factory=dict)
    unsized: set[str] = field(default_factory=set)
    learnt: set[str] = field(default_factory=set)
    apart: set[str] = field(default_factory=set)

    def of(self, value: str | None) -> Level:
        return Level.FIXED if value is None else self.level.get(value, Level.DATA)


def levels_of(block: Block, fixed: Collection[str], trained: Collection[str]) -> Levels:
    """The levels of all values in ``block``.

    ``fixed``: constants that are not trained.  ``trained`` values and inputs count as data.
    """
    levels = Levels(dict.fromkeys(fixed, Level.FIXED))
    levels.level.update((name, Level.DATA) for name in trained)
    levels.learnt.update(trained)
    _walk(block, levels, frozenset(trained))
    return levels


def _walk(block: Block, levels: Levels, trained: frozenset[str]) -> None:
    for step in block.steps:
        if trained.issuperset(step.outputs):
            continue
        for inner in step.blocks.values():
            _walk(inner, levels, trained)
        reads = list(dict.fromkeys(v for one in step.inside() for v in one.inputs if v is not None))
        level, sized = _level(step, reads, levels)
        learnt = level == Level.DATA and any(value in levels.learnt for value in reads)
        apart = learnt and (any(value in levels.apart for value in reads) or _decides(step, levels))
        for out in (o for o in step.outputs if o is not None):
            levels.level[out] = level
            if not sized:
                levels.unsized.add(out)
            if learnt:
                levels.learnt.add(out)
            if apart:
                levels.apart.add(out)


def _level(step: Step, reads: Collection[str], levels: Levels) -> tuple[Level, bool]:
    """(level, whether the shape follows from input shapes) of the step's outputs."""
    sized = not any(value in levels.unsized for value in reads)
    if step.node.op in ("Shape", "Size") and not step.node.domain:
        return (Level.SHAPED if sized else Level.DATA), True
    level = max((levels.of(value) for value in reads), default=Level.FIXED)
    if step.entry is None:
        return Level.DATA, False
    if step.blocks:
        # A body runs in every call, even if it reads no input.
        decided = step.node.op == "If" and levels.of(step.inputs[0]) < Level.DATA
        return max(level, Level.SHAPED), sized and decided
    sized = sized and not any(levels.of(value) == Level.DATA for value in _numbers(step))
    return level, sized and not (step.entry.data_sized and level == Level.DATA)


def _numbers(step: Step) -> list[str | None]:
    """Inputs that are read as numbers: they decide the size of the output."""
    host = () if step.entry is None else step.entry.host
    return [step.inputs[slot] for slot in host if slot < len(step.inputs)]


def _decides(step: Step, levels: Levels) -> bool:
    """Whether trained weights decide places, numbers of elements, or which body runs."""
    if step.entry is None:
        return any(value in levels.learnt for value in step.reads())
    if step.blocks:
        deciding = step.inputs[:1] if step.node.op == "If" else step.inputs[:2] if step.node.op == "Loop" else ()
        return any(value in levels.learnt for value in deciding)
    chooses = step.entry.chooses or step.entry.data_sized
    return any(value in levels.learnt for value in (step.inputs if chooses else _numbers(step)))
