"""Operators that only move data.  They have no rule; ``trace.py`` runs them on coordinates."""

from __future__ import annotations

from onnxprune.coupling.rule import Call, Entry, Locked, Mover, Rule

MOVED = Mover()


def concat(call: Call) -> Mover:
    return Mover(tuple(range(len(call.node.inputs))))


def gather(call: Call) -> Rule | Mover | Locked:
    """With constant indices, a movement.  With computed indices, a lookup in a table whose row axis locks."""
    index = call.node.inputs[1]
    sized = call.graph.producer.get(index or "") in call.facts.arithmetic
    if call.constant(1) is not None and not sized:
        return MOVED
    rank = call.rank(0)
    axis = call.node.integer("axis", 0) % max(rank, 1)
    dims = [f"d{k}" for k in range(rank)]
    rows = [f"q{k}" for k in range(call.rank(1))]
    out = [*dims[:axis], *rows, *dims[axis + 1 :]]
    # The axes of the indices hold positions, never channels.
    return Rule(
        f"{' '.join(dims)}, {' '.join(rows) or '_'} -> {' '.join(out) or '_'}", mix=frozenset({dims[axis], *rows})
    )


def reverse_sequence(call: Call) -> Rule:
    dims = [f"d{k}" for k in range(call.rank())]
    mixed = {dims[call.node.integer("batch_axis", 1)], dims[call.node.integer("time_axis", 0)]}
    return Rule(f"{' '.join(dims)}, _ -> {' '.join(dims)}", mix=frozenset(mixed))


def depth_to_space(call: Call) -> Rule:
    """The block (p q) has a fixed size and cannot lose a part.  The channels can."""
    deep, fixed, sizes = _blocks(call)
    return Rule(f"n {deep} h w -> n c (h p) (w q)", fixed, sizes=sizes)


def space_to_depth(call: Call) -> Rule:
    deep, fixed, sizes = _blocks(call)
    return Rule(f"n c (h p) (w q) -> n {deep} h w", fixed, sizes=sizes)


def _blocks(call: Call) -> tuple[str, frozenset[str], dict[str, int]]:
    """(term of the deep axis, factors of the block, their sizes).  Both operators have the same two orders."""
    block = call.node.integer("blocksize", 1)
    deep = "(c p q)" if call.node.string("mode", "DCR") == "CRD" else "(p q c)"
    return deep, frozenset("pq"), {"p": block, "q": block}


TABLE: dict[str, Entry] = {
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
MICROSOFT: dict[str, Entry] = {"Pad": Mover(stand_in="Pad")}
