"""The operator tables: all that is known about operators, one file per family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxprune.coupling.rule import Entry, Locked
from onnxprune.coupling.rules import (
    attention,
    elementwise,
    indexing,
    linear,
    moving,
    normalize,
    quantized,
    recurrent,
    refused,
    spatial,
)

_FAMILIES = (elementwise, linear, moving, normalize, spatial, indexing, recurrent, attention, quantized, refused)
_DOMAINS: Mapping[str, tuple[Mapping[str, Entry], ...]] = MappingProxyType(
    {
        "": tuple(family.TABLE for family in _FAMILIES),
        "com.microsoft": tuple(family.MICROSOFT for family in _FAMILIES),
        "ai.onnx.ml": (refused.ML,),
        "ai.onnx.preview": (refused.PREVIEW,),
        "ai.onnx.preview.training": (refused.TRAINING,),
    }
)

#: (domain, operator) -> entry; the default domain is "".
TABLE: Mapping[tuple[str, str], Entry] = MappingProxyType(
    {(domain, op): entry for domain, tables in _DOMAINS.items() for table in tables for op, entry in table.items()}
)

UNKNOWN = Locked("has no rule in onnxprune")


def lookup(domain: str, op: str) -> Entry:
    return TABLE.get((domain, op), UNKNOWN)
