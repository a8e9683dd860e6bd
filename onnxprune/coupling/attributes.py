"""Edits of attributes that state the size of a factor."""

from __future__ import annotations

import numpy as np

from onnxprune.coupling.bind import Walked
from onnxprune.coupling.labels import Key
from onnxprune.coupling.site import AttributeEdit, Edit, Masks
from onnxprune.graph.view import Node

Array = np.ndarray


def attribute_edits(node: Node, walked: Walked, masks: Masks) -> list[Edit]:
    """Edits of the attributes that the node's rule declares, and of the defaults that the rule pins."""
    bound = walked.bounds[node.index]
    sizes: dict[str, int] = {}

    def product(text: str) -> int:
        total = 1
        for factor in text.split():
            if factor not in sizes:
                now = factor_size(node, walked, masks, factor)
                sizes[factor] = bound.sizes[factor] if now is None else now
            total *= sizes[factor]
        return total

    edits: list[Edit] = []
    for name, text in bound.rule.attributes.items():
        parts = text.split(",")
        now = tuple(product(part) for part in parts)
        if all(sizes[f] == bound.sizes[f] for part in parts for f in part.split()):
            continue
        edits.append(AttributeEdit(node.index, name, now if len(parts) > 1 else now[0]))
    for name, (factor, value) in bound.rule.pins.items():
        if product(factor) != bound.sizes[factor]:
            edits.append(AttributeEdit(node.index, name, value))
    return edits


def factor_size(node: Node, walked: Walked, masks: Masks, factor: str) -> int | None:
    """The size of ``factor`` at ``node`` after a cut; ``None`` if it is on no labelled axis."""
    bound = walked.bounds[node.index]
    places: list[tuple[Key, tuple[tuple[str, ...], ...]]] = []
    for slot, term in enumerate(bound.inputs):
        value = node.inputs[slot]
        key: Key | None = (node.index, slot) if (node.index, slot) in walked.labels else value
        if term is not None and key is not None and key in walked.labels:
            places.append((key, term))
    for value, term in zip(node.outputs, bound.outputs, strict=True):
        if term is not None and value is not None and value in walked.labels:
            places.append((value, term))
    for key, term in places:
        for axis, dim in enumerate(term):
            if factor in dim:
                mask = masks(key, axis)
                sizes = [bound.sizes[f] for f in dim]
                grid = np.moveaxis(mask.reshape(sizes), dim.index(factor), 0).reshape(bound.sizes[factor], -1)
                return int(grid.any(axis=1).sum())
    return None
