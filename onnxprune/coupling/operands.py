"""Edits that a cut needs at operands that state sizes or positions (Reshape's shape, Split's sizes, Pad's pads …).

A handler per operator says what an operand *must* be after the cut.  Recomputing the shape arithmetic says what it
*will* be.  If the two differ, rewrite a literal in that arithmetic, or freeze the operand to a constant.  If neither is
possible, refuse the cut for those axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.coupling.attributes import attribute_edits
from onnxprune.coupling.bind import Walked
from onnxprune.coupling.labels import Key
from onnxprune.coupling.moved_sizes import moved_edits
from onnxprune.coupling.settle import own_axes, sources_of, template
from onnxprune.coupling.site import CannotFollow, Edit, InputEdit, Masks, Site
from onnxprune.coupling.stated_sizes import SHAPED
from onnxprune.graph.facts import Facts, recompute
from onnxprune.graph.known import Shape
from onnxprune.graph.uses import data_uses
from onnxprune.graph.view import Graph, Node

Array = np.ndarray


def edits(graph: Graph, facts: Facts, walked: Walked, masks: Masks) -> list[Edit]:
    """Every operand and attribute edit that a cut with these ``masks`` needs.

    Raises:
        CannotFollow: if no edit makes a node follow the cut; names the first such node.
    """
    shape_of = _shapes_after(graph, facts, walked, masks)
    sizes = _sizes_read(graph, facts)
    fresh = recompute(graph, facts, shape_of, sizes)
    needs: list[tuple[Site, int, Array]] = []

    def site(node: Node) -> Site:
        return Site(graph, facts, walked, masks, node, shape_of, needs)

    for value in graph.outputs:
        if _is_arithmetic(graph, facts, value):
            _check_output(site(graph.nodes[graph.producer[value]]), value, fresh)
    changes: list[Edit] = []
    for node in graph.nodes:
        if node.index not in facts.arithmetic and node.index not in facts.folded:
            changes += _operand_edits(site(node), fresh)
    changes += _repairs(changes, needs, lambda replaced: recompute(graph, facts, shape_of, sizes, replaced))
    for index in walked.bounds:
        changes += attribute_edits(graph.nodes[index], walked, masks)
    return changes


def _shapes_after(graph: Graph, facts: Facts, walked: Walked, masks: Masks) -> Callable[[str], Shape]:
    """The shape of any value after the cut."""

    def shape_of(value: str) -> Shape:
        key: Key = value
        if value in graph.constants:
            uses = data_uses(graph, value)
            cuts = [[masks(use, axis) for axis in range(len(facts.shapes[value]))] for use in uses]
            # Uses that are cut in different ways leave no single shape: the stored constant keeps its own.
            if not uses or any(
                not np.array_equal(a, b) for other in cuts[1:] for a, b in zip(cuts[0], other, strict=True)
            ):
                return facts.shapes[value]
            key = uses[0]
        labels = walked.labels.get(key)
        if labels is None:
            return facts.shapes[value]
        return tuple(int(masks(key, axis).sum()) for axis in range(len(labels)))

    return shape_of


def _is_arithmetic(graph: Graph, facts: Facts, value: str | None) -> bool:
    return value is not None and graph.producer.get(value, -1) in facts.arithmetic


def _sizes_read(graph: Graph, facts: Facts) -> list[str]:
    """Results of shape arithmetic that leave it: other nodes read them, or they are outputs of the model."""
    readers = (node for node in graph.nodes if node.index not in facts.arithmetic)
    values = (*(value for node in readers for value in node.inputs), *graph.outputs)
    return sorted({value for value in values if value and _is_arithmetic(graph, facts, value)})


def _check_output(site: Site, value: str, fresh: Mapping[str, Array]) -> None:
    """Raise CannotFollow if a size that the model returns would change."""
    if not np.array_equal(fresh.get(value, np.empty(0)), site.facts.values[value]):
        raise CannotFollow(site.node, f"returns a size as the model's output '{value}'", sources_of(site, value))


def _operand_edits(site: Site, fresh: Mapping[str, Array]) -> list[Edit]:
    """The edits at one node that follow from this node alone."""
    node, changes = site.node, list[Edit]()
    if node.index in site.walked.movers or node.op in ("Resize", "Upsample", "MaxUnpool"):
        changes += moved_edits(site, fresh)
    for slot, value in enumerate(node.inputs):
        if _is_arithmetic(site.graph, site.facts, value) and not _is_operand(node, slot):
            changes += _unchanged(site, slot, fresh)
    return changes


def _repairs(
    changes: list[Edit],
    needs: list[tuple[Site, int, Array]],
    recomputed: Callable[[Mapping[tuple[int, int], Array]], dict[str, Array]],
) -> list[Edit]:
    """Further edits, for operands that a rewrite for one reader has spoilt for another."""
    replaced = {(e.node, e.slot): e.value for e in changes if isinstance(e, InputEdit)}
    if not replaced:
        return []
    now = recomputed(replaced)
    more: list[Edit] = []
    for site, slot, must in needs:
        value = site.node.inputs[slot] or ""
        will_be = replaced.get((site.node.index, slot), now.get(value))
        if will_be is None or (will_be.shape == must.shape and np.array_equal(will_be, must)):
            continue
        if site.facts.varies(value):
            wildcards = template(site, slot, must)
            if wildcards is not None:
                more += wildcards
                continue
            raise CannotFollow(
                site.node,
                f"shares the size arithmetic in '{value}' with other nodes",
                own_axes(site),
                sources_of(site, value),
            )
        more.append(InputEdit(site.node.index, slot, must))
    return more


def _is_operand(node: Node, slot: int) -> bool:
    """Whether :func:`moved_edits` handles the input ``slot``."""
    handler = SHAPED.get(node.op)
    if handler is not None and handler[0] == slot:
        return True
    return node.op == "Slice" and slot in (1, 2)


def _unchanged(site: Site, slot: int, fresh: Mapping[str, Array]) -> list[Edit]:
    """Edits that keep a size which enters the computation as a number, such as 1/sqrt of a width."""
    value = site.node.inputs[slot] or ""
    must, now = _left_of(site, slot), fresh.get(value)
    if not site.facts.varies(value):
        site.needs.append((site, slot, must))
    if now is not None and now.shape == must.shape and np.array_equal(now, must):
        return []
    if site.facts.varies(value):
        raise CannotFollow(site.node, f"computes with the size in '{value}'", sources_of(site, value))
    return [InputEdit(site.node.index, slot, must)]


def _left_of(site: Site, slot: int) -> Array:
    """The numbers of ``slot`` that remain after the cut: those along a cut axis leave with their channels."""
    array = site.facts.values[site.node.inputs[slot] or ""]
    for axis in range(array.ndim):
        mask = site.mask_in(slot, axis)
        if not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array
