"""A one-node case of an operator, and seeded arrays for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


MS = "com.microsoft"


@dataclass(frozen=True, eq=False)
class Case:
    op: str
    note: str
    inputs: tuple[Array | None, ...]
    free: str
    attributes: Mapping[str, object] = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    opset: int = 21
    chained: tuple[int, ...] = (0,)
    #: Relative tolerance: integers that are rounded may differ by one quantum.
    tolerance: float = 1e-4

    @property
    def id(self) -> str:
        return f"{self.op}-{self.note}".replace(" ", "_")


_rng = np.random.default_rng(7)


def real(*shape: int) -> Array:
    return _rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return (_rng.random(shape) + 0.5).astype(np.float32)


def small(*shape: int, kind: type = np.uint8) -> Array:
    return _rng.integers(1 if kind is np.uint8 else -60, 100, shape).astype(kind)


def whole(*values: int) -> Array:
    return np.asarray(values, np.int64)


def one(value: float, kind: type = np.float32) -> Array:
    return np.asarray(value, kind)
