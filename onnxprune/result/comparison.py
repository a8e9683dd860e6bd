"""What ``compare`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.result.change import Change
from onnxprune.result.display import page
from onnxprune.result.drop import Drop, DropSource


@dataclass(frozen=True)
class OperatorTime:
    """Milliseconds of all nodes of one operator type, in the first and the second model."""

    operator: str
    milliseconds: Change


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` shows of two models, ``a`` and ``b``.  Each :class:`Change` goes from ``a`` to ``b``.

    ``outputs``: (name, relative L2 error) of each floating-point output.  ``operators``: time by operator, in ms;
    empty without a profile.  ``latency_ms`` and ``latency_spread``: as in :class:`Report`.  ``drop_source`` says what the drop
    was measured on.
    """

    a: str
    b: str
    macs: Change
    params: Change
    bytes: Change
    latency_ms: Change | None
    latency_spread: tuple[float, float] | None
    drop: Drop | None
    accuracy: Change | None
    outputs: tuple[tuple[str, float], ...]
    operators: tuple[OperatorTime, ...] = ()
    drop_source: DropSource = "held out"
    scores: tuple[tuple[str, Change], ...] = ()

    def _repr_html_(self) -> str | None:
        return page(self)
