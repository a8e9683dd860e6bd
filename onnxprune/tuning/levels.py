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
    """``level`` of each value; ``unsized``: values whose very shape depends on data; ``chosen``: values whose places
    were picked by comparing values, so that two models may hold different things there."""

    level: dict[str, Level] = field(default_factory=dict)
    unsized: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)

    def of(self, value: str | None) -> Level:
        return Level.FIXED if value is None else self.level.get(value, Level.DATA)


def levels_of(block: Block, fixed: Collection[str], trained: Collection[str]) -> Levels:
    """``fixed``: constants that are not trained.  What is ``trained`` or fed depends on data."""
    found = Levels(dict.fromkeys(fixed, Level.FIXED))
    found.level.update((name, Level.DATA) for name in trained)
    _walk(block, found, frozenset(trained))
    return found


def _walk(block: Block, found: Levels, trained: frozenset[str]) -> None:
    for step in block.steps:
        if trained.issuperset(step.outputs):
            continue
        for inner in step.blocks.values():
            _walk(inner, found, trained)
        level, sized, chosen = _told(step, found)
        for out in (o for o in step.outputs if o is not None):
            found.level[out] = level
            if not sized:
                found.unsized.add(out)
            if chosen:
                found.chosen.add(out)


def _told(step: Step, found: Levels) -> tuple[Level, bool, bool]:
    """(level, whether the shape is known from shapes, whether places were chosen) of the step's outputs."""
    reads = list(dict.fromkeys(step.reads()))
    sized = not any(value in found.unsized for value in reads)
    if step.node.op in ("Shape", "Size") and not step.node.domain:
        return (Level.SHAPED if sized else Level.DATA), True, False
    level = max((found.of(value) for value in reads), default=Level.FIXED)
    chosen = any(value in found.chosen for value in reads) and level == Level.DATA
    if step.blocks:
        # Bodies that nothing from outside reaches are still run again and again.
        level = max(level, Level.SHAPED)
        inside = [v for block in step.blocks.values() for v in block.outputs]
        level = max([level, *(found.of(v) for v in inside)])
        told = step.node.op == "If" and found.of(step.inputs[0]) < Level.DATA
        return (
            level,
            sized and told and not any(v in found.unsized for v in inside),
            chosen or any(v in found.chosen for v in inside),
        )
    if step.entry is None:
        return Level.DATA, False, True
    for slot in step.entry.host:
        if slot < len(step.inputs) and found.of(step.inputs[slot]) == Level.DATA:
            sized = False
    return (
        level,
        sized and not (step.entry.data_sized and level == Level.DATA),
        chosen or (step.entry.chooses and level == Level.DATA),
    )
