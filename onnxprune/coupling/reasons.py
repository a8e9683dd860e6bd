"""Why channels stay, and what would unlock them."""

from __future__ import annotations

from dataclasses import dataclass

#: What would unlock a channel, by the kind of lock.
NOTHING = "not possible: the result depends on every position of this axis, or on a position at a fixed index"
PLACES = "places, not channels"
PLACE = f"it holds {PLACES}"
BORDER = "not possible: inputs and outputs of the model keep their shapes"
CHOSEN = "not possible: onnxprune cuts a product of axes along one factor only"
LAST = "not possible: an axis keeps at least one unit"
LOOSEN = "compute its statistic over the remaining channels (--approximate)"
SHAPE = "give the input shapes, which fixes the sizes (--shape NAME=DIMS)"
SIMPLIFY = "give the input shapes, which turns the size arithmetic into constants (--shape NAME=DIMS)"
#: The same three for a model whose inputs have fixed shapes: stating them would change nothing.
DATA = "not possible: the input shapes are fixed, and the data decide the sizes here"
UNFIT = "not possible: the input shapes are fixed, and no rule covers this form of the operator"
FOLD = "fold the size arithmetic into constants with an ONNX simplifier"
#: Remedies out of reach of any option or input.
FINAL = frozenset({NOTHING, PLACE, BORDER, CHOSEN, LAST, DATA, UNFIT})


@dataclass(frozen=True)
class Reason:
    """Why positions stay.  ``text`` names the node or tensor; ``remedy`` says what would unlock the positions.

    ``node`` (index, or ``None``), ``value`` and ``axis`` say where the lock is.
    """

    text: str
    node: int | None = None
    value: str | None = None
    axis: int | None = None
    remedy: str = ""


def precedence(reason: Reason) -> int:
    """Order in which to report reasons, lowest first.

    If the model's inputs or outputs lock an axis, they are the cause, whichever operators come before.  That an axis
    holds places (rows, columns, steps) says nothing about its channels.
    """
    return {BORDER: 0, PLACE: 2}.get(reason.remedy, 1)
