"""Operators that move values or read shapes, without arithmetic."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, positive_axis, standard, whole
from onnxprune.tuning.operators.types import torch_type


def _constant(call: Call) -> Tensor:
    ((name, value),) = call.attributes.items()
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise Unsupported(f"a constant kept as {name}")
    kind = {"f": torch.float32, "i": torch.int64}
    if name == "value":
        return torch.as_tensor(value)
    return torch.tensor(value, dtype=kind["f" if "float" in name else "i"])


def _shape(call: Call) -> Tensor:
    sizes = list(call.x.shape)
    end = call.attributes.get("end")
    assert end is None or isinstance(end, int)
    return torch.tensor(sizes[slice(call.integer("start", 0), end)], dtype=torch.int64)


def _cast(call: Call) -> Tensor:
    kind = torch_type(call.integer("to", 1))
    if call.x.is_floating_point() and not kind.is_floating_point and kind != torch.bool:
        return call.x.to(torch.int64).to(kind)
    return call.x.to(kind)


def _reshape(call: Call) -> Tensor:
    sizes = call.listed(1, "shape")
    if sizes is None:
        raise Unsupported("no shape")
    if not call.integer("allowzero", 0):
        sizes = [call.x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return call.x.reshape(sizes)


def _flatten(call: Call) -> Tensor:
    axis = call.integer("axis", 1)
    axis = axis + call.x.dim() if axis < 0 else axis
    return call.x.reshape(math.prod(call.x.shape[:axis]), math.prod(call.x.shape[axis:]))


def _unsqueeze(call: Call) -> Tensor:
    axes = call.listed(1, "axes") or []
    y = call.x
    for axis in sorted(a % (call.x.dim() + len(axes)) for a in axes):
        y = y.unsqueeze(axis)
    return y


def _squeeze(call: Call) -> Tensor:
    axes = call.listed(1, "axes")
    if axes is None:
        return call.x.squeeze()
    return call.x.squeeze(tuple(a % call.x.dim() for a in axes))


def _split(call: Call) -> tuple[Tensor, ...]:
    axis = positive_axis(call.integer("axis", 0), call.x.dim())
    sizes = call.listed(1, "split")
    if sizes is None:
        length, parts = call.x.shape[axis], call.outputs
        part = -(-length // parts)
        sizes = [min(part, max(length - k * part, 0)) for k in range(parts)]
    return tuple(torch.split(call.x, sizes, axis))


def _slice(call: Call) -> Tensor:
    starts, ends = call.listed(1, "starts") or [], call.listed(2, "ends") or []
    axes = call.listed(3, "axes") or list(range(len(starts)))
    steps = call.listed(4, "steps") or [1] * len(starts)
    y = call.x
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = positive_axis(axis, y.dim())
        # An end of -1 means the last place to Python, but "before the first" to a backward slice.
        past = end < -y.shape[axis] if step < 0 else False
        places = range(y.shape[axis])[slice(start, None if past else end, step)]
        if step == 1:
            y = y.narrow(axis, places.start, len(places)) if len(places) else y.narrow(axis, 0, 0)
        elif step > 0:
            y = y[(slice(None),) * axis + (slice(places.start, places.stop, step),)]
        else:
            y = y.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=y.device))
    return y


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _sides(call: Call) -> tuple[list[int], list[int]]:
    pads = call.listed(1, "pads") or []
    rank, given = call.x.dim(), call.get(3)
    axes = [a % rank for a in whole(given)] if given is not None else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    return before, after


def _pad(call: Call) -> Tensor:
    before, after = _sides(call)
    given = call.get(2)
    value = call.number("value", 0.0 if given is None else given.item())
    mode = call.text("mode", "constant")
    y = call.x
    if mode == "constant":
        flat = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
        kind = bool(value) if y.dtype == torch.bool else value
        return F.pad(y, flat, value=kind)
    for axis in range(y.dim()):
        if before[axis] or after[axis]:
            y = y.index_select(axis, _mirrored(y.shape[axis], before[axis], after[axis], mode).to(y.device))
    return y


def _mirrored(length: int, before: int, after: int, mode: str) -> Tensor:
    if mode not in _MODES:
        raise Unsupported(f"mode {mode}")
    # numpy supports these modes on any axis.  A crop is a slice of the result.
    places = np.arange(length)[max(-before, 0) : length - max(-after, 0)]
    if mode == "reflect" and len(places) == 1:
        mode = "edge"
    kind = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode]
    return torch.as_tensor(np.pad(places, (max(before, 0), max(after, 0)), mode=kind))  # type: ignore[call-overload]


def _expand(call: Call) -> Tensor:
    sizes = tuple(call.listed(1, "shape") or [])
    return call.x.broadcast_to(torch.broadcast_shapes(call.x.shape, sizes))


def _filled(call: Call) -> Tensor:
    value = call.attributes.get("value")
    sizes = whole(call.x)
    if value is None:
        return torch.zeros(sizes)
    one = torch.as_tensor(value).reshape(-1)[:1]
    return one.expand(math.prod(sizes)).reshape(sizes).clone()


def _range(call: Call) -> Tensor:
    start, end, step = (call.need(slot).item() for slot in range(3))
    return torch.arange(start, end, step, dtype=call.x.dtype)


def _depth_to_space(call: Call) -> Tensor:
    n, c, h, w = call.x.shape
    b = call.integer("blocksize", 1)
    if call.text("mode", "DCR") == "DCR":
        y = call.x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = call.x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(call: Call) -> Tensor:
    n, c, h, w = call.x.shape
    b = call.integer("blocksize", 1)
    order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return call.x.reshape(n, c, h // b, b, w // b, b).permute(order).reshape(n, c * b * b, h // b, w // b)


def _centre(call: Call) -> Tensor:
    sizes = call.listed(1, "shape") or []
    axes = [a % call.x.dim() for a in call.integers("axes") or range(call.x.dim())]
    y = call.x
    for size, axis in zip(sizes, axes, strict=True):
        missing = size - y.shape[axis]
        if missing < 0:
            y = y.narrow(axis, -missing // 2, size)
        elif missing:
            flat = [0, 0] * (y.dim() - axis)
            flat[-2:] = [missing // 2, missing - missing // 2]
            y = F.pad(y, flat)
    return y


def _transpose(call: Call) -> Tensor:
    return call.x.permute(call.integers("perm") or list(range(call.x.dim()))[::-1])


def _eye(call: Call) -> Tensor:
    rows, columns = call.x.shape
    kind = call.attributes.get("dtype")
    made = torch.diag_embed(torch.ones(max(rows, columns) + abs(call.integer("k", 0))), call.integer("k", 0))
    return made[:rows, :columns].to(call.x.dtype if kind is None else torch_type(call.integer("dtype", 1)))


def _concat(call: Call) -> Tensor:
    parts = [x for x in call.inputs if x is not None]
    return torch.cat(parts, call.integer("axis", 1))


def _trilu(call: Call) -> Tensor:
    k = call.get(1)
    shift = 0 if k is None else int(k)
    return torch.triu(call.x, shift) if call.integer("upper", 1) else torch.tril(call.x, shift)


_PAD = Entry(_pad, host=(1, 2, 3))
TABLE: OperatorTable = {
    **standard(
        {
            "Constant": Entry(_constant),
            "Shape": Entry(_shape),
            "Size": Entry(lambda call: torch.tensor(call.x.numel())),
            "Cast": Entry(_cast),
            "CastLike": Entry(lambda call: call.x.to(call.need(1).dtype)),
            "Reshape": Entry(_reshape, host=(1,)),
            "Flatten": Entry(_flatten),
            "Unsqueeze": Entry(_unsqueeze, host=(1,)),
            "Squeeze": Entry(_squeeze, host=(1,)),
            "Transpose": Entry(_transpose),
            "Concat": Entry(_concat),
            "Split": Entry(_split, host=(1,)),
            "Slice": Entry(_slice, host=(1, 2, 3, 4)),
            "Pad": _PAD,
            "Expand": Entry(_expand, host=(1,)),
            "Tile": Entry(lambda call: call.x.repeat(call.listed(1, "repeats") or []), host=(1,)),
            "ConstantOfShape": Entry(_filled, host=(0,)),
            "Range": Entry(_range, host=(0, 1, 2)),
            "DepthToSpace": Entry(_depth_to_space),
            "SpaceToDepth": Entry(_space_to_depth),
            "CenterCropPad": Entry(_centre, host=(1,)),
            "EyeLike": Entry(_eye),
            "Trilu": Entry(_trilu, host=(1,)),
        }
    ),
    ("com.microsoft", "Pad"): _PAD,
    ("com.microsoft", "Trilu"): Entry(_trilu, host=(1,)),
    ("com.microsoft", "ExpandDims"): Entry(_unsqueeze, host=(1,)),
}
