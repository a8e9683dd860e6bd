"""Hidden values that both models have, compared on their common channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.graph.view import Graph
from onnxprune.tuning.probe import Probed
from onnxprune.tuning.program import Step

Array = np.ndarray
#: Maximum number of hidden values.  More of them cost memory and teach little.
MAX_HIDDEN = 12
#: Two channels match if their correlation is at least this, and their squared difference at most this share of the
#: variance.  With more, the mean would be the better guess: a channel that hardly varies in the original, for example.
#: One channel of 169 in a network of 16 layers had 158 times its variance, and outweighed all other errors.
FOLLOWS, NEAR = 0.5, 1.0
#: Floors for the scale of a channel: a share of the median scale of hidden channels, and a share of its own size.
HARDLY, DEAD = 1e-2, 1e-3
#: Smallest scale of any value.  Numbers below it are rounding errors of what made them: no step could repair them.
LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class HiddenValue:
    """A value of both models.

    ``axis``: the channel axis.  ``mine``, ``theirs``: positions of the common channels in the small model and in the
    original; ``None`` if both have the same channels.  ``scale``: standard deviation of each common channel in the
    original, (channels,).
    """

    name: str
    axis: int
    mine: Array | None
    theirs: Array | None
    scale: Array


def candidates(
    graph: Graph, original: Graph, steps: Sequence[Step], seen: Probed, targets: Collection[str], weights: Collection[str]
) -> tuple[str, ...]:
    """Up to :data:`MAX_HIDDEN` values, spread evenly over the layers.

    Prefers values that everything later depends on (the sums of residual blocks); else takes outputs of layers.
    """
    reads = {step: set(step.reads()) for step in steps}
    last = {value: place for place, step in enumerate(steps) for value in reads[step]}
    live: set[str] = set()
    layers, depth = 0, 0
    suitable: list[tuple[int, bool, str]] = []
    for place, step in enumerate(steps):
        own = any(v in weights for one in step.inside() for v in one.inputs)
        layers += own
        live |= {o for o in step.outputs if o in seen.learns}
        live = {v for v in live if last.get(v, -1) > place}
        for out in step.outputs:
            if out is None or out in targets or not _fits(out, seen, original):
                continue
            if live == {out}:
                suitable.append((layers, True, out))
            elif own:
                suitable.append((layers, False, out))
        depth = layers
    picked: dict[int, tuple[bool, str]] = {}
    for at, alone, name in suitable:
        lot = (at * MAX_HIDDEN) // (depth + 1)
        if lot not in picked or alone or not picked[lot][0]:
            picked[lot] = (alone, name)
    return tuple(name for _, name in picked.values())


def _fits(name: str, seen: Probed, original: Graph) -> bool:
    return name in seen.learns and name in original.producer and len(seen.sizes.get(name, ())) >= 2


def matched(name: str, mine: Array, theirs: Array) -> HiddenValue | None:
    """The common channels of one value in both models, on the same samples; ``None`` if there are none.

    A cut and a refit keep the values of the remaining channels approximately.  So each channel of the small model matches the
    channel of the original with the highest correlation (Pearson, over samples and positions).  Leaves out channels that
    differ too much (:data:`FOLLOWS`, :data:`NEAR`).
    """
    differ = [axis for axis in range(mine.ndim) if mine.shape[axis] != theirs.shape[axis]]
    if mine.ndim != theirs.ndim or len(differ) > 1 or differ == [0]:
        return None
    axis = differ[0] if differ else channel_axis(theirs)
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64) for x in (mine, theirs))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    own = np.arange(len(a))
    if not differ:
        pairs = own, own
    else:
        step = max(1, a.shape[1] // 20000)
        alike = _unit(a[:, ::step]) @ _unit(b[:, ::step]).T
        best = alike.argmax(1)
        pairs = own[alike[own, best] >= FOLLOWS], best[alike[own, best] >= FOLLOWS]
    if not len(pairs[0]):
        return None
    scale = _scale(b[pairs[1]])
    near = np.square(a[pairs[0]] - b[pairs[1]]).mean(1) <= NEAR * np.square(scale)
    if not near.any():
        return None
    if near.all() and not differ:
        return HiddenValue(name, axis, None, None, scale)
    return HiddenValue(name, axis, pairs[0][near], pairs[1][near], scale[near])


def _unit(rows: Array) -> Array:
    rows = rows - rows.mean(1, keepdims=True)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, size, out=np.zeros_like(rows), where=size > 0))


def scales(rows: Array, dead: float) -> Array:
    """Standard deviation of each row, but at least the share ``dead`` of the median one and :data:`DEAD` of the row's size."""
    spread, size = rows.std(1), np.sqrt((rows * rows).mean(1))
    moving = spread[spread > 0]
    least = np.maximum(dead * float(np.median(moving)) if len(moving) else 0.0, DEAD * size)
    return np.asarray(np.maximum(np.maximum(spread, least), LEAST), dtype=np.float32)


def _scale(rows: Array) -> Array:
    return scales(rows, HARDLY)


def channel_axis(values: Array) -> int:
    """The axis (after the first) along which the scale of the values differs most: channels do, positions do not."""
    if values.ndim <= 2:
        return values.ndim - 1
    spreads = []
    for axis in range(1, values.ndim):
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
        size = np.sqrt((rows * rows).mean(1)) + 1e-12
        spreads.append(float(np.log(size / np.median(size) + 1e-6).std()) if len(size) > 1 else -1.0)
    return 1 + int(np.argmax(spreads))


def by_name(names: Sequence[str], mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> tuple[HiddenValue, ...]:
    matches = (matched(name, mine[name], theirs[name]) for name in names)
    return tuple(hidden for hidden in matches if hidden is not None)
