"""Operators that read and write values by index."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, Unsupported, positive_axis, standard


def _counted(index: Tensor, size: int) -> Tensor:
    """Indices counted from the front."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


def _gather(call: Call) -> Tensor:
    x = call.x
    axis = positive_axis(call.integer("axis", 0), x.dim())
    index = _counted(call.need(1), x.shape[axis]).to(x.device)
    if not index.dim():
        return (
            x.select(axis, int(index))
            if index.device.type == "cpu"
            else x.index_select(axis, index[None]).squeeze(axis)
        )
    return x.index_select(axis, index.reshape(-1)).reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def _gather_elements(call: Call) -> Tensor:
    axis = positive_axis(call.integer("axis", 0), call.x.dim())
    return torch.gather(call.x, axis, _counted(call.need(1), call.x.shape[axis]).to(call.x.device))


def _flat_places(index: Tensor, sizes: list[int]) -> Tensor:
    """Rows of ``index`` as positions in the flattened axes of ``sizes``."""
    place = torch.zeros(index.shape[:-1], dtype=torch.int64, device=index.device)
    for k, size in enumerate(sizes):
        place = place * size + _counted(index[..., k], size)
    return place


def _gather_nd(call: Call) -> Tensor:
    x, index, batch = call.x, call.need(1).to(call.x.device), call.integer("batch_dims", 0)
    depth = index.shape[-1]
    sizes, rest = list(x.shape[batch : batch + depth]), x.shape[batch + depth :]
    lots = math.prod(x.shape[:batch])
    place = _flat_places(index, sizes).reshape(lots, -1)
    flat = x.reshape(lots * math.prod(sizes), *rest)
    shift = torch.arange(lots, device=x.device).unsqueeze(1) * math.prod(sizes)
    return flat.index_select(0, (place + shift).reshape(-1)).reshape(*index.shape[:-1], *rest)


_REDUCTIONS = {"none": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(call: Call) -> Tensor:
    axis = positive_axis(call.integer("axis", 0), call.x.dim())
    index, given = _counted(call.need(1), call.x.shape[axis]).to(call.x.device), call.need(2)
    how = _REDUCTIONS[call.text("reduction", "none")]
    if how is None:
        return call.x.scatter(axis, index, given)
    return call.x.scatter_reduce(axis, index, given, how)


def _scatter_nd(call: Call) -> Tensor:
    x, index, given = call.x, call.need(1).to(call.x.device), call.need(2)
    depth = index.shape[-1]
    sizes, rest = list(x.shape[:depth]), x.shape[depth:]
    place = _flat_places(index, sizes).reshape(-1)
    flat, rows = x.reshape(math.prod(sizes), -1), given.reshape(len(place), -1)
    how = _REDUCTIONS[call.text("reduction", "none")]
    if how is None:
        return flat.index_copy(0, place, rows).reshape(x.shape)
    if how == "sum":
        return flat.index_add(0, place, rows).reshape(x.shape)
    return flat.scatter_reduce(0, place.unsqueeze(1).expand_as(rows), rows, how).reshape(x.shape).reshape(*sizes, *rest)


def _tensor_scatter(call: Call) -> Tensor:
    past, update, where = call.x, call.need(1), call.get(2)
    axis = positive_axis(call.integer("axis", -2), past.dim())
    if axis < 1:
        raise Unsupported("axis 0")
    starts = [0] * past.shape[0] if where is None else [int(v) for v in where.tolist()]
    rows = []
    for row, start in enumerate(starts):
        places = start + torch.arange(update.shape[axis], device=past.device)
        if call.text("mode", "linear") == "circular":
            places = places % past.shape[axis]
        rows.append(past[row].index_copy(axis - 1, places, update[row]))
    return torch.stack(rows)


def _top(call: Call) -> tuple[Tensor, Tensor]:
    count = call.integer("k", 0) or int(call.need(1))
    axis = call.integer("axis", -1)
    # Stable: the first of equal values wins, as in ONNX.
    values, places = torch.sort(call.x, dim=axis, descending=bool(call.integer("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _one_hot(call: Call) -> Tensor:
    depth = int(call.need(1).reshape(-1)[0])
    off, on = call.need(2)
    index = _counted(call.x, depth)
    inside = (index >= 0) & (index < depth)
    picked = F.one_hot(index.clamp(0, depth - 1), depth).bool() & inside.unsqueeze(-1)
    axis = call.integer("axis", -1)
    return torch.where(picked.movedim(-1, axis), on, off)


def _compress(call: Call) -> Tensor:
    axis = call.attributes.get("axis")
    x = call.x.reshape(-1) if axis is None else call.x
    dim = call.integer("axis", 0) if axis is not None else 0
    return x.index_select(dim, torch.nonzero(call.need(1)).reshape(-1).to(x.device))


def _reverse(call: Call) -> Tensor:
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    x = call.x.movedim((batch, time), (0, 1))
    steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    lengths = call.need(1).long().unsqueeze(1).to(x.device)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    y = torch.gather(x, 1, places.reshape(*places.shape, *[1] * (x.dim() - 2)).expand_as(x))
    return y.movedim((0, 1), (batch, time))


TABLE: OperatorTable = {
    **standard(
        {
            "Gather": Entry(_gather),
            "GatherElements": Entry(_gather_elements),
            "GatherND": Entry(_gather_nd),
            "ScatterElements": Entry(_scatter_elements),
            "Scatter": Entry(_scatter_elements),
            "ScatterND": Entry(_scatter_nd),
            "TensorScatter": Entry(_tensor_scatter),
            "TopK": Entry(_top, host=(1,), chooses=True),
            "OneHot": Entry(_one_hot, host=(1,)),
            "NonZero": Entry(lambda call: torch.nonzero(call.x).T, data_sized=True, chooses=True),
            "Compress": Entry(_compress, data_sized=True),
            "ReverseSequence": Entry(_reverse),
        }
    ),
    ("com.microsoft", "GatherND"): Entry(_gather_nd),
}
