"""What a row of ``bench_accuracy.py`` is, and what it gives per cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from baselines.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Found:
    """A model, its share of the original's MACs, and how it was chosen among the method's own candidates."""

    model: onnx.ModelProto
    macs: float
    note: str


#: Per kept fraction a model, or the reason why there is none.
Outcomes = Iterator[tuple[float, Found | str]]
#: (workbench, kept fractions, the peers' interpreter) -> outcomes.
Method = Callable[[Workbench, Sequence[float], str], Outcomes]


def best(bench: Workbench, candidates: Mapping[str, onnx.ModelProto], without: str = "") -> Found | str:
    """The candidate nearest to the original on the holdout; ``without``: see :meth:`Workbench.kept`."""
    if not candidates:
        return "no candidate reaches these MACs"
    scored = {note: bench.output_loss(model) for note, model in candidates.items()}
    note = min(scored, key=lambda n: (scored[n], n))
    return Found(candidates[note], bench.kept(candidates[note], without), note)
