"""The window of a value, per channel: outside this range its readers see no difference.

A Relu treats all negative numbers alike.  A sigmoid treats all numbers beyond ±4.6 almost alike.  A detector's last
layer makes thousands of background scores near 0.  A fit of their exact logits would drown the few objects.  The
coupling follows channels through operators that only move data (Split, Reshape, Concat).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.view import Node

Array = np.ndarray
#: (low, high): a number for all channels, or an array (channels,).
Window = tuple[float | Array, float | Array]
EVERYTHING = -math.inf, math.inf
#: Probabilities below this count as 0, and those above 1 minus this as 1.
SURE = 0.01
_REACH = math.log(1 / SURE - 1)
#: Operators that clip to a fixed range, and the range.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType({"Relu": (0.0, math.inf), "Sigmoid": (-_REACH, _REACH)})
_PASSING = frozenset({"Identity", "Dropout", "Cast"})


def window_of(coupling: Coupling, value: str, axis: int) -> Window:
    """The window of every position on ``axis`` of ``value``; two numbers if all positions have the same.

    Cost: one pass over the nodes from ``value`` to the first nodes that compute.
    """
    low, high = _seen(coupling, value, axis)
    unread = low > high
    low[unread], high[unread] = EVERYTHING
    if len(low) and (low == low[0]).all() and (high == high[0]).all():
        return float(low[0]), float(high[0])
    return low.astype(np.float32), high.astype(np.float32)


def is_finite(window: Window) -> bool:
    """Whether ``window`` is bounded for any channel."""
    return any(bool(np.isfinite(end).any()) for end in window)


def _seen(coupling: Coupling, value: str, axis: int) -> tuple[Array, Array]:
    """Low and high ends per position, float64.  Low is above high if nothing reads a position."""
    size = coupling.facts.shapes[value][axis]
    low, high = np.full(size, math.inf), np.full(size, -math.inf)
    if value in coupling.graph.outputs:
        return np.full(size, -math.inf), np.full(size, math.inf)
    for index, slot in coupling.graph.consumers.get(value, ()):
        if index in coupling.facts.arithmetic:
            # It reads only a size.
            continue
        node = coupling.graph.nodes[index]
        ends = _downstream(coupling, node, value, axis) if _moves(coupling, node, slot) else _clips(coupling, node)
        low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
    return low, high


def _moves(coupling: Coupling, node: Node, slot: int) -> bool:
    return not node.scope and (node.index in coupling.walked.movers or (node.op in _PASSING and slot == 0))


def _downstream(coupling: Coupling, node: Node, value: str, axis: int) -> tuple[Array, Array]:
    """The ends for ``value``, as seen by the readers of the outputs of ``node``, which moves it."""
    classes = coupling.classes.of[coupling.walked.labels[value][axis]]
    low, high = np.full(len(classes), math.inf), np.full(len(classes), -math.inf)
    if classes.ndim > 1:
        # The axis is a product of channels: the window of one depends on the other.
        low[:], high[:] = EVERYTHING
        return low, high
    reached = np.zeros(len(classes), dtype=np.bool_)
    for out in node.outputs:
        for place, atoms in enumerate(coupling.walked.labels.get(out or "", ())):
            there = coupling.classes.of[atoms]
            held = np.isin(classes, there)
            if out is None or not held.any():
                continue
            ends = _seen(coupling, out, place)
            reached |= held
            for k in np.flatnonzero(held):
                mine = there == classes[k] if there.ndim == 1 else (there == classes[k]).any(axis=1)
                low[k], high[k] = min(low[k], ends[0][mine].min()), max(high[k], ends[1][mine].max())
    # Mixed with others, or dropped.
    low[~reached], high[~reached] = EVERYTHING
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
