"""Pooling, resizing and reductions: channels pass; the other axes shrink or mix."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.coupling.rule import Call, Entry, Locked, Rule

REDUCE = [f"Reduce{k}" for k in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]]
#: Reductions to which zeros add nothing.
ZERO_ADDS_NOTHING = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare", "ReduceSumInteger"}
)
#: Reductions whose result over the remaining channels estimates the result over all channels.
ESTIMATES = frozenset({"ReduceMax", "ReduceMean", "ReduceMin"})


def reduce(call: Call) -> Rule | Locked:
    """The reduced positions may leave if the reduction only adds them up.  Otherwise the reduced axes lock."""
    rank = call.rank()
    axes = call.ints("axes", 1)
    if axes is None and len(call.node.inputs) > 1 and call.node.inputs[1] is not None:
        return Locked("reduces over axes that are computed at run time")
    if not axes:
        axes = () if call.node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    rule = reduced(call, tuple(a % max(rank, 1) for a in axes), extra=1)
    if call.node.op in ZERO_ADDS_NOTHING:
        return replace(rule, mix=frozenset(), sums=rule.mix)
    # A single axis kept for broadcasting: exporters write normalizations and gates that way.
    spelled_out = call.node.op in ESTIMATES and len(axes) == 1 and call.node.integer("keepdims", 1)
    return replace(rule, estimates=rule.mix) if spelled_out else rule


def reduced(call: Call, axes: tuple[int, ...], extra: int) -> Rule:
    """A reduction over ``axes``; ``extra`` operand slots follow the data."""
    keep = call.node.integer("keepdims", 1)
    dims = [f"d{k}" for k in range(call.rank())]
    out = [("1" if k in axes else d) for k, d in enumerate(dims) if keep or k not in axes]
    text = ", ".join([" ".join(dims) or "_", *["_"] * extra])
    return Rule(f"{text} -> {' '.join(out) or '_'}", mix=frozenset(dims[a] for a in axes))


def arg(call: Call) -> Rule:
    return reduced(call, (call.node.integer("axis", 0) % max(call.rank(), 1),), extra=0)


def cumulative(call: Call) -> Rule | Locked:
    axis = call.constant(1)
    if axis is None:
        return Locked("accumulates over an axis that is computed at run time")
    dims = [f"d{k}" for k in range(call.rank())]
    full = " ".join(dims)
    return Rule(f"{full}, _ -> {full}", mix=frozenset({dims[int(axis.ravel()[0]) % len(dims)]}))


def resize(call: Call) -> Rule:
    """Axes with a scale of one pass.  Sizes and scales are operands."""
    before, after = call.shape(0) or (), call.out_shape() or ()
    whole = [a == b and _untouched(call, k) for k, (a, b) in enumerate(zip(before, after, strict=True))]
    left = [f"d{k}" if same else f"x{k}" for k, same in enumerate(whole)]
    right = [f"d{k}" if same else f"y{k}" for k, same in enumerate(whole)]
    extra = ", _" * (len(call.node.inputs) - 1)
    return Rule(f"{' '.join(left)}{extra} -> {' '.join(right)}")


def _untouched(call: Call, axis: int) -> bool:
    """Whether the node leaves ``axis`` unchanged.  If its scales are unknown, assume so for N and C."""
    if call.node.string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return axis < 2
    axes = [a % max(call.rank(), 1) for a in (call.node.integers("axes") or range(call.rank()))]
    if axis not in axes:
        return True
    if call.node.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    stated = call.node.attribute("scales")
    scales = list(stated.floats) if stated is not None else None
    if scales is None:
        slot = 1 if call.node.op == "Upsample" or call.graph.opsets.get("", 11) < 11 else 2
        operand = call.constant(slot)
        scales = None if operand is None or operand.size == 0 else [float(v) for v in operand.ravel()]
    if scales is None:
        # The node states sizes instead: equal sizes are a scale of one.
        return call.constant(3) is not None or axis < 2
    return len(scales) == len(axes) and scales[axes.index(axis)] == 1.0


def last_axes(call: Call) -> Rule:
    """Trilu, Det and similar operators act on the last two axes; the others pass."""
    dims = [f"d{k}" for k in range(call.rank())]
    out = [f"d{k}" for k in range(len(call.out_shape() or ()))]
    extra = ", _" * (len(call.node.inputs) - 1)
    return Rule(f"{' '.join(dims)}{extra} -> {' '.join(out) or '_'}", mix=frozenset(dims[-2:]))


def last_pairs(call: Call) -> Rule:
    """Inverse acts on matrices in the last two axes and keeps their shape."""
    full = " ".join(f"d{k}" for k in range(call.rank()))
    return Rule(f"{full} -> {full}", frozenset(f"d{call.rank() - k}" for k in (1, 2)))


def max_pool(call: Call) -> Rule | Locked:
    """The second output numbers positions across all channels.  Only MaxUnpool can read such numbers after a cut."""
    if len(call.node.outputs) > 1 and call.node.outputs[1] is not None:
        uses = call.graph.consumers.get(call.node.outputs[1], ())
        readers = [(call.graph.nodes[node].op, slot) for node, slot in uses]
        if call.node.outputs[1] in call.graph.outputs or any(r != ("MaxUnpool", 1) for r in readers):
            return Rule("n c x.. -> n c y.., n c y..", frozenset("nc"))
    return POOL


def max_unpool(call: Call) -> Rule | Locked:
    """Indices number positions across all channels.  They follow a cut only if a MaxPool computes them again."""
    made = call.graph.producer.get(call.node.inputs[1] or "")
    fresh = made is not None and call.graph.nodes[made].op == "MaxPool"
    space = frozenset(f"x{k}" for k in range(call.rank() - 2))
    return Rule("n c x.., n c x.., _ -> n c y..", space if fresh else space | {"n", "c"})


def masked_pool(call: Call) -> Rule:
    return Rule("n c x.., n c x.. -> n c y..", frozenset(f"x{k}" for k in range(call.rank() - 2)))


def column_to_image(call: Call) -> Rule | Locked:
    """Col2Im: every channel has one row per position of its block."""
    block = call.constant(2)
    if block is None:
        return Locked("takes a block shape that is computed at run time")
    size = 1
    for length in block.ravel().tolist():
        size *= int(length)
    return Rule("n (c k) l, _, _ -> n c y..", frozenset("kl"), sizes={"k": size})


def crop_pad(call: Call) -> Rule:
    """CenterCropPad crops or pads the axes that it names; the others pass."""
    rank = call.rank()
    touched = {a % max(rank, 1) for a in (call.node.integers("axes") or range(rank))}
    left = [f"{'x' if k in touched else 'd'}{k}" for k in range(rank)]
    right = [f"{'y' if k in touched else 'd'}{k}" for k in range(rank)]
    return Rule(f"{' '.join(left)}, _ -> {' '.join(right)}")


def fourier(call: Call) -> Rule | Locked:
    """DFT along one axis.  The last axis holds real and imaginary parts."""
    rank, axis = call.rank(), call.node.attribute("axis")
    operand = call.constant(2)
    if len(call.node.inputs) > 2 and call.node.inputs[2] is not None and operand is None:
        return Locked("transforms an axis that is computed at run time")
    default = 1 if call.graph.opsets.get("", 20) < 20 else -2
    place = int(operand.ravel()[0]) if operand is not None else int(axis.i) if axis is not None else default
    touched = {place % max(rank, 1), rank - 1}
    left = [f"{'x' if k in touched else 'd'}{k}" for k in range(rank)]
    right = [f"{'y' if k in touched else 'd'}{k}" for k in range(rank)]
    return Rule(f"{' '.join(left)}, _, _ -> {' '.join(right)}")


POOL = Rule("n c x.. -> n c y.., n c y..")
GLOBAL = Rule("n c x.. -> n c y..")

TABLE: dict[str, Entry] = {
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
MICROSOFT: dict[str, Entry] = {
    "NhwcMaxPool": Rule("n x.. c -> n y.. c"),
    "MaxpoolWithMask": masked_pool,
    "GridSample": Rule("n c x.., n y.. w -> n c y..", mix=frozenset({"w"})),
    "CropAndResize": Rule("n c h w, r four, r, _ -> r c y z", mix=frozenset({"four"})),
    "Inverse": last_pairs,
    "Trilu": last_axes,
    "ReduceSumInteger": reduce,
}
