"""Operators that act on every position alone, with broadcasting.  This covers residual Adds and gates."""

from __future__ import annotations

from onnxprune.coupling.rule import Locked, NodeInfo, Rule, RuleEntry

UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]
BROADCAST = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Max",
    "Min",
    "Mean",
    "Sum",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Where",
    "PRelu",
    "BitCast",
]


def broadcast(info: NodeInfo) -> Rule:
    """``d0 d1 d2, 1 d1 1 -> d0 d1 d2``: numpy broadcasting, aligned at the last axis."""
    out = info.out_shape() or ()
    text = ", ".join(aligned(info.shape(k), out) for k in range(len(info.node.inputs)))
    return Rule(f"{text} -> {aligned(out, out)}")


def aligned(shape: tuple[int, ...] | None, out: tuple[int, ...]) -> str:
    if not shape:
        return "_"
    lead = len(out) - len(shape)
    return " ".join(f"d{lead + k}" if size == out[lead + k] else "1" for k, size in enumerate(shape))


def legacy_broadcast(info: NodeInfo) -> Rule:
    """Binary operators of opsets 1 to 6 align the second input at ``axis`` if ``broadcast`` is set."""
    if not info.node.integer("broadcast", 0):
        return broadcast(info)
    out, second = info.out_shape() or (), info.shape(1) or ()
    axis = info.node.integer("axis", len(out) - len(second)) % max(len(out), 1)
    words = " ".join(f"d{axis + k}" if s == out[axis + k] else "1" for k, s in enumerate(second)) or "_"
    return Rule(f"{aligned(out, out)}, {words} -> {aligned(out, out)}")


def clip(info: NodeInfo) -> Rule:
    return _first(info, extra=2)


def dropout(info: NodeInfo) -> Rule:
    """The identity at inference.  The optional mask output has the shape of the data."""
    dims = " ".join(f"d{k}" for k in range(info.rank())) or "_"
    return Rule(f"{dims}, _, _ -> {dims}, {dims}")


def like(info: NodeInfo) -> Rule:
    """CastLike: the second input only gives the type."""
    return _first(info, extra=1)


def _first(info: NodeInfo, extra: int) -> Rule:
    dims = " ".join(f"d{k}" for k in range(info.rank())) or "_"
    return Rule(", ".join([dims, *["_"] * extra]) + f" -> {dims}")


def bias_dropout(info: NodeInfo) -> Rule:
    """data + bias (+ residual) at inference; ratio and training mode are operands."""
    out = info.out_shape() or ()
    full = aligned(out, out)
    residual = aligned(info.shape(2), out)
    return Rule(f"{aligned(info.shape(0), out)}, {aligned(info.shape(1), out)}, {residual}, _, _ -> {full}, {full}")


def integer_product(info: NodeInfo) -> Rule:
    """MulInteger: A, its zero point, B, its zero point."""
    out = info.out_shape() or ()
    return Rule(f"{aligned(info.shape(0), out)}, _, {aligned(info.shape(2), out)}, _ -> {aligned(out, out)}")


def expand_dims(info: NodeInfo) -> Rule | Locked:
    axis = info.constant(1)
    if axis is None:
        return Locked("inserts an axis that is computed at run time")
    names = [f"d{k}" for k in range(info.rank())]
    place = int(axis.ravel()[0]) % (len(names) + 1)
    return Rule(f"{' '.join(names) or '_'}, _ -> {' '.join([*names[:place], '1', *names[place:]])}")


TABLE: dict[str, RuleEntry] = {
    **dict.fromkeys(UNARY, broadcast),
    **dict.fromkeys(BROADCAST, broadcast),
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"), legacy_broadcast
    ),
    "Clip": clip,
    "Dropout": dropout,
    "CastLike": like,
    "SwiGLU": broadcast,
}
MICROSOFT: dict[str, RuleEntry] = {
    **dict.fromkeys(["Gelu", "QuickGelu", "FastGelu", "BiasGelu", "BiasAdd", "SwiGLU", "ScaledSiLU"], broadcast),
    "MulInteger": integer_product,
    "BiasDropout": bias_dropout,
    "BiasSplitGelu": Rule("n s (u c), (u c) -> n s c", mix=frozenset("u"), sizes={"u": 2}),
    "BiasSoftmax": Locked("adds a bias whose layout depends on the axis of its softmax"),
    "ExpandDims": expand_dims,
}
