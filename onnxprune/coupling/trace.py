"""Run movers on coordinates: the execution shows where each output position comes from.

For each axis of the moved input, execute the node on a tensor whose elements are their own coordinates on that axis.
The output then names the input position of every element.  No operator needs a formula: its own implementation covers
every attribute and opset variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.coupling.distinct import distinct
from onnxprune.coupling.grid import grid
from onnxprune.coupling.rule import DoesNotFit, NodeInfo
from onnxprune.graph.execute import CannotExecute, run_node

#: Coordinates count from one, because movers that create elements (Pad) fill with zero.
FILL = 0


@dataclass(frozen=True, eq=False)
class AxisLink:
    """Positions of an input axis and positions of an output axis that hold the same elements.

    Position ``source[k]`` on (``slot``, ``axis``) moves to ``target[k]`` on (``output``, ``out_axis``).
    """

    slot: int
    axis: int
    output: int
    out_axis: int
    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace:
    """All links of one node, and the shapes of its outputs in the execution.

    ``fixed``: (slot, axis, positions) that reach the output but none of its axes (one channel taken out).
    ``grains``: axis of the first output -> (n,) numbers; positions with the same number stay or leave together.
    """

    links: tuple[AxisLink, ...]
    fixed: tuple[tuple[int, int, np.ndarray], ...]
    out_shapes: tuple[tuple[int, ...], ...]
    grains: Mapping[int, np.ndarray] = field(default_factory=dict)


def trace(info: NodeInfo, data: Sequence[int], stand_in: str = "") -> Trace:
    """Links of the mover in ``info``.  Runs it as the ai.onnx operator ``stand_in`` if one is named.

    Cost: one execution per axis, at the tensor's true size; a Transpose or Pad of one axis at a time.

    Raises:
        DoesNotFit: if the node cannot run (an operand is unknown, or a type is unsupported).
    """
    shapes = [info.shape(slot) for slot in data]
    if any(s is None for s in shapes):
        raise DoesNotFit("the shape of a moved input is unknown")
    known = [s for s in shapes if s is not None]
    if info.node.op == "ScatterND":
        return _pasted(info, known[0])
    node = _without_fill_value(_renamed(info.node.proto, stand_in))
    operands = [info.constant(slot) for slot in range(len(node.input))]
    if len(data) > 1 and stand_in:
        # Scales and zero points between the joined tensors do not move.
        del node.input[:]
        node.input.extend(f"part{k}" for k in range(len(data)))
        return _joined(info, node, [None] * len(data), range(len(data)), known, len(known[0]), data)
    for slot, operand in enumerate(operands):
        if slot not in data and operand is None and info.node.inputs[slot] is not None:
            raise DoesNotFit("an operand is computed at run time")
    rank = len(known[0])
    if len(data) == 1:
        return _single(info, node, operands, data[0], known[0])
    return _joined(info, node, operands, data, known, rank, data)


def reshaped(slot: int, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[AxisLink, ...]:
    """The links of a Reshape of slot ``slot`` from ``before`` to ``after``."""
    return tuple(
        AxisLink(slot, axis, 0, out, source, target)
        for axis, size in enumerate(before)
        if size > 1
        for out, source, target in _read(_coordinates(before, axis, 0).reshape(after))
    )


def _renamed(node: onnx.NodeProto, stand_in: str) -> onnx.NodeProto:
    if not stand_in:
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.op_type, copy.domain = stand_in, ""
    return copy


def _without_fill_value(node: onnx.NodeProto) -> onnx.NodeProto:
    if node.op_type != "Pad":
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if len(copy.input) > 2:
        copy.input[2] = ""
    for place in [k for k, a in enumerate(copy.attribute) if a.name == "value"]:
        del copy.attribute[place]
    return copy


def _run(info: NodeInfo, node: onnx.NodeProto, feeds: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    try:
        return run_node(node, info.graph.opsets, feeds)
    except CannotExecute as error:
        raise DoesNotFit(str(error)) from error


def _coordinates(shape: tuple[int, ...], axis: int, offset: int) -> np.ndarray:
    lengths = [1] * len(shape)
    lengths[axis] = shape[axis]
    line = np.arange(1 + offset, 1 + offset + shape[axis], dtype=np.int32).reshape(lengths)
    return np.broadcast_to(line, shape)


def _single(
    info: NodeInfo, node: onnx.NodeProto, operands: list[np.ndarray | None], slot: int, shape: tuple[int, ...]
) -> Trace:
    links: list[AxisLink] = []
    fixed: list[tuple[int, int, np.ndarray]] = []
    shapes: tuple[tuple[int, ...], ...] = ()
    separate = _moves_each_axis_alone(info)
    for axis in range(len(shape)):
        feeds = list(operands)
        ran = tuple(n if a == axis or not separate else 1 for a, n in enumerate(shape))
        feeds[slot] = _coordinates(ran, axis, 0)
        results = _run(info, node, feeds)
        # Each axis has its true length in one of the runs, and at most that in the others.
        before = shapes or tuple(r.shape for r in results)
        shapes = tuple(
            tuple(max(pair) for pair in zip(known, r.shape, strict=True)) for known, r in zip(before, results, strict=True)
        )
        if shape[axis] > 1:
            for output, result in enumerate(results):
                read = _read(result)
                links += [AxisLink(slot, axis, output, b, s, t) for b, s, t in read]
                if not read and result.size:
                    only = distinct(result)
                    fixed.append((slot, axis, only[only != FILL].astype(np.int64) - 1))
    if not shape:
        feeds = list(operands)
        feeds[slot] = np.ones((), np.int32)
        shapes = tuple(r.shape for r in _run(info, node, feeds))
    return Trace(tuple(links), tuple(fixed), shapes)


def _moves_each_axis_alone(info: NodeInfo) -> bool:
    """Whether positions of one axis move alike for any length of the others, so that one of them is enough."""
    if info.node.op == "Pad" and info.node.string("mode", "constant") == "constant":
        pads = info.ints("pads", 1)
        return pads is not None and min(pads, default=0) >= 0
    return info.node.op == "Transpose"


def _joined(
    info: NodeInfo,
    node: onnx.NodeProto,
    operands: list[np.ndarray | None],
    data: Sequence[int],
    shapes: list[tuple[int, ...]],
    rank: int,
    slots: Sequence[int],
) -> Trace:
    """Several moved inputs (Concat).  An offset on the joined axis distinguishes their coordinates.

    ``data`` are the input slots of ``node``, which runs; ``slots`` are the matching slots of the graph's own node.
    """
    links: list[AxisLink] = []
    axis = info.node.integer("axis", 1) % max(rank, 1)
    offsets = np.concatenate([[0], np.cumsum([s[axis] for s in shapes])])
    thin = [tuple(n if a == axis else 1 for a, n in enumerate(s)) for s in shapes]
    feeds = list(operands)
    for slot, offset, shape in zip(data, offsets, thin, strict=False):
        feeds[slot] = _coordinates(shape, axis, int(offset))
    line = _run(info, node, feeds)[0].ravel() - 1
    out = tuple(len(line) if a == axis else n for a, n in enumerate(shapes[0]))
    for slot, start, stop in zip(slots, offsets, offsets[1:], strict=False):
        at = np.flatnonzero((line >= start) & (line < stop))
        links.append(AxisLink(slot, axis, 0, axis, line[at] - start, at))
        for other in range(rank):
            if other != axis and out[other] > 1:
                same = np.arange(out[other])
                links.append(AxisLink(slot, other, 0, other, same, same))
    return Trace(tuple(links), (), (out,))


def _pasted(info: NodeInfo, shape: tuple[int, ...]) -> Trace:
    """ScatterND at a grid of constant indices: a block that replaces a part of every axis."""
    indices = info.constant(1)
    block = None if indices is None else grid(indices, shape)
    if indices is None or block is None:
        raise DoesNotFit("its indices are not a constant grid")
    links = [AxisLink(0, axis, 0, axis, np.arange(size), np.arange(size)) for axis, size in enumerate(shape)]
    fixed: list[tuple[int, int, np.ndarray]] = []
    for axis, (along, line) in enumerate(block.lines):
        if along is None:
            fixed.append((0, axis, line))
        else:
            links.append(AxisLink(2, along, 0, axis, np.arange(len(line)), line))
    lead, places = len(block.lines), indices.ndim - 1
    for axis in range(lead, len(shape)):
        same = np.arange(shape[axis])
        links.append(AxisLink(2, places + axis - lead, 0, axis, same, same))
    return Trace(tuple(links), tuple(fixed), (shape,))


def _read(result: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(output axis, source positions, target positions) for each axis along which coordinates vary."""
    moves: list[tuple[int, np.ndarray, np.ndarray]] = []
    if result.size == 0:
        return moves
    filled = bool((result == FILL).any())
    for axis, size in enumerate(result.shape):
        if size <= 1 or not _varies(result, axis, filled):
            continue
        thin = _thin(result, axis)
        stride = int(thin.max()) + 1
        pairs = thin.astype(np.int64) + stride * np.arange(size).reshape([-1 if a == axis else 1 for a in range(thin.ndim)])
        unique = _unique(pairs, stride * size)
        source, target = unique % stride, unique // stride
        real = source != FILL
        moves.append((axis, source[real] - 1, target[real]))
    return moves


def _varies(result: np.ndarray, axis: int, filled: bool) -> bool:
    if result.strides[axis] == 0:
        return False
    if not filled:
        first = result.take([0], axis=axis)
        return bool((result != first).any())
    high = result.max(axis=axis)
    low = np.where(result == FILL, np.iinfo(result.dtype).max, result).min(axis=axis)
    return bool((high > low).any())


def _thin(result: np.ndarray, axis: int) -> np.ndarray:
    """One slice of each axis along which nothing changes, except ``axis``."""
    for other in range(result.ndim):
        if other == axis or result.shape[other] == 1:
            continue
        first = result.take([0], axis=other)
        if result.strides[other] == 0 or bool((result == first).all()):
            result = first
    return result


def _unique(values: np.ndarray, bound: int) -> np.ndarray:
    if bound > 1 << 26:
        return distinct(values)
    present = np.zeros(bound, dtype=np.bool_)
    present[values.ravel()] = True
    return np.flatnonzero(present)
