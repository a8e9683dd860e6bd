"""The operator tables: everything onnxprune knows about operators, one file per family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from onnxprune.coupling.rule import Binder, Locked, Mover, NodeInfo, Rule, RuleEntry
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
_DOMAINS: Mapping[str, tuple[Mapping[str, RuleEntry], ...]] = MappingProxyType(
    {
        "": tuple(family.TABLE for family in _FAMILIES),
        "com.microsoft": tuple(family.MICROSOFT for family in _FAMILIES),
        "com.microsoft.nchwc": (refused.BLOCKED,),
        "ai.onnx.ml": (refused.ML,),
        "ai.onnx.preview": (refused.PREVIEW,),
        "ai.onnx.preview.training": (refused.TRAINING,),
    }
)

#: (domain, operator) -> entry; the default domain is "".
TABLE: Mapping[tuple[str, str], RuleEntry] = MappingProxyType(
    {(domain, op): entry for domain, tables in _DOMAINS.items() for table in tables for op, entry in table.items()}
)

UNKNOWN = Locked("has no rule in onnxprune")


def _loosened(entry: RuleEntry) -> RuleEntry:
    """The entry, with the axes freed over which it only takes a statistic."""
    if isinstance(entry, Rule):
        return replace(entry, mix=entry.mix - entry.estimates)
    return _loosened_binder(entry) if callable(entry) else entry


def _loosened_binder(binder: Binder) -> Binder:
    def bind(info: NodeInfo) -> Rule | Mover | Locked:
        entry = binder(info)
        return replace(entry, mix=entry.mix - entry.estimates) if isinstance(entry, Rule) else entry

    return bind


#: By name: "exact" cuts only what the masked original proves; "approximate" also cuts the width of normalizations.
TABLES: Mapping[str, Mapping[tuple[str, str], RuleEntry]] = MappingProxyType(
    {"exact": TABLE, "approximate": MappingProxyType({key: _loosened(entry) for key, entry in TABLE.items()})}
)


def lookup(domain: str, op: str, rules: str = "exact") -> RuleEntry:
    """The entry of an operator in the table called ``rules``."""
    return TABLES[rules].get((domain, op), UNKNOWN)
