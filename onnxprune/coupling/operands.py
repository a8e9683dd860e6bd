"""Operands that state sizes or positions (Reshape's shape, Split's sizes, Pad's pads …), after a cut.

Each handler says what an operand *must* be once given positions are gone.  What an operand *will* be comes from
recomputing the shape arithmetic behind it; where the two differ, a literal in that arithmetic is rewritten, or
the operand is frozen to a constant, or - where neither is possible - the cut is refused for those axes.
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
from onnxprune.graph.view import Graph, Node, data_uses
from onnxprune.graph.walk import Shape

Array = np.ndarray


def edits(graph: Graph, facts: Facts, walked: Walked, masks: Masks) -> list[Edit]:
    """Every operand and attribute change that a cut with these ``masks`` needs.

    Raises:
        CannotFollow: naming the first node that cannot follow the cut.
    """

    def shape_of(value: str) -> Shape:
        key: Key = value
        if value in graph.constants:
            uses = data_uses(graph, value)
            lines = [[masks(use, axis) for axis in range(len(facts.shapes[value]))] for use in uses]
            if not uses or any(
                not np.array_equal(a, b) for other in lines[1:] for a, b in zip(lines[0], other, strict=True)
            ):
                return facts.shapes[value]
            key = uses[0]
        labels = walked.labels.get(key)
        if labels is None:
            return facts.shapes[value]
        return tuple(int(masks(key, axis).sum()) for axis in range(len(labels)))

    def is_arithmetic(value: str | None) -> bool:
        return value is not None and graph.producer.get(value, -1) in facts.arithmetic

    wanted = sorted(
        {v for node in graph.nodes if node.index not in facts.arithmetic for v in node.inputs if v and is_arithmetic(v)}
        | {v for v in graph.outputs if is_arithmetic(v)}
    )
    fresh = recompute(graph, facts, shape_of, wanted)
    found: list[Edit] = []
    needs: list[tuple[Site, int, Array]] = []
    for value in graph.outputs:
        if is_arithmetic(value) and not np.array_equal(fresh.get(value, np.empty(0)), facts.values[value]):
            node = graph.nodes[graph.producer[value]]
            site = Site(graph, facts, walked, masks, node, shape_of, needs)
            raise CannotFollow(node, f"gives a size out of the model as '{value}'", sources_of(site, value))
    for node in graph.nodes:
        if node.index in facts.arithmetic or node.index in facts.folded:
            continue
        site = Site(graph, facts, walked, masks, node, shape_of, needs)
        if node.index in walked.movers or node.op in ("Resize", "Upsample", "MaxUnpool"):
            found += moved_edits(site, fresh)
        for slot, name in enumerate(node.inputs):
            if is_arithmetic(name) and not _is_operand(walked, node, slot):
                found += _unchanged(site, slot, fresh)
    found += _checked(found, needs, lambda replaced: recompute(graph, facts, shape_of, wanted, replaced))
    for index in walked.bounds:
        found += attribute_edits(graph.nodes[index], walked, masks)
    return found


def _checked(
    found: list[Edit],
    needs: list[tuple[Site, int, Array]],
    again: Callable[[Mapping[tuple[int, int], Array]], dict[str, Array]],
) -> list[Edit]:
    """Further edits, for operands that a rewrite made for one reader has spoilt for another."""
    replaced = {(e.node, e.slot): e.value for e in found if isinstance(e, InputEdit)}
    if not replaced:
        return []
    now = again(replaced)
    more: list[Edit] = []
    for site, slot, must in needs:
        value = site.node.inputs[slot] or ""
        got = replaced.get((site.node.index, slot), now.get(value))
        if got is None or (got.shape == must.shape and np.array_equal(got, must)):
            continue
        if site.facts.varies(value):
            wildcards = template(site, slot, must)
            if wildcards is not None:
                more += wildcards
                continue
            raise CannotFollow(
                site.node,
                f"shares the arithmetic of its sizes in '{value}' with other nodes",
                own_axes(site),
                sources_of(site, value),
            )
        more.append(InputEdit(site.node.index, slot, must))
    return more


def _is_operand(walked: Walked, node: Node, slot: int) -> bool:
    handler = SHAPED.get(node.op)
    if handler is not None and handler[0] == slot:
        return True
    return node.op == "Slice" and slot in (1, 2)


def _unchanged(site: Site, slot: int, fresh: Mapping[str, Array]) -> list[Edit]:
    """A size that enters the computation as a number keeps the number it had (1/sqrt of a width, say)."""
    value = site.node.inputs[slot] or ""
    must, now = _left_of(site, slot), fresh.get(value)
    if not site.facts.varies(value):
        site.needs.append((site, slot, must))
    if now is not None and now.shape == must.shape and np.array_equal(now, must):
        return []
    if site.facts.varies(value):
        raise CannotFollow(site.node, f"computes with the size behind '{value}'", sources_of(site, value))
    return [InputEdit(site.node.index, slot, must)]


def _left_of(site: Site, slot: int) -> Array:
    """What a cut leaves of the numbers in ``slot``: numbers along a cut axis go with their channels."""
    array = site.facts.values[site.node.inputs[slot] or ""]
    for axis in range(array.ndim):
        mask = site.mask_in(slot, axis)
        if not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array
