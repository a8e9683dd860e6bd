"""Fuses a step with the only step that reads its value, during training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from onnxprune.tuning.program import Step

#: (step, value -> step that makes it) -> the earlier step to fuse with it, or None.
Partner = Callable[[Step, Mapping[str, Step]], Step | None]
#: (earlier, later) -> the steps in place of both.
Fuse = Callable[[Step, Step], tuple[Step, ...]]


def fused(steps: Sequence[Step], wanted: Collection[str], partner: Partner, fuse: Fuse) -> tuple[Step, ...]:
    """``steps``, each fused with its ``partner``, unless another step reads the partner's value or it is ``wanted``."""
    uses = Counter(value for step in steps for value in step.reads())
    makers = {out: step for step in steps for out in step.outputs if out is not None}
    pairs = {}
    for step in steps:
        before = partner(step, makers)
        if before is not None and uses[before.outputs[0] or ""] == 1 and before.outputs[0] not in wanted:
            pairs[step] = before
    gone = set(pairs.values())
    done: list[Step] = []
    for step in steps:
        if step in pairs:
            done += fuse(pairs[step], step)
        elif step not in gone:
            done.append(step)
    return tuple(done)
