"""Edits after a cut at nodes that move data: sizes, splits, pads and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.coupling.labels import Key
from onnxprune.coupling.settle import settle
from onnxprune.coupling.site import AttributeEdit, CannotFollow, Edit, InputEdit, Site
from onnxprune.coupling.stated_sizes import ATTRIBUTES, SHAPED, split_sizes

Array = np.ndarray


def moved_edits(site: Site, fresh: Mapping[str, Array]) -> list[Edit]:
    """Edits of the operands and attributes of one mover.  ``fresh`` maps an operand to its recomputed value."""
    node = site.node
    if any(value is not None and value not in site.facts.shapes for value in (*node.inputs, *node.outputs)):
        # A tensor of unknown shape is never cut.
        return []
    if node.op == "Slice":
        return _slice(site, fresh)
    if node.op in SHAPED:
        slot, handler = SHAPED[node.op]
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is not None:
            original = site.original(slot)
            if original is None:
                return []
            current = fresh.get(value, original)
            return settle(site, slot, current, handler(site, current))
    if node.op in ATTRIBUTES:
        name, handler = ATTRIBUTES[node.op]
        stated = node.integers(name)
        if stated is not None:
            must = handler(site, np.asarray(stated, dtype=np.int64))
            return [] if tuple(must) == stated else [AttributeEdit(node.index, name, tuple(int(i) for i in must))]
    if node.op == "Split":
        return _equal_split(site)
    if node.op == "Squeeze":
        return _squeezed(site)
    return []


def _squeezed(site: Site) -> list[Edit]:
    """A Squeeze without ``axes`` drops every axis of size one.  It must not drop an axis that a cut left at size one."""
    shape = site.shape_in()
    if site.ints("axes", 1) is not None or all(size <= 1 or site.new_in(a) > 1 for a, size in enumerate(shape)):
        return []
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return [_stated(site, "axes", axes)]


def _equal_split(site: Site) -> list[Edit]:
    """A Split without sizes makes equal parts.  If a cut makes them unequal, state the sizes."""
    parts = split_sizes(site, np.zeros(0, dtype=np.int64))
    total, count = int(parts.sum()), len(parts)
    chunk = -(-total // count)
    default = [chunk] * (count - 1) + [total - chunk * (count - 1)]
    # Without ``num_outputs`` all parts must be equal; with it, the last one may be smaller.
    implicit = site.node.attribute("num_outputs") is not None or len(set(parts.tolist())) == 1
    if implicit and parts.tolist() == default:
        return []
    remove: list[Edit] = []
    if site.node.attribute("num_outputs") is not None:
        remove.append(AttributeEdit(site.node.index, "num_outputs", None))
    return [*remove, _stated(site, "split", parts.tolist())]


def _stated(site: Site, name: str, numbers: Sequence[int]) -> Edit:
    """State ``numbers`` at a node that left them out: in the attribute ``name`` or, since opset 13, in its second input."""
    if site.graph.opsets.get("", 1) < 13:
        return AttributeEdit(site.node.index, name, tuple(numbers))
    return InputEdit(site.node.index, 1, np.asarray(numbers, dtype=np.int64))


def _slice(site: Site, fresh: Mapping[str, Array]) -> list[Edit]:
    node, shape = site.node, site.shape_in()
    starts, ends = site.ints("starts", 1), site.ints("ends", 2)
    if starts is None or ends is None:
        return []
    axes = [a % len(shape) for a in (site.ints("axes", 3) or range(len(starts)))]
    steps = site.ints("steps", 4) or [1] * len(starts)
    now_starts = _now(site, 1, fresh, starts)
    now_ends = _now(site, 2, fresh, ends)
    must_starts, must_ends = list(now_starts), list(now_ends)
    for k, axis in enumerate(axes):
        mask = site.mask_in(0, axis)
        if mask.all() and (now_starts[k], now_ends[k]) == (starts[k], ends[k]):
            continue
        picked = np.arange(shape[axis])[starts[k] : ends[k] : steps[k]]
        wanted = (np.cumsum(mask) - 1)[picked[mask[picked]]]
        current = np.arange(int(mask.sum()))[now_starts[k] : now_ends[k] : steps[k]]
        if np.array_equal(wanted, current):
            continue
        if len(wanted) and steps[k] == 1:
            must_starts[k], must_ends[k] = int(wanted[0]), int(wanted[-1]) + 1
        elif len(wanted) and steps[k] == -1:
            must_starts[k] = int(wanted[0])
            must_ends[k] = int(wanted[-1]) - 1 if wanted[-1] > 0 else -(1 << 31)
        else:
            axes_in: list[tuple[Key, int]] = [(site.key(0) or "", axis)]
            raise CannotFollow(node, f"takes one of every {abs(steps[k])} positions of axis {axis}", axes_in)
    if node.integers("starts") is not None:
        edits: list[Edit] = []
        if tuple(must_starts) != node.integers("starts"):
            edits.append(AttributeEdit(node.index, "starts", tuple(must_starts)))
        if tuple(must_ends) != node.integers("ends"):
            edits.append(AttributeEdit(node.index, "ends", tuple(must_ends)))
        return edits
    result: list[Edit] = []
    for slot, now, must in ((1, now_starts, must_starts), (2, now_ends, must_ends)):
        original = site.original(slot)
        if original is not None:
            kind, form = original.dtype, original.shape
            result += settle(site, slot, np.asarray(now, kind).reshape(form), np.asarray(must, kind).reshape(form))
    return result


def _now(site: Site, slot: int, fresh: Mapping[str, Array], original: list[int]) -> list[int]:
    value = site.node.inputs[slot] if slot < len(site.node.inputs) else None
    return [int(i) for i in fresh[value].ravel()] if value is not None and value in fresh else list(original)
