"""What readers of a value tell apart, per channel: the range outside of which all of them see the same.

Behind a Relu every negative number is the same; behind a sigmoid, all but the same is every number beyond ±4.6.  A
detector's last layer makes thousands of background scores near 0.  Fitting their logits exactly would leave the few
objects no say.  Channels are followed through operators that only move data (Split, Reshape, Concat), by the coupling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Node

Array = np.ndarray
#: Both ends, one number for all channels or one each (channels,).
Window = tuple[float | Array, float | Array]
EVERYTHING = -math.inf, math.inf
#: Probabilities below this, or above one less this, are not told apart.
SURE = 0.01
_REACH = math.log(1 / SURE - 1)
#: Operators that clip at fixed numbers: attribute names and defaults of the slope and offset, or the range itself.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType({"Relu": (0.0, math.inf), "Sigmoid": (-_REACH, _REACH)})
_PASSING = frozenset({"Identity", "Dropout", "Cast"})


def window_of(coupling: Coupling, value: str, axis: int) -> Window:
    """The window of every position on ``axis`` of ``value``; numbers where it is the same for all.

    Cost: one pass over the nodes between ``value`` and the first ones that compute.
    """
    low, high = _seen(coupling, value, axis)
    unread = low > high
    low[unread], high[unread] = EVERYTHING
    if len(low) and (low == low[0]).all() and (high == high[0]).all():
        return float(low[0]), float(high[0])
    return low.astype(np.float32), high.astype(np.float32)


def is_finite(window: Window) -> bool:
    """Whether it has an end for any channel."""
    return any(bool(np.isfinite(end).any()) for end in window)


def _seen(coupling: Coupling, value: str, axis: int) -> tuple[Array, Array]:
    """Low and high ends per position, float64; low is above high where nothing reads a position."""
    size = coupling.facts.shapes[value][axis]
    low, high = np.full(size, math.inf), np.full(size, -math.inf)
    if value in coupling.graph.outputs:
        return np.full(size, -math.inf), np.full(size, math.inf)
    for index, slot in coupling.graph.consumers.get(value, ()):
        if index in coupling.facts.arithmetic:
            # It reads a size.
            continue
        node = coupling.graph.nodes[index]
        ends = _behind(coupling, node, value, axis) if _moves(coupling, node, slot) else _clips(coupling, node)
        low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
    return low, high


def _moves(coupling: Coupling, node: Node, slot: int) -> bool:
    return not node.scope and (node.index in coupling.walked.movers or (node.op in _PASSING and slot == 0))


def _behind(coupling: Coupling, node: Node, value: str, axis: int) -> tuple[Array, Array]:
    """The ends for ``value`` as the readers of what ``node`` moves it to see it."""
    classes = coupling.classes.of[coupling.walked.labels[value][axis]]
    low, high = np.full(len(classes), math.inf), np.full(len(classes), -math.inf)
    if classes.ndim > 1:
        # The axis is a product of channels: what is seen of one depends on the other.
        low[:], high[:] = EVERYTHING
        return low, high
    found = np.zeros(len(classes), dtype=np.bool_)
    for out in node.outputs:
        for place, atoms in enumerate(coupling.walked.labels.get(out or "", ())):
            there = coupling.classes.of[atoms]
            held = np.isin(classes, there)
            if out is None or not held.any():
                continue
            ends = _seen(coupling, out, place)
            found |= held
            for k in np.flatnonzero(held):
                mine = there == classes[k] if there.ndim == 1 else (there == classes[k]).any(axis=1)
                low[k], high[k] = min(low[k], ends[0][mine].min()), max(high[k], ends[1][mine].max())
    # Mixed with others, or out of sight.
    low[~found], high[~found] = EVERYTHING
    return low, high


def _clips(coupling: Coupling, node: Node) -> tuple[float, float]:
    if node.op in RANGES:
        return RANGES[node.op]
    if node.op == "HardSigmoid":
        slope, offset = (a.f if (a := node.attribute(n)) is not None else d for n, d in (("alpha", 0.2), ("beta", 0.5)))
        return (-offset / slope, (1 - offset) / slope) if slope > 0 else EVERYTHING
    if node.op != "Clip":
        return EVERYTHING
    bounds = [-math.inf, math.inf]
    for slot, name in ((1, "min"), (2, "max")):
        attribute = node.attribute(name)
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if attribute is not None:
            bounds[slot - 1] = float(attribute.f)
        elif value is not None:
            known = coupling.facts.values.get(value, coupling.graph.constants.get(value))
            if known is None or known.size != 1:
                return EVERYTHING
            bounds[slot - 1] = float(known.reshape(()))
    return bounds[0], bounds[1]
