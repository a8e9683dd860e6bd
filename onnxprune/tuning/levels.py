"""What each value of a graph depends on: nothing, the shapes of what is fed, or its values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum

from onnxprune.tuning.program import Block, Step


class Level(IntEnum):
    """``FIXED``: the same in every run.  ``SHAPED``: the same for the same shapes.  ``DATA``: anything else."""

    FIXED = 0
    SHAPED = 1
    DATA = 2


@dataclass(frozen=True, eq=False)
class Levels:
    """``level`` of each value; ``unsized``: values whose very shape depends on data; ``learnt``: values behind a trained
    weight; ``apart``: those of them whose places or number a comparison of values decides, so that two models may hold
    different things there."""

    level: dict[str, Level] = field(default_factory=dict)
    unsized: set[str] = field(default_factory=set)
    learnt: set[str] = field(default_factory=set)
    apart: set[str] = field(default_factory=set)

    def of(self, value: str | None) -> Level:
        return Level.FIXED if value is None else self.level.get(value, Level.DATA)


def levels_of(block: Block, fixed: Collection[str], trained: Collection[str]) -> Levels:
    """``fixed``: constants that are not trained.  What is ``trained`` or fed depends on data."""
    found = Levels(dict.fromkeys(fixed, Level.FIXED))
    found.level.update((name, Level.DATA) for name in trained)
    found.learnt.update(trained)
    _walk(block, found, frozenset(trained))
    return found


def _walk(block: Block, found: Levels, trained: frozenset[str]) -> None:
    for step in block.steps:
        if trained.issuperset(step.outputs):
            continue
        for inner in step.blocks.values():
            _walk(inner, found, trained)
        reads = list(dict.fromkeys(v for one in step.inside() for v in one.inputs if v is not None))
        level, sized = _told(step, reads, found)
        learnt = level == Level.DATA and any(value in found.learnt for value in reads)
        apart = learnt and (any(value in found.apart for value in reads) or _decides(step, found))
        for out in (o for o in step.outputs if o is not None):
            found.level[out] = level
            if not sized:
                found.unsized.add(out)
            if learnt:
                found.learnt.add(out)
            if apart:
                found.apart.add(out)


def _told(step: Step, reads: Collection[str], found: Levels) -> tuple[Level, bool]:
    """(level, whether the shape is known from shapes) of the step's outputs."""
    sized = not any(value in found.unsized for value in reads)
    if step.node.op in ("Shape", "Size") and not step.node.domain:
        return (Level.SHAPED if sized else Level.DATA), True
    level = max((found.of(value) for value in reads), default=Level.FIXED)
    if step.entry is None:
        return Level.DATA, False
    if step.blocks:
        # Bodies that nothing from outside reaches are still run again and again.
        told = step.node.op == "If" and found.of(step.inputs[0]) < Level.DATA
        return max(level, Level.SHAPED), sized and told
    sized = sized and not any(found.of(value) == Level.DATA for value in _numbers(step))
    return level, sized and not (step.entry.data_sized and level == Level.DATA)


def _numbers(step: Step) -> list[str | None]:
    """Inputs that are read as numbers, and say how large the output is."""
    host = () if step.entry is None else step.entry.host
    return [step.inputs[slot] for slot in host if slot < len(step.inputs)]


def _decides(step: Step, found: Levels) -> bool:
    """Whether trained weights decide where something is, how much of it there is, or which body is run."""
    if step.entry is None:
        return any(value in found.learnt for value in step.reads())
    if step.blocks:
        deciding = step.inputs[:1] if step.node.op == "If" else step.inputs[:2] if step.node.op == "Loop" else ()
        return any(value in found.learnt for value in deciding)
    chooses = step.entry.chooses or step.entry.data_sized
    return any(value in found.learnt for value in (step.inputs if chooses else _numbers(step)))
