"""Pooling, resizing and reductions: channels pass; the other axes shrink or mix."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.coupling.rule import Locked, NodeInfo, Rule, RuleEntry

REDUCE = [f"Reduce{k}" for k in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]]
#: Reductions to which zeros add nothing.
ZERO_ADDS_NOTHING = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare", "ReduceSumInteger"}
)
#: Reductions whose result over the remaining channels estimates the result over all channels.
ESTIMATES = frozenset({"ReduceMax", "ReduceMean", "ReduceMin"})


def reduce(info: NodeInfo) -> Rule | Locked:
    """The reduced positions may leave if the reduction only adds them up.  Otherwise the reduced axes lock."""
    rank = info.rank()
    axes = info.ints("axes", 1)
    if axes is None and len(info.node.inputs) > 1 and info.node.inputs[1] is not None:
        return Locked("reduces over axes that are computed at run time")
    if not axes:
        axes = () if info.node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    rule = reduced(info, tuple(a % max(rank, 1) for a in axes), extra=1)
    if info.node.op in ZERO_ADDS_NOTHING:
        return replace(rule, mix=frozenset(), sums=rule.mix)
    # A single axis kept for broadcasting: exporters write normalizations and gates that way.
    spelled_out = info.node.op in ESTIMATES and len(axes) == 1 and info.node.integer("keepdims", 1)
    return replace(rule, estimates=rule.mix) if spelled_out else rule


def reduced(info: NodeInfo, axes: tuple[int, ...], extra: int) -> Rule:
    """A reduction over ``axes``; ``extra`` operand slots follow the data."""
    keep = info.node.integer("keepdims", 1)
    dims = [f"d{k}" for k in range(info.rank())]
    out = [("1" if k in axes else d) for k, d in enumerate(dims) if keep or k not in axes]
    text = ", ".join([" ".join(dims) or "_", *["_"] * extra])
    return Rule(f"{text} -> {' '.join(out) or '_'}", mix=frozenset(dims[a] for a in axes))


def arg(info: NodeInfo) -> Rule:
    return reduced(info, (info.node.integer("axis", 0) % max(info.rank(), 1),), extra=0)


def cumulative(info: NodeInfo) -> Rule | Locked:
    axis = info.constant(1)
    if axis is None:
        return Locked("accumulates over an axis that is computed at run time")
    dims = [f"d{k}" for k in range(info.rank())]
    full = " ".join(dims)
    return Rule(f"{full}, _ -> {full}", mix=frozenset({dims[int(axis.ravel()[0]) % len(dims)]}))


def resize(info: NodeInfo) -> Rule:
    """Axes with a scale of one pass.  Sizes and scales are operands."""
    before, after = info.shape(0) or (), info.out_shape() or ()
    same_size = [a == b and _untouched(info, k) for k, (a, b) in enumerate(zip(before, after, strict=True))]
    left = [f"d{k}" if same else f"x{k}" for k, same in enumerate(same_size)]
    right = [f"d{k}" if same else f"y{k}" for k, same in enumerate(same_size)]
    extra = ", _" * (len(info.node.inputs) - 1)
    return Rule(f"{' '.join(left)}{extra} -> {' '.join(right)}")


def _untouched(info: NodeInfo, axis: int) -> bool:
    """Whether the node leaves ``axis`` unchanged.  If its scales are unknown, assume so for N and C."""
    if info.node.string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return axis < 2
    axes = [a % max(info.rank(), 1) for a in (info.node.integers("axes") or range(info.rank()))]
    if axis not in axes:
        return True
    if info.node.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    stated = info.node.attribute("scales")
    scales = list(stated.floats) if stated is not None else None
    if scales is None:
        slot = 1 if info.node.op == "Upsample" or info.graph.opsets.get("", 11) < 11 else 2
        operand = info.constant(slot)
        scales = None if operand is None or operand.size == 0 else [float(v) for v in operand.ravel()]
    if scales is None:
        # The node states sizes instead: equal sizes are a scale of one.
        return info.constant(3) is not None or axis < 2
    return len(scales) == len(axes) and scales[axes.index(axis)] == 1.0


def last_axes(info: NodeInfo) -> Rule:
    """Trilu, Det and similar operators act on the last two axes; the others pass."""
    dims = [f"d{k}" for k in range(info.rank())]
    out = [f"d{k}" for k in range(len(info.out_shape() or ()))]
    extra = ", _" * (len(info.node.inputs) - 1)
    return Rule(f"{' '.join(dims)}{extra} -> {' '.join(out) or '_'}", mix=frozenset(dims[-2:]))


def last_pairs(info: NodeInfo) -> Rule:
    """Inverse acts on matrices in the last two axes and keeps their shape."""
    full = " ".join(f"d{k}" for k in range(info.rank()))
    return Rule(f"{full} -> {full}", frozenset(f"d{info.rank() - k}" for k in (1, 2)))


def max_pool(info: NodeInfo) -> Rule | Locked:
    """The second output numbers positions across all channels.  Only MaxUnpool can read such numbers after a cut."""
    if len(info.node.outputs) > 1 and info.node.outputs[1] is not None:
        uses = info.graph.consumers.get(info.node.outputs[1], ())
        readers = [(info.graph.nodes[node].op, slot) for node, slot in uses]
        if info.node.outputs[1] in info.graph.outputs or any(r != ("MaxUnpool", 1) for r in readers):
            return Rule("n c x.. -> n c y.., n c y..", frozenset("nc"))
    return POOL


def max_unpool(info: NodeInfo) -> Rule | Locked:
    """Indices number positions across all channels.  They follow a cut only if a MaxPool computes them again."""
    made = info.graph.producer.get(info.node.inputs[1] or "")
    fresh = made is not None and info.graph.nodes[made].op == "MaxPool"
    space = frozenset(f"x{k}" for k in range(info.rank() - 2))
    return Rule("n c x.., n c x.., _ -> n c y..", space if fresh else space | {"n", "c"})


def masked_pool(info: NodeInfo) -> Rule:
    return Rule("n c x.., n c x.. -> n c y..", frozenset(f"x{k}" for k in range(info.rank() - 2)))


def column_to_image(info: NodeInfo) -> Rule | Locked:
    """Col2Im: every channel has one row per position of its block."""
    block = info.constant(2)
    if block is None:
        return Locked("takes a block shape that is computed at run time")
    size = 1
    for length in block.ravel().tolist():
        size *= int(length)
    return Rule("n (c k) l, _, _ -> n c y..", frozenset("kl"), sizes={"k": size})


def crop_pad(info: NodeInfo) -> Rule:
    """CenterCropPad crops or pads the axes that it names; the others pass."""
    rank = info.rank()
    touched = {a % max(rank, 1) for a in (info.node.integers("axes") or range(rank))}
    left = [f"{'x' if k in touched else 'd'}{k}" for k in range(rank)]
    right = [f"{'y' if k in touched else 'd'}{k}" for k in range(rank)]
    return Rule(f"{' '.join(left)}, _ -> {' '.join(right)}")


def fourier(info: NodeInfo) -> Rule | Locked:
    """DFT along one axis.  The last axis holds real and imaginary parts."""
    rank, axis = info.rank(), info.node.attribute("axis")
    operand = info.constant(2)
    if len(info.node.inputs) > 2 and info.node.inputs[2] is not None and operand is None:
        return Locked("transforms an axis that is computed at run time")
    default = 1 if info.graph.opsets.get("", 20) < 20 else -2
    place = int(operand.ravel()[0]) if operand is not None else int(axis.i) if axis is not None else default
    touched = {place % max(rank, 1), rank - 1}
    left = [f"{'x' if k in touched else 'd'}{k}" for k in range(rank)]
    right = [f"{'y' if k in touched else 'd'}{k}" for k in range(rank)]
    return Rule(f"{' '.join(left)}, _, _ -> {' '.join(right)}")


POOL = Rule("n c x.. -> n c y.., n c y..")
GLOBAL = Rule("n c x.. -> n c y..")

TABLE: dict[str, RuleEntry] = {
    "AveragePool": POOL,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "Col2Im": column_to_image,
    "CenterCropPad": crop_pad,
    "DFT": fourier,
    "LpPool": POOL,
    "GlobalAveragePool": GLOBAL,
    "GlobalMaxPool": GLOBAL,
    "GlobalLpPool": GLOBAL,
    **dict.fromkeys(REDUCE, reduce),
    "ArgMax": arg,
    "ArgMin": arg,
    "CumSum": cumulative,
    "CumProd": cumulative,
    "Resize": resize,
    "Upsample": resize,
    "Trilu": last_axes,
    "Det": last_axes,
    "GridSample": Rule("n c x.., n y.. w -> n c y..", mix=frozenset({"w"})),
    "RoiAlign": Rule("n c h w, r four, r -> r c y z", mix=frozenset({"four"})),
    "MaxRoiPool": Rule("n c h w, r five -> r c y z", mix=frozenset({"five"})),
    "AffineGrid": Locked("builds a sampling grid from transforms"),
    "STFT": Locked("cuts a signal into overlapping frames"),
}
MICROSOFT: dict[str, RuleEntry] = {
    "NhwcMaxPool": Rule("n x.. c -> n y.. c"),
    "MaxpoolWithMask": masked_pool,
    "GridSample": Rule("n c x.., n y.. w -> n c y..", mix=frozenset({"w"})),
    "CropAndResize": Rule("n c h w, r four, r, _ -> r c y z", mix=frozenset({"four"})),
    "Inverse": last_pairs,
    "Trilu": last_axes,
    "ReduceSumInteger": reduce,
}
