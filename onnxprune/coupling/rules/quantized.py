"""Quantized operators.  Scales and zero points per channel leave with their channel; those per tensor stay."""

from __future__ import annotations

from types import MappingProxyType

from onnxprune.coupling.rule import Locked, Mover, NodeInfo, Rule, RuleEntry
from onnxprune.coupling.rules.elementwise import aligned
from onnxprune.coupling.rules.linear import conv, gemm, matmul
from onnxprune.coupling.rules.normalize import along
from onnxprune.coupling.rules.spatial import reduced

#: Slot of the scale, and slot of the zero point, of the tensor at slot 0.
_FIRST, _SECOND = MappingProxyType({0: 1}), MappingProxyType({0: 2})
#: The same for most quantized layers: data at slot 0 and a weight at slot 3.
_LAYER_SCALES, _LAYER_ZEROS = MappingProxyType({0: 1, 3: 4}), MappingProxyType({0: 2, 3: 5})


def linear_scale(info: NodeInfo) -> Rule | Locked:
    """QuantizeLinear and DequantizeLinear: one scale per tensor, per position of ``axis``, or per block along it."""
    rank, scale = info.rank(), info.shape(1) or ()
    names = [f"d{k}" for k in range(rank)]
    full = " ".join(names) or "_"
    if all(size == 1 for size in scale):
        return Rule(f"{full}, _, _ -> {full}", zeros=_SECOND, scales=_FIRST)
    axis = info.node.integer("axis", 1)
    if not -rank <= axis < rank:
        return Locked("has a quantization axis outside its tensor")
    axis %= rank
    block = info.node.integer("block_size", 0)
    if not block:
        return Rule(f"{full}, {names[axis]}, {names[axis]} -> {full}", zeros=_SECOND, scales=_FIRST)
    # A block shares one scale, so it can only leave whole.
    blocks = " ".join([*names[:axis], "q", *names[axis + 1 :]])
    data = " ".join([*names[:axis], "(q r)", *names[axis + 1 :]])
    return Rule(f"{data}, {blocks}, {blocks} -> {data}", frozenset({"r"}), sizes={"r": block})


def dynamic_quantize(info: NodeInfo) -> Rule:
    """One scale from the range of all values.  The range always includes zero, so zeroed channels do not widen it."""
    full = " ".join(f"d{k}" for k in range(info.rank())) or "_"
    return Rule(f"{full} -> {full}, _, _", masks=tuple((0, axis) for axis in range(info.rank())))


def _along(info: NodeInfo, slot: int, word: str, size: int) -> str:
    """Term of a scale or zero point: per channel (``word``) if it has one value per channel."""
    shape = info.shape(slot)
    return word if shape and len(shape) == 1 and shape[0] == size > 1 else "_"


def qlinear_conv(info: NodeInfo) -> Rule:
    """x, scale, zero, w, scale, zero, scale, zero, B.  ``channels_last`` applies to the data, not to the weight."""
    weight = info.shape(3) or (0, 0)
    space = len(weight) - 2
    per_channel = [_along(info, slot, "(g o)", weight[0]) for slot in (4, 5)]
    last = info.node.domain and info.node.integer("channels_last", 0)
    x, y = ("n x.. (g i)", "n y.. (g o)") if last else ("n (g i) x..", "n (g o) y..")
    return Rule(
        f"{x}, _, _, (g o) i k.., {per_channel[0]}, {per_channel[1]}, _, _, (g o) -> {y}",
        attributes={"group": "g"},
        sizes={} if info.node.attribute("group") is not None else {"g": 1},
        macs=(("n", "g", "o", "i", *(f"k{k}" for k in range(space)), *(f"y{k}" for k in range(space))),),
        zeros=_LAYER_ZEROS,
        scales=_LAYER_SCALES,
    )


def conv_integer(info: NodeInfo) -> Rule:
    weight = info.shape(1) or (0, 0)
    plain = conv(info)
    text = f"n (g i) x.., (g o) i k.., _, {_along(info, 3, '(g o)', weight[0])} -> n (g o) y.."
    return Rule(
        text,
        attributes=plain.attributes,
        sizes=plain.sizes,
        macs=plain.macs,
        zeros=MappingProxyType({0: 2, 1: 3}),
    )


def _product(info: NodeInfo, second: int) -> tuple[str, str, str, Rule]:
    """Terms of a, b and y of a matrix product whose second matrix is at slot ``second``, and its rule."""
    plain = matmul(info, second)
    left, _, right = plain.text.partition(" -> ")
    a, b = left.split(", ")
    return a, b, right, plain


def _lines(info: NodeInfo, slot: int, term: str, keep: str) -> str:
    """Term of a scale or zero point: per row or column of a matrix (1-D), or per line of every matrix in a batch."""
    shape = info.shape(slot) or ()
    if all(size == 1 for size in shape):
        return "_"
    if len(shape) == 1:
        return keep
    words = term.split()[-len(shape) :]
    return " ".join("1" if size == 1 else word for word, size in zip(words, shape, strict=True))


def qlinear_matmul(info: NodeInfo) -> Rule:
    a, b, y, plain = _product(info, 3)
    row, column = (_lines(info, slot, a, "i") for slot in (1, 2)), (_lines(info, slot, b, "j") for slot in (4, 5))
    out = [_lines(info, slot, y, "i") for slot in (6, 7)]
    text = f"{a}, {', '.join(row)}, {b}, {', '.join(column)}, {', '.join(out)} -> {y}"
    return Rule(text, macs=plain.macs, zeros=_LAYER_ZEROS, scales=_LAYER_SCALES)


def matmul_integer(info: NodeInfo) -> Rule:
    a, b, y, plain = _product(info, 1)
    text = f"{a}, {b}, {_lines(info, 2, a, 'i')}, {_lines(info, 3, b, 'j')} -> {y}"
    return Rule(text, macs=plain.macs, zeros=MappingProxyType({0: 2, 1: 3}))


def matmul_integer_to_float(info: NodeInfo) -> Rule:
    a, b, y, plain = _product(info, 1)
    scales = (
        f"{_lines(info, 2, a, 'i')}, {_lines(info, 3, b, 'j')}, {_lines(info, 4, a, 'i')}, {_lines(info, 5, b, 'j')}"
    )
    return Rule(
        f"{a}, {b}, {scales}, j -> {y}",
        macs=plain.macs,
        zeros=MappingProxyType({0: 4, 1: 5}),
        scales=MappingProxyType({0: 2, 1: 3}),
    )


def dynamic_quantize_matmul(info: NodeInfo) -> Rule:
    """The operator quantizes A by the range of all its values, so positions that leave must not count in that range."""
    a, b, y, plain = _product(info, 1)
    text = f"{a}, {b}, {_lines(info, 2, b, 'j')}, {_lines(info, 3, b, 'j')}, j -> {y}"
    masks = tuple((0, axis) for axis in range(info.rank(0)))
    return Rule(text, macs=plain.macs, masks=masks, zeros=MappingProxyType({1: 3}), scales=MappingProxyType({1: 2}))


def qgemm(info: NodeInfo) -> Rule:
    """A, scale, zero, B, scale, zero, C, scale, zero."""
    plain = gemm(info, 3, 6)
    a, b, c = plain.text.split(" -> ")[0].split(", ")
    columns = [_along(info, slot, "j", (info.out_shape() or (0, 0))[-1]) for slot in (4, 5)]
    text = f"{a}, _, _, {b}, {columns[0]}, {columns[1]}, {c}, _, _ -> i j"
    return Rule(text, macs=plain.macs, zeros=_LAYER_ZEROS, scales=_LAYER_SCALES)


def qlinear_binary(info: NodeInfo) -> Rule:
    out = info.out_shape() or ()
    a, b = (aligned(info.shape(slot), out) for slot in (0, 3))
    return Rule(f"{a}, _, _, {b}, _, _, _, _ -> {aligned(out, out)}")


def qlinear_where(info: NodeInfo) -> Rule:
    out = info.out_shape() or ()
    test, x, y = (aligned(info.shape(slot), out) for slot in (0, 1, 4))
    return Rule(f"{test}, {x}, _, _, {y}, _, _, _, _ -> {aligned(out, out)}")


def qlinear_unary(info: NodeInfo) -> Rule:
    full = " ".join(f"d{k}" for k in range(info.rank())) or "_"
    return Rule(f"{full}, _, _, _, _ -> {full}")


def qlinear_pool(info: NodeInfo) -> Rule:
    if info.node.integer("channels_last", 0):
        return Rule("n x.. c, _, _, _, _ -> n y.. c")
    return Rule("n c x.., _, _, _, _ -> n c y..")


def qlinear_softmax(info: NodeInfo) -> Rule:
    plain = along(info, info.node.integer("opset", 13) < 13)
    full = plain.text.split(" -> ")[0]
    return Rule(f"{full}, _, _, _, _ -> {full}", plain.mix)


def qlinear_reduce(info: NodeInfo) -> Rule:
    rank = max(info.rank(), 1)
    axes = info.node.integers("axes") or range(rank)
    return reduced(info, tuple(a % rank for a in axes), 4)


def qlinear_concat(info: NodeInfo) -> Mover:
    return Mover(tuple(range(2, len(info.node.inputs), 3)), "Concat")


def block_matmul(info: NodeInfo) -> Rule | Locked:
    """MatMulNBits: weights packed in blocks along the summed axis.

    Columns leave one by one.  Summed positions leave a block at a time, unless zero points are packed across blocks.
    """
    if info.node.integer("weight_prepacked", 0):
        return Locked("holds weights rearranged for one processor")
    block, total = info.node.integer("block_size", 0), info.node.integer("K", 0)
    packed, scales, points = info.shape(1) or (), info.shape(2) or (), info.shape(3)
    if len(packed) != 3 or not block:
        return Locked("packs its weights in an unknown format")
    in_blocks = total == packed[1] * block and info.shape(4) is None
    flat = len(scales) == 1
    point = "_"
    if points is not None:
        per_block = (points[-1] if len(points) == 2 else points[0] // packed[0]) == packed[1]
        in_blocks = in_blocks and per_block
        inner = "kb" if per_block else "z"
        point = f"n {inner}" if len(points) == 2 else f"(n {inner})"
    lead = " ".join(f"a{k}" for k in range(info.rank() - 1))
    data = f"{lead} (kb e)" if in_blocks else f"{lead} k"
    return Rule(
        f"{data}, n kb w, {'(n kb)' if flat else 'n kb'}, {point}, k, n -> {lead} n",
        frozenset({"e", "w", "k", "z"}) | (frozenset() if in_blocks else frozenset({"kb"})),
        {"N": "n", **({"K": "kb e"} if in_blocks else {})},
        sizes={"kb": packed[1], **({"e": block} if in_blocks else {})},
        macs=((*lead.split(), *(("kb", "e") if in_blocks else ("k",)), "n"),),
        # A block whose scale is zero contributes nothing, whatever its packed bits.
        masks=((2, 0 if flat else 1),) if in_blocks else (),
    )


TABLE: dict[str, RuleEntry] = {
    "QuantizeLinear": linear_scale,
    "DequantizeLinear": linear_scale,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "ConvInteger": conv_integer,
    "MatMulInteger": matmul_integer,
}
MICROSOFT: dict[str, RuleEntry] = {
    "QuantizeLinear": linear_scale,
    "DequantizeLinear": linear_scale,
    "QLinearConv": qlinear_conv,
    "QGemm": qgemm,
    "QLinearAdd": qlinear_binary,
    "QLinearMul": qlinear_binary,
    "QLinearWhere": qlinear_where,
    "QLinearLeakyRelu": qlinear_unary,
    "QLinearSigmoid": qlinear_unary,
    "QLinearAveragePool": qlinear_pool,
    "QLinearGlobalAveragePool": qlinear_pool,
    "QLinearSoftmax": qlinear_softmax,
    "QLinearReduceMean": qlinear_reduce,
    "QLinearConcat": qlinear_concat,
    "MatMulInteger16": matmul_integer,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "MatMulNBits": block_matmul,
}
