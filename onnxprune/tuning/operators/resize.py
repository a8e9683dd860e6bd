"""Resize and Upsample: one matrix per axis.  A row holds the weights of the inputs for one output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, standard

Array = np.ndarray
#: coordinate_transformation_mode -> (output positions, outputs, inputs, scale) -> input positions.
PLACES: dict[str, Callable[[Array, int, int, float], Array]] = {
    "asymmetric": lambda x, size, length, scale: x / scale,
    "align_corners": lambda x, size, length, scale: x * (length - 1) / max(size - 1, 1),
    "half_pixel": lambda x, size, length, scale: (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, size, length, scale: (x + 0.5) / scale - 0.5 if size > 1 else x * 0,
    "tf_half_pixel_for_nn": lambda x, size, length, scale: (x + 0.5) / scale,
    "half_pixel_symmetric": lambda x, size, length, scale: (
        length / 2 * (1 - size / (scale * length)) + (x + 0.5) / scale - 0.5
    ),
}


def _places(size: int, length: int, scale: float, how: str) -> Array:
    """The position in the input, of ``length``, of each of ``size`` outputs (ONNX Resize, coordinate_transformation_mode)."""
    x = np.arange(size, dtype=np.float64)
    if how not in PLACES:
        raise Unsupported(f"coordinate_transformation_mode {how}")
    return np.asarray(PLACES[how](x, size, length, scale))


def _nearest(places: Array, how: str) -> Array:
    if how == "floor":
        return np.asarray(np.floor(places))
    if how == "ceil":
        return np.asarray(np.ceil(places))
    if how == "round_prefer_ceil":
        return np.asarray(np.floor(places + 0.5))
    return np.asarray(np.ceil(places - 0.5))


def _shares(apart: Array, mode: str, a: float) -> Array:
    """The weight of an input at distance ``apart``: a hat, or Keys' cubic (1981) with parameter ``a``."""
    apart = np.abs(apart)
    if mode == "linear":
        return np.asarray(np.maximum(1 - apart, 0))
    near = ((a + 2) * apart - (a + 3)) * apart * apart + 1
    far = ((a * apart - 5 * a) * apart + 8 * a) * apart - 4 * a
    return np.where(apart <= 1, near, np.where(apart < 2, far, 0.0))


@lru_cache(maxsize=256)
def _matrix(
    size: int, length: int, scale: float, mode: str, how: str, nearest: str, a: float, exclude: bool, smooth: bool
) -> Array:
    """The matrix (size, length) of one axis."""
    places = _places(size, length, scale, how)
    matrix = np.zeros((size, length))
    rows = np.arange(size)
    if mode == "nearest":
        matrix[rows, np.clip(_nearest(places, nearest), 0, length - 1).astype(np.int64)] = 1
        return matrix
    stretch = min(scale, 1.0) if smooth else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / stretch)
    first = np.floor(places)
    for step in range(-reach, reach + 2):
        at = first + step
        share = _shares((at - places) * stretch, mode, a)
        if exclude:
            share = np.where((at < 0) | (at >= length), 0.0, share)
        np.add.at(matrix, (rows, np.clip(at, 0, length - 1).astype(np.int64)), share)
    return matrix / matrix.sum(1, keepdims=True) if exclude or smooth else matrix


def _applied(x: Tensor, axis: int, matrix: Array) -> Tensor:
    """Repeats values if that is all it takes; else a matrix product."""
    size, length = matrix.shape
    if size % length == 0 and np.array_equal(matrix, np.repeat(np.eye(length), size // length, axis=0)):
        return x.repeat_interleave(size // length, axis)
    weights = torch.as_tensor(matrix, dtype=x.dtype, device=x.device)
    return torch.movedim(torch.movedim(x, axis, -1) @ weights.T, -1, axis)


def _sizes(call: Call, axes: list[int]) -> tuple[list[int], list[float]]:
    """(sizes, scales) of the resized axes."""
    space = [call.x.shape[axis] for axis in axes]
    stated = call.attributes.get("scales")
    slot = 1 if call.op == "Upsample" or call.opset < 11 else 2
    given = call.get(slot)
    sizes = call.get(3)
    if sizes is not None and sizes.numel():
        wanted = [int(v) for v in sizes.tolist()]
        ratios = [w / n for w, n in zip(wanted, space, strict=True)]
        policy = call.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            return [int(ratio * n + 0.5) for n in space], [ratio] * len(space)
        return wanted, ratios
    if stated is None:
        stated = [] if given is None else given.tolist()
    assert isinstance(stated, Sequence)
    scales = [float(v) for v in stated]
    return [math.floor(np.float32(s) * n) for s, n in zip(scales, space, strict=True)], scales


def _resize(call: Call) -> Tensor:
    axes = [a % call.x.dim() for a in call.integers("axes") or range(call.x.dim())]
    sizes, scales = _sizes(call, axes)
    mode = call.text("mode", "nearest").replace("bilinear", "linear")
    new = call.op == "Resize" and call.opset >= 11
    how = call.text("coordinate_transformation_mode", "half_pixel" if new else "asymmetric")
    nearest = call.text("nearest_mode", "round_prefer_floor" if new else "floor")
    rest = (mode, how, nearest, call.number("cubic_coeff_a", -0.75), bool(call.integer("exclude_outside", 0)))
    smooth = bool(call.integer("antialias", 0))
    moved = [
        (axis, _matrix(size, call.x.shape[axis], float(scale), *rest, smooth))
        for axis, size, scale in zip(axes, sizes, scales, strict=True)
        if size != call.x.shape[axis] or scale != 1
    ]
    moved.sort(key=lambda pair: pair[0])
    if call.x.dim() == 4 and mode == "nearest" and [axis for axis, _ in moved] == [2, 3]:
        factors = [len(m) // m.shape[1] for _, m in moved]
        if all(
            np.array_equal(m, np.repeat(np.eye(m.shape[1]), f, axis=0))
            for f, (_, m) in zip(factors, moved, strict=True)
        ):
            return F.interpolate(call.x, scale_factor=[float(f) for f in factors], mode="nearest")
    y = call.x
    for axis, matrix in moved:
        y = _applied(y, axis, matrix)
    return y


def _grid(call: Call) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(stated := call.text("mode", "bilinear"), stated)
    if call.x.dim() == 5 and mode == "bicubic":
        raise Unsupported("cubic sampling in space")
    corners = bool(call.integer("align_corners", 0))
    return F.grid_sample(call.x, call.need(1), mode, call.text("padding_mode", "zeros"), corners)


TABLE: OperatorTable = {
    **standard(
        {
            "Resize": Entry(_resize, host=(1, 2, 3)),
            "Upsample": Entry(_resize, host=(1,)),
            "GridSample": Entry(_grid),
        }
    ),
    ("com.microsoft", "GridSample"): Entry(_grid),
}
