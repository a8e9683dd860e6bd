"""Why channels stay, in words."""

from __future__ import annotations

from onnxprune.coupling.groups import Coupling, LockedChannels


def lock_text(coupling: Coupling, held: LockedChannels) -> str:
    """Why a set of channels stays.  Adds the node, tensor and axis if the reason does not name them."""
    reason = held.reason
    where = []
    if reason.value is not None and f"'{reason.value}'" not in reason.text:
        axis = "" if reason.axis is None else f"axis {reason.axis} of "
        where.append(f"{axis}'{reason.value}'")
    if reason.node is not None and f"'{coupling.graph.nodes[reason.node].label}'" not in reason.text:
        where.append(f"node '{coupling.graph.nodes[reason.node].label}'")
    return f"{reason.text} (at {', '.join(where)})" if where else reason.text
