"""Padding of sliding windows, for convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call


def window(call: Call, rank: int) -> tuple[list[int], list[int]]:
    """(strides, dilations) of a window over ``rank`` axes."""
    return call.integers("strides") or [1] * rank, call.integers("dilations") or [1] * rank


def pads_of(call: Call, space: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Pads (before, after) per spatial axis, with ``auto_pad`` resolved."""
    rank = len(kernel)
    strides, dilations = window(call, rank)
    how = call.text("auto_pad", "NOTSET")
    if how in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(space, kernel, strides, dilations, strict=True)
        ]
        before = [t // 2 if how == "SAME_UPPER" else t - t // 2 for t in total]
        return before, [t - b for t, b in zip(total, before, strict=True)]
    stated = (call.integers("pads") if how == "NOTSET" else None) or [0] * (2 * rank)
    return stated[:rank], stated[rank:]


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` with its last axes padded; negative pads crop."""
    if not any(before) and not any(after):
        return x
    pairs = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
    return F.pad(x, pairs, value=value)
