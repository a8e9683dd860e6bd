"""The selectors, by their ``--select`` name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxprune.selection import baselines, elimination, qr
from onnxprune.selection.base import Selector

SELECTORS: Mapping[str, Selector] = MappingProxyType(
    {"qr": qr.select, "obs": elimination.select, "magnitude": baselines.magnitude, "random": baselines.random}
)
