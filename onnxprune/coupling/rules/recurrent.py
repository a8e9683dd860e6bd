"""Recurrent layers: hidden units leave every gate at once, and the recurrence that reads them.

The gates are stacked in one axis, ``(q h)``: q gates of h units each.  A cut unit still reaches its own output,
so the masked original silences it where it could be heard: in the recurrent weights of the units that stay.
"""

from __future__ import annotations

from types import MappingProxyType

from onnxprune.coupling.rule import Call, Entry, Rule

GATES = MappingProxyType({"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4})
#: Directions and time steps interact, and gates are told apart by their place.
_MIX = frozenset("tdqzp")


def recurrent(call: Call) -> Rule:
    data, sequence, state = _layout(call)
    terms = [data, "d (q h) i", "d (q h) h", "d (z h)", "b", state, state, "d (p h)"]
    return _rule(call, terms, sequence, state)


def dynamic_quantized(call: Call) -> Rule:
    """DynamicQuantizeLSTM: weights are stored input first; scales per tensor or per gate and unit."""
    data, sequence, state = _layout(call)
    terms = [data, "d i (q h)", "d h (q h)", "d (z h)", "b", state, state, "d (p h)"]
    terms += [_scale(call, slot) for slot in range(8, 12)]
    found = _rule(call, terms, sequence, state)
    # Data and state are quantized inside, each with one scale for all, so the part that goes must not count there
    # either: a unit without weights, bias and initial state stays at zero.
    return Rule(
        found.text,
        found.mix | {"b"},
        found.attributes,
        sizes=found.sizes,
        macs=found.macs,
        masks=((0, len(call.shape(0) or ()) - 1), (1, 2), (2, 1), (2, 2), (3, 1), (5, 2), (6, 2)),
        zeros=MappingProxyType({1: 9, 2: 11}),
    )


def _layout(call: Call) -> tuple[str, str, str]:
    if call.node.integer("layout", 0):
        return "b t i", "b t d h", "b d h"
    return "t b i", "t d b h", "d b h"


def _scale(call: Call, slot: int) -> str:
    return ("_", "d", "d (q h)")[len(call.shape(slot) or ())]


def _rule(call: Call, terms: list[str], sequence: str, state: str) -> Rule:
    gates = GATES[call.node.op]
    return Rule(
        f"{', '.join(terms)} -> {sequence}, {state}, {state}",
        _MIX,
        {"hidden_size": "h"},
        sizes={"q": gates, "z": 2 * gates, "p": 3},
        macs=(("t", "b", "d", "q", "h", "i"), ("t", "b", "d", "q", "h", "h")),
        masks=((2, 2),),
    )


TABLE: dict[str, Entry] = {"LSTM": recurrent, "GRU": recurrent, "RNN": recurrent}
MICROSOFT: dict[str, Entry] = {"DynamicQuantizeLSTM": dynamic_quantized}
