"""Operators that only move data.  They have no rule; ``trace.py`` runs them on coordinates."""

from __future__ import annotations

from onnxprune.coupling.rule import Locked, Mover, NodeInfo, Rule, RuleEntry

MOVED = Mover()


def concat(info: NodeInfo) -> Mover:
    return Mover(tuple(range(len(info.node.inputs))))


def gather(info: NodeInfo) -> Rule | Mover | Locked:
    """With constant indices, a movement.  With computed indices, a lookup in a table whose row axis locks."""
    index = info.node.inputs[1]
    sized = info.graph.producer.get(index or "") in info.facts.arithmetic
    if info.constant(1) is not None and not sized:
        return MOVED
    rank = info.rank(0)
    axis = info.node.integer("axis", 0) % max(rank, 1)
    dims = [f"d{k}" for k in range(rank)]
    rows = [f"q{k}" for k in range(info.rank(1))]
    out = [*dims[:axis], *rows, *dims[axis + 1 :]]
    # The axes of the indices hold positions, never channels.
    return Rule(
        f"{' '.join(dims)}, {' '.join(rows) or '_'} -> {' '.join(out) or '_'}", mix=frozenset({dims[axis], *rows})
    )


def reverse_sequence(info: NodeInfo) -> Rule:
    dims = [f"d{k}" for k in range(info.rank())]
    mixed = {dims[info.node.integer("batch_axis", 1)], dims[info.node.integer("time_axis", 0)]}
    return Rule(f"{' '.join(dims)}, _ -> {' '.join(dims)}", mix=frozenset(mixed))


def depth_to_space(info: NodeInfo) -> Rule:
    """The block (p q) has a fixed size and cannot lose a part.  The channels can."""
    deep, fixed, sizes = _blocks(info)
    return Rule(f"n {deep} h w -> n c (h p) (w q)", fixed, sizes=sizes)


def space_to_depth(info: NodeInfo) -> Rule:
    deep, fixed, sizes = _blocks(info)
    return Rule(f"n c (h p) (w q) -> n {deep} h w", fixed, sizes=sizes)


def _blocks(info: NodeInfo) -> tuple[str, frozenset[str], dict[str, int]]:
    """(term of the deep axis, factors of the block, their sizes).  Both operators have the same two orders."""
    block = info.node.integer("blocksize", 1)
    deep = "(c p q)" if info.node.string("mode", "DCR") == "CRD" else "(p q c)"
    return deep, frozenset("pq"), {"p": block, "q": block}


TABLE: dict[str, RuleEntry] = {
    **dict.fromkeys(
        [
            "Transpose",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Split",
            "Slice",
            "Pad",
            "Tile",
            "Expand",
            "ConstantOfShape",
        ],
        MOVED,
    ),
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Gather": gather,
    "ReverseSequence": reverse_sequence,
}
MICROSOFT: dict[str, RuleEntry] = {"Pad": Mover(stand_in="Pad")}
