"""Recurrent layers: a hidden unit leaves every gate, and the recurrence that reads it, at once.

One axis stacks the gates: ``(q h)``, q gates of h units each.  A cut unit still reaches its own output.  The masked
original therefore zeroes the recurrent weights by which the remaining units read it.
"""

from __future__ import annotations

from types import MappingProxyType

from onnxprune.coupling.rule import NodeInfo, Rule, RuleEntry

GATES = MappingProxyType({"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4})
#: Directions and time steps interact; each gate has a fixed position.
_MIX = frozenset("tdqzp")


def recurrent(info: NodeInfo) -> Rule:
    data, sequence, state = _layout(info)
    terms = [data, "d (q h) i", "d (q h) h", "d (z h)", "b", state, state, "d (p h)"]
    return _rule(info, terms, sequence, state)


def dynamic_quantized(info: NodeInfo) -> Rule:
    """DynamicQuantizeLSTM: weights have the input axis first; scales are per tensor, or per gate and unit."""
    data, sequence, state = _layout(info)
    terms = [data, "d i (q h)", "d h (q h)", "d (z h)", "b", state, state, "d (p h)"]
    terms += [_scale(info, slot) for slot in range(8, 12)]
    plain = _rule(info, terms, sequence, state)
    # The operator quantizes data and state, each with one scale for all positions, so units that leave must not count
    # in that scale: a unit without weights, bias and initial state stays at zero.
    return Rule(
        plain.text,
        plain.mix | {"b"},
        plain.attributes,
        sizes=plain.sizes,
        macs=plain.macs,
        masks=((0, len(info.shape(0) or ()) - 1), (1, 2), (2, 1), (2, 2), (3, 1), (5, 2), (6, 2)),
        zeros=MappingProxyType({1: 9, 2: 11}),
    )


def _layout(info: NodeInfo) -> tuple[str, str, str]:
    if info.node.integer("layout", 0):
        return "b t i", "b t d h", "b d h"
    return "t b i", "t d b h", "d b h"


def _scale(info: NodeInfo, slot: int) -> str:
    return ("_", "d", "d (q h)")[len(info.shape(slot) or ())]


def _rule(info: NodeInfo, terms: list[str], sequence: str, state: str) -> Rule:
    gates = GATES[info.node.op]
    return Rule(
        f"{', '.join(terms)} -> {sequence}, {state}, {state}",
        _MIX,
        {"hidden_size": "h"},
        sizes={"q": gates, "z": 2 * gates, "p": 3},
        macs=(("t", "b", "d", "q", "h", "i"), ("t", "b", "d", "q", "h", "h")),
        masks=((2, 2),),
    )


TABLE: dict[str, RuleEntry] = {"LSTM": recurrent, "GRU": recurrent, "RNN": recurrent}
MICROSOFT: dict[str, RuleEntry] = {"DynamicQuantizeLSTM": dynamic_quantized}
