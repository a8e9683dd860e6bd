"""Operators that are linear in a weight: convolutions, matrix products, Einsum."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from onnxprune.coupling.rule import Linear, Locked, NodeInfo, Rule, RuleEntry

CONV = "n (g i) x.., (g o) i k.., (g o) -> n (g o) y.."
CONV_TRANSPOSE = "n (g i) x.., (g i) o k.., (g o) -> n (g o) y.."


def conv(info: NodeInfo) -> Rule:
    spatial = max(info.rank(1) - 2, 0)
    return Rule(
        CONV,
        attributes={"group": "g"},
        sizes={} if info.node.attribute("group") is not None else {"g": 1},
        linear=Linear(0, 1, 2),
        macs=(("n", "g", "o", "i", *_names("k", spatial), *_names("y", spatial)),),
    )


def conv_transpose(info: NodeInfo) -> Rule:
    spatial = max(info.rank(1) - 2, 0)
    return Rule(
        CONV_TRANSPOSE,
        attributes={"group": "g"},
        sizes={} if info.node.attribute("group") is not None else {"g": 1},
        linear=Linear(0, 1, 2),
        macs=(("n", "g", "o", "i", *_names("k", spatial), *_names("x", spatial)),),
    )


def _names(stem: str, count: int) -> list[str]:
    return [f"{stem}{k}" for k in range(count)]


def gemm(info: NodeInfo, second: int = 1, third: int = 2) -> Rule:
    """``second`` and ``third`` are the slots of B and C (quantized forms have scales in between)."""
    a = "k i" if info.node.integer("transA", 0) else "i k"
    b = "j k" if info.node.integer("transB", 0) else "k j"
    bias = _gemm_bias(info.shape(third), info.out_shape())
    linear = Linear(0, 1, 2) if (second, third) == (1, 2) else None
    return Rule(f"{a}, {b}, {bias} -> i j", linear=linear, macs=(("i", "k", "j"),))


def _gemm_bias(shape: tuple[int, ...] | None, out: tuple[int, ...] | None) -> str:
    if not shape or out is None:
        return "_" if not shape else "i j"
    names, tail = ["i", "j"][2 - len(shape) :], out[2 - len(shape) :]
    return " ".join(n if s == o and s > 1 else "1" for n, s, o in zip(names, shape, tail, strict=True))


def fused_gemm(info: NodeInfo) -> Rule:
    """Gemm followed by an activation: its output is not linear in its weight, so least squares does not apply."""
    return replace(gemm(info), linear=None)


def matmul(info: NodeInfo, second: int = 1) -> Rule:
    """``second`` is the slot of the right matrix (quantized forms have scales in between)."""
    a, b, out = info.shape(0) or (), info.shape(second) or (), info.out_shape() or ()
    batch = out[: len(out) - (len(a) > 1) - (len(b) > 1)]
    names = _names("b", len(batch))
    left = [*_batch(a, batch, names), "i", "k"] if len(a) > 1 else ["k"]
    right = [*_batch(b, batch, names), "k", "j"] if len(b) > 1 else ["k"]
    result = [*names, *(["i"] if len(a) > 1 else []), *(["j"] if len(b) > 1 else [])]
    text = f"{' '.join(left)}, {' '.join(right)} -> {' '.join(result) or '_'}"
    linear = Linear(0, 1, None) if len(b) == 2 and len(a) > 1 and second == 1 else None
    return Rule(text, linear=linear, macs=((*names, *(f for f in ("i", "k", "j") if f in (*left, *right))),))


def fused_matmul(info: NodeInfo) -> Rule | Locked:
    """com.microsoft FusedMatMul: MatMul that may transpose the last axes, or move the first axis, of either matrix.

    ``transA`` swaps the last two axes; ``transBatchA`` moves the first axis to the second-last place.
    """
    a, b = info.rank(0), info.rank(1)
    if a < 2 or b < 2:
        return matmul(info) if not _transposes(info) else Locked("transposes a vector")
    names = _names("b", max(a, b) - 2)
    out = info.out_shape() or ()
    left = _arranged(info, 0, "A", "i", "k", out, names)
    right = _arranged(info, 1, "B", "k", "j", out, names)
    linear = Linear(0, 1, None) if b == 2 and not _transposes(info) and _alpha(info) == 1.0 else None
    text = f"{' '.join(left)}, {' '.join(right)} -> {' '.join([*names, 'i', 'j'])}"
    return Rule(text, linear=linear, macs=((*names, "i", "k", "j"),))


def _alpha(info: NodeInfo) -> float:
    stated = info.node.attribute("alpha")
    return 1.0 if stated is None else float(stated.f)


def _transposes(info: NodeInfo) -> bool:
    return any(info.node.integer(f"trans{kind}{which}", 0) for kind in ("", "Batch") for which in "AB")


def _arranged(
    info: NodeInfo, slot: int, which: str, row: str, column: str, out: tuple[int, ...], names: list[str]
) -> list[str]:
    shape = info.shape(slot) or ()
    last = [column, row] if info.node.integer(f"trans{which}", 0) else [row, column]
    lead = len(names) - (len(shape) - 2)
    if info.node.integer(f"transBatch{which}", 0) and len(shape) > 2:
        # (rows, batch…, columns): the batch axes follow the first matrix axis.
        batch = [
            n if s == out[lead + k] else "1" for k, (n, s) in enumerate(zip(names[lead:], shape[1:-1], strict=True))
        ]
        return [last[0], *batch, last[1]]
    batch = [n if s == out[lead + k] else "1" for k, (n, s) in enumerate(zip(names[lead:], shape[:-2], strict=True))]
    return [*batch, *last]


def _batch(shape: tuple[int, ...], batch: tuple[int, ...], names: list[str]) -> list[str]:
    own = shape[:-2]
    lead = len(batch) - len(own)
    return [names[lead + k] if size == batch[lead + k] else "1" for k, size in enumerate(own)]


def einsum(info: NodeInfo) -> Rule | Locked:
    equation = info.node.string("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = Counter(re.sub(r"[.,]", "", left))
        right = ("..." if "..." in left else "") + "".join(sorted(k for k, v in letters.items() if v == 1))
    terms = left.split(",")
    if any(max(Counter(t.replace("...", "")).values(), default=0) > 1 for t in [*terms, right]):
        return Locked("takes a diagonal (a repeated index in one term of its equation)")
    wide = max((info.rank(k) - len(t.replace("...", "")) for k, t in enumerate(terms) if "..." in t), default=0)
    out = info.out_shape() or ()
    offset = right.find("...")

    def spell(term: str, shape: tuple[int, ...]) -> str:
        own = len(shape) - len(term.replace("...", "")) if "..." in term else 0
        at = term.find("...")
        words: list[str] = []
        for piece in re.findall(r"\.\.\.|.", term):
            if piece != "...":
                words.append(piece)
                continue
            for k in range(own):
                lead = wide - own + k
                full = out[offset + lead] if offset >= 0 else shape[at + k]
                words.append(f"E{lead}" if shape[at + k] == full else "1")
        return " ".join(words) or "_"

    text = ", ".join(spell(t, info.shape(k) or ()) for k, t in enumerate(terms)) + f" -> {spell(right, out)}"
    factors = sorted(set(re.sub(r"[.,]", "", left)))
    once = frozenset(f for f in factors if f not in right and sum(f in term for term in terms) == 1)
    return Rule(text, sums=once, macs=((*factors, *(f"E{k}" for k in range(wide if offset >= 0 else 0))),))


def fused_conv(info: NodeInfo) -> Rule:
    """Conv plus an optional tensor Z of the output's shape, followed by an activation."""
    return _added(info, "n (g i) x.., (g o) i k.., (g o), n (g o) y.. -> n (g o) y..")


def _added(info: NodeInfo, text: str) -> Rule:
    # The window over x makes the positions y, whatever Z holds there, so they stay.
    return replace(conv(info), text=text, linear=None, mix=frozenset(_names("y", max(info.rank(1) - 2, 0))))


def nhwc_conv(info: NodeInfo) -> Rule:
    """Data with channels last; the weight has the layout of Conv."""
    return _added(info, "n x.. (g i), (g o) i k.., (g o), n y.. (g o) -> n y.. (g o)")


def padded_transpose(info: NodeInfo) -> Rule:
    """ConvTransposeWithDynamicPads: X, W, pads, B."""
    text = "n (g i) x.., (g i) o k.., _, (g o) -> n (g o) y.."
    return replace(conv_transpose(info), text=text, linear=None)


def deformable(info: NodeInfo) -> Rule | Locked:
    """DeformConv: each offset group (p) of input channels has its own sampling offsets."""
    kernel = (info.shape(1) or ())[2:]
    taps = 1
    for size in kernel:
        taps *= size
    groups, offsets = info.node.integer("group", 1), info.node.integer("offset_group", 1)
    macs = (("n", "g", "o", "i", *_names("k", len(kernel)), *_names("y", len(kernel))),)
    places = frozenset({"f", "m", *_names("y", len(kernel))})
    if offsets == 1:
        text = "n (g i) x.., (g o) i k.., n f y.., (g o), n m y.. -> n (g o) y.."
        return Rule(text, places, {"group": "g"}, sizes={"g": groups}, macs=macs)
    if groups > 1:
        return Locked("groups its channels in two ways at once")
    text = "n (p i) x.., o (p i) k.., n (p f) y.., o, n (p m) y.. -> n o y.."
    macs = (("n", "p", "o", "i", *_names("k", len(kernel)), *_names("y", len(kernel))),)
    return Rule(text, places, {"offset_group": "p"}, sizes={"p": offsets, "f": 2 * taps, "m": taps}, macs=macs)


def activated_matmul(info: NodeInfo) -> Rule | Locked:
    """FusedMatMul followed by an activation, in some variants along an axis."""
    if info.node.attribute("activation_axis") is not None:
        return Locked("ends in an activation along an axis, such as a softmax")
    return fused_matmul(info)


def causal_conv(info: NodeInfo) -> Rule | Locked:
    """CausalConvWithState of ai.onnx: depthwise along time; the state holds the last inputs."""
    if len(info.node.outputs) > 2:
        return Locked("keeps a convolution state in its own layout")
    return Rule("n c x, c 1 k, c, n c p -> n c x, n c p", frozenset("xp"), macs=(("n", "c", "k", "x"),))


TABLE: dict[str, RuleEntry] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Einsum": einsum,
    "DeformConv": deformable,
    "CausalConvWithState": causal_conv,
}
MICROSOFT: dict[str, RuleEntry] = {
    "FusedConv": fused_conv,
    "NhwcConv": nhwc_conv,
    "NhwcFusedConv": nhwc_conv,
    "ConvTransposeWithDynamicPads": padded_transpose,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "FusedMatMulActivation": activated_matmul,
    "TransposeMatMul": fused_matmul,
    "CausalConvWithState": Locked("keeps a convolution state in its own layout"),
}
