"""Gathers, scatters and selections: the indexed axis stays whole, the other axes pass."""

from __future__ import annotations

from onnxprune.coupling.grid import grid
from onnxprune.coupling.rule import Locked, Mover, NodeInfo, Rule, RuleEntry


def gather_elements(info: NodeInfo) -> Rule:
    """out[…, i, …] = data[…, index[…, i, …], …].  Another axis passes if the index covers all of it."""
    return _elements(info, 1, "{data}, {index} -> {index}")


def scatter_elements(info: NodeInfo) -> Rule:
    return _elements(info, 1, "{data}, {index}, {index} -> {data}")


def _elements(info: NodeInfo, slot: int, form: str) -> Rule:
    shape, index = info.shape(0) or (), info.shape(slot) or ()
    axis = info.node.integer("axis", 0) % max(len(shape), 1)
    same = [k != axis and a == b for k, (a, b) in enumerate(zip(shape, index, strict=True))]
    data = [f"d{k}" for k in range(len(shape))]
    other = [f"d{k}" if equal else f"q{k}" for k, equal in enumerate(same)]
    # If the index covers only a part of an axis, no size says which part, so both sides stay.
    mixed = {name for k, equal in enumerate(same) for name in (data[k], other[k]) if not equal}
    return Rule(form.format(data=" ".join(data), index=" ".join(other)), frozenset(mixed))


def gather_nd(info: NodeInfo) -> Rule:
    """Batch axes come first, then the indexed axes (as many as an index has elements).  The rest passes."""
    rank, indices = info.rank(), info.shape(1) or (1,)
    batch = info.node.integer("batch_dims", 0)
    data = [f"d{k}" for k in range(rank)]
    places = [*data[:batch], *(f"q{k}" for k in range(batch, len(indices) - 1)), "w"]
    taken = batch + indices[-1]
    out = [*places[:-1], *data[taken:]]
    text = f"{' '.join(data)}, {' '.join(places)} -> {' '.join(out) or '_'}"
    return Rule(text, frozenset({"w", *data[batch:taken]}))


def scatter_nd(info: NodeInfo) -> Rule | Mover:
    """A constant grid of indices pastes a block.  Otherwise the indexed axes (one per index element) stay whole."""
    known, indices = info.constant(1), info.shape(1) or (1,)
    if known is not None and grid(known, info.shape(0) or ()) is not None:
        return Mover((0, 2))
    data = [f"d{k}" for k in range(info.rank())]
    places = [f"q{k}" for k in range(len(indices) - 1)]
    tail = data[indices[-1] :]
    updates = " ".join([*places, *tail]) or "_"
    text = f"{' '.join(data)}, {' '.join([*places, 'w'])}, {updates} -> {' '.join(data)}"
    return Rule(text, frozenset({"w", *places, *data[: indices[-1]]}))


def tensor_scatter(info: NodeInfo) -> Rule:
    """Writes into a cache at given positions of one axis.  The list of positions has one entry per batch entry."""
    rank = info.rank()
    axis = info.node.integer("axis", -2) % max(rank, 1)
    data = [f"d{k}" for k in range(rank)]
    update = [*data[:axis], "q", *data[axis + 1 :]]
    text = f"{' '.join(data)}, {' '.join(update)}, d0 -> {' '.join(data)}"
    return Rule(text, frozenset({"q", data[axis]}))


def top_k(info: NodeInfo) -> Rule:
    rank = info.rank()
    axis = info.node.integer("axis", -1) % max(rank, 1)
    data = [f"d{k}" for k in range(rank)]
    out = " ".join([*data[:axis], "q", *data[axis + 1 :]])
    return Rule(f"{' '.join(data)}, _ -> {out}, {out}", frozenset({data[axis]}))


def compress(info: NodeInfo) -> Rule | Locked:
    """Selects positions along its axis.  Without an axis it flattens everything first."""
    if info.node.attribute("axis") is None:
        return Locked("flattens its input and selects single elements")
    rank = info.rank()
    axis = info.node.integer("axis", 0) % max(rank, 1)
    data = [f"d{k}" for k in range(rank)]
    out = [*data[:axis], "q", *data[axis + 1 :]]
    return Rule(f"{' '.join(data)}, _ -> {' '.join(out)}", frozenset({data[axis]}))


def one_hot(info: NodeInfo) -> Rule:
    """Indices keep their axes; the operator creates a new one."""
    rank = info.rank()
    data = [f"d{k}" for k in range(rank)]
    axis = info.node.integer("axis", -1) % (rank + 1)
    return Rule(f"{' '.join(data) or '_'}, _, _ -> {' '.join([*data[:axis], 'q', *data[axis:]])}")


def lookup_rows(info: NodeInfo) -> Rule:
    """TorchEmbedding: rows of a table; the width passes."""
    rows = " ".join(f"q{k}" for k in range(info.rank(1)))
    return Rule(f"v d, {rows or '_'}, _, _ -> {rows} d", frozenset({"v"}))


def distances(info: NodeInfo) -> Rule:
    """CDist between all rows of A and of B.  A distance is not a plain sum over the columns, so the columns mix."""
    return Rule("m k, n k -> m n", frozenset("k"))


TABLE: dict[str, RuleEntry] = {
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Compress": compress,
    "OneHot": one_hot,
}
MICROSOFT: dict[str, RuleEntry] = {
    "GatherND": gather_nd,
    "TorchEmbedding": lookup_rows,
    "CDist": distances,
}
