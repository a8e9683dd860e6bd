"""Convolutions over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, standard
from onnxprune.tuning.operators.elementwise import ACTIVATIONS, between
from onnxprune.tuning.operators.space import padded, pads_of, window

FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BACKWARD = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolve(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rank = weight.dim() - 2
    if rank not in FORWARD:
        raise Unsupported(f"a convolution over {rank} axes")
    strides, dilations = window(call, rank)
    before, after = pads_of(call, x.shape[2:], weight.shape[2:])
    if before != after or min(before) < 0:
        x, before = padded(x, before, after), [0] * rank
    return FORWARD[rank](x, weight, bias, strides, before, dilations, call.integer("group", 1))


def _conv(call: Call) -> Tensor:
    return convolve(call, call.x, call.need(1), call.get(2))


def activated(call: Call, y: Tensor) -> Tensor:
    """The activation that a fused node names."""
    name = call.text("activation", "")
    if not name:
        return y
    stated = call.attributes.get("activation_params") or ()
    assert isinstance(stated, Sequence)
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Clip": ("min", "max")}.get(name, ())
    given = dict(zip(names, stated, strict=False))
    if name == "Clip":
        return between(y, float(given["min"]), float(given["max"]))
    if name not in ACTIVATIONS:
        raise Unsupported(f"activation {name}")
    activated = ACTIVATIONS[name].run(Call(name, call.opset, (y,), given))
    assert isinstance(activated, Tensor)
    return activated


def _fused(call: Call) -> Tensor:
    y, added = _conv(call), call.get(3)
    return activated(call, y if added is None else y + added)


def _transposed_pads(call: Call, x: Tensor, kernel: Sequence[int], extra: Sequence[int]) -> tuple[list[int], list[int]]:
    """(before, after): how much to crop from the full result."""
    rank = len(kernel)
    strides, dilations = window(call, rank)
    asked, how = call.integers("output_shape"), call.text("auto_pad", "NOTSET")
    if asked is None and how not in ("SAME_UPPER", "SAME_LOWER"):
        stated = (call.integers("pads") if how == "NOTSET" else None) or [0] * (2 * rank)
        return stated[:rank], stated[rank:]
    size = asked[-rank:] if asked is not None else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    total = [
        (n - 1) * s + e + (k - 1) * d + 1 - z
        for n, s, e, k, d, z in zip(x.shape[2:], strides, extra, kernel, dilations, size, strict=True)
    ]
    before = [t // 2 if how == "SAME_UPPER" else t - t // 2 for t in total]
    return before, [t - b for t, b in zip(total, before, strict=True)]


def transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, pads: Sequence[int] | None = None) -> Tensor:
    rank = weight.dim() - 2
    if rank not in BACKWARD:
        raise Unsupported(f"a convolution over {rank} axes")
    strides, dilations = window(call, rank)
    extra = call.integers("output_padding") or [0] * rank
    if pads is not None:
        before, after = list(pads[:rank]), list(pads[rank:])
    else:
        before, after = _transposed_pads(call, x, weight.shape[2:], extra)
    group = call.integer("group", 1)
    if (
        before == after
        and min(before) >= 0
        and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    ):
        return BACKWARD[rank](x, weight, bias, strides, before, extra, group, dilations)
    whole = BACKWARD[rank](x, weight, None, strides, 0, 0, group, dilations)
    whole = padded(whole, [-b for b in before], [e - a for e, a in zip(extra, after, strict=True)])
    return whole if bias is None else whole + bias.reshape(-1, *[1] * rank)


def _transposed(call: Call) -> Tensor:
    return transpose(call, call.x, call.need(1), call.get(2))


def _transposed_at_pads(call: Call) -> Tensor:
    return transpose(call, call.x, call.need(1), call.get(3), call.listed(2, "pads"))


def _causal(call: Call) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over time.  The last inputs carry over from call to call."""
    x, weight, state = call.x, call.need(1), call.get(3)
    past = weight.shape[-1] - 1
    if state is None:
        state = x.new_zeros(x.shape[0], x.shape[1], past)
    whole = torch.cat([state, x], -1)
    y = F.conv1d(whole, weight, call.get(2), groups=x.shape[1])
    if call.text("activation", "none") not in ("none", ""):
        raise Unsupported("an activation")
    return y, whole[..., whole.shape[-1] - past :]


def _col2im(call: Call) -> Tensor:
    image, block = call.listed(1, ""), call.listed(2, "")
    if image is None or block is None or len(image) != 2:
        raise Unsupported("other than two axes of space")
    pads = call.integers("pads") or [0, 0, 0, 0]
    strides, dilations = window(call, 2)
    size = (image[0] + pads[0] + pads[2], image[1] + pads[1] + pads[3])
    return padded(F.fold(call.x, size, block, dilations, 0, strides), [-pads[0], -pads[1]], [-pads[2], -pads[3]])


TABLE: OperatorTable = {
    **standard(
        {
            "Conv": Entry(_conv),
            "ConvTranspose": Entry(_transposed),
            "CausalConvWithState": Entry(_causal),
            "Col2Im": Entry(_col2im, host=(1, 2)),
        }
    ),
    ("com.microsoft", "FusedConv"): Entry(_fused),
    ("com.microsoft", "ConvTransposeWithDynamicPads"): Entry(_transposed_at_pads, host=(2,)),
}
