"""The required value, after a cut, of operands that state sizes or positions; per operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.coupling.site import Site

Array = np.ndarray

#: handler(site, recomputed operand) -> required operand.
Handler = Callable[[Site, Array], Array]


def _reshape(site: Site, current: Array) -> Array:
    original = site.original(1)
    base = current if original is None else original
    out = current.copy()
    zero_copies = not site.node.integer("allowzero", 0)
    for axis, literal in enumerate(base.ravel().tolist()):
        size = site.new_out(axis)
        if literal == -1:
            continue
        if literal == 0 and zero_copies and axis < len(site.shape_in()) and site.new_in(axis) == size:
            continue
        out[axis] = size
    return out


def _expand(site: Site, current: Array) -> Array:
    original = site.original(1)
    base = current if original is None else original
    out = current.copy()
    lead = len(site.shape_out()) - len(base)
    for place, literal in enumerate(base.ravel().tolist()):
        if literal != 1:
            out[place] = site.new_out(lead + place)
    return out


def _fill(site: Site, current: Array) -> Array:
    return np.asarray([site.new_out(a) for a in range(len(site.shape_out()))], dtype=current.dtype)


def _tile(site: Site, current: Array) -> Array:
    out = current.copy()
    for axis, size in enumerate(site.shape_in()):
        if size == 1:
            out[axis] = site.new_out(axis)
    return out


def split_sizes(site: Site, current: Array) -> Array:
    """The size of each part of a Split after the cut."""
    axis = site.node.integer("axis", 0) % len(site.shape_in())
    return np.asarray([site.new_out(axis, k) for k in range(len(site.node.outputs))], dtype=current.dtype)


def _pad(site: Site, current: Array) -> Array:
    rank = len(site.shape_in())
    axes = [a % rank for a in (site.ints("axes", 3) or range(rank))]
    original = site.original(1)
    base = current if original is None else original
    out = current.copy()
    for place, axis in enumerate(axes):
        before, after = int(base[place]), int(base[place + len(axes)])
        into, outof = site.mask_in(0, axis), site.mask_out(axis)
        if into.all() and outof.all():
            continue
        out[place] = int(outof[:before].sum()) if before >= 0 else -int(into[:-before].sum())
        if after >= 0:
            out[place + len(axes)] = int(outof[len(outof) - after :].sum())
        else:
            out[place + len(axes)] = -int(into[len(into) + after :].sum())
    return out


def _gather(site: Site, current: Array) -> Array:
    axis = site.node.integer("axis", 0) % len(site.shape_in())
    mask = site.mask_in(0, axis)
    original = site.original(1)
    base = current if original is None else original
    renumbered = np.cumsum(mask) - 1
    kept = [site.mask_out(axis + k) for k in range(base.ndim)]
    index = np.where(base < 0, base + len(mask), base)
    if base.ndim:
        index = index[np.ix_(*kept)]
    return np.asarray(renumbered[index], dtype=current.dtype)


def _scatter_nd(site: Site, current: Array) -> Array:
    original = site.original(1)
    base = current if original is None else original
    index = base[np.ix_(*(site.mask_in(2, k) for k in range(base.ndim - 1)), np.arange(base.shape[-1]))]
    out = np.empty_like(index, dtype=current.dtype)
    for axis in range(base.shape[-1]):
        mask = site.mask_in(0, axis)
        positions = index[..., axis]
        out[..., axis] = (np.cumsum(mask) - 1)[np.where(positions < 0, positions + len(mask), positions)]
    return out


def _sizes(site: Site, current: Array) -> Array:
    """The ``sizes`` of a Resize.  Only axes that it does not resize can be cut."""
    rank = len(site.shape_in())
    axes = [a % rank for a in (site.node.integers("axes") or range(rank))]
    out = current.copy()
    for place, axis in enumerate(axes):
        if not site.mask_out(axis).all():
            out[place] = site.new_out(axis)
    return out


#: Operator -> (slot of the operand, handler).
SHAPED: Mapping[str, tuple[int, Handler]] = {
    "Reshape": (1, _reshape),
    "Expand": (1, _expand),
    "ConstantOfShape": (0, _fill),
    "Tile": (1, _tile),
    "Split": (1, split_sizes),
    "Pad": (1, _pad),
    "Gather": (1, _gather),
    "ScatterND": (1, _scatter_nd),
    "Resize": (3, _sizes),
    "MaxUnpool": (2, _fill),
}


#: Operator -> (attribute of older opsets, handler).
ATTRIBUTES: Mapping[str, tuple[str, Handler]] = {
    "Reshape": ("shape", _reshape),
    "Split": ("split", split_sizes),
    "Pad": ("pads", _pad),
}
