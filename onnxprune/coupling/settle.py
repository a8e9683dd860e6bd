"""Give an operand its required value: rewrite a literal that it is computed from, freeze it, or refuse the cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.coupling.labels import Key
from onnxprune.coupling.provenance import Literal, literal_sources
from onnxprune.coupling.site import AttributeEdit, CannotFollow, Edit, InputEdit, Site
from onnxprune.graph.facts import recompute
from onnxprune.graph.known import Shape
from onnxprune.graph.uses import data_uses

Array = np.ndarray


def sources_of(site: Site, value: str) -> list[tuple[Key, int]]:
    """The cut axes on whose sizes this arithmetic value depends.  Restores each alone to see whether it matters."""
    tensors: dict[str, None] = {}
    waiting, visited = [value], {value}
    while waiting:
        index = site.graph.producer.get(waiting.pop())
        if index is None or index not in site.facts.arithmetic:
            continue
        node = site.graph.nodes[index]
        inputs = [v for v in node.inputs if v is not None and v not in visited]
        visited.update(inputs)
        if node.op in ("Shape", "Size"):
            tensors.update(dict.fromkeys(inputs))
        else:
            waiting += inputs
    now = recompute(site.graph, site.facts, site.shape_of, [value]).get(value)
    sources: list[tuple[Key, int]] = []
    for tensor in tensors:
        for axis, size in enumerate(site.facts.shapes[tensor]):
            if site.shape_of(tensor)[axis] == size:
                continue
            then = recompute(site.graph, site.facts, _restored(site, tensor, axis), [value]).get(value)
            if now is None or then is None or not np.array_equal(now, then):
                keys: list[Key] = [tensor] if tensor in site.walked.labels else [*data_uses(site.graph, tensor)]
                sources += [(key, axis) for key in keys]
    return sources


def _restored(site: Site, tensor: str, axis: int) -> Callable[[str], Shape]:
    def shape_of(value: str) -> Shape:
        shape = site.shape_of(value)
        if value != tensor:
            return shape
        return (*shape[:axis], site.facts.shapes[tensor][axis], *shape[axis + 1 :])

    return shape_of


def settle(site: Site, slot: int, current: Array, must: Array) -> list[Edit]:
    """Edits that turn the operand ``current`` into ``must``.

    Raises:
        CannotFollow: if no edit can do so for every size that a caller may choose.
    """
    if site.graph.producer.get(site.node.inputs[slot] or "", -1) in site.facts.arithmetic:
        site.needs.append((site, slot, must))
    if current.shape == must.shape and np.array_equal(current, must):
        return []
    node, value = site.node, site.node.inputs[slot] or ""
    if site.graph.producer.get(value, -1) not in site.facts.arithmetic:
        return [InputEdit(node.index, slot, must)]
    if current.shape == must.shape:
        sources = literal_sources(site.graph, site.facts, value)
        wrong = np.flatnonzero(current.ravel() != must.ravel())
        origins = [sources[k] for k in wrong] if sources is not None else [None]
        literals = [s for s in origins if s is not None]
        if len(literals) == len(origins):
            return _rewrite(site, literals, must.ravel()[wrong])
    if not site.facts.varies(value):
        return [InputEdit(node.index, slot, must)]
    wildcards = template(site, slot, must)
    if wildcards is not None:
        return wildcards
    text = f"gets its sizes from arithmetic in '{value}' that cannot follow the cut"
    raise CannotFollow(node, text, own_axes(site), sources_of(site, value))


def template(site: Site, slot: int, must: Array) -> list[Edit] | None:
    """A constant operand that is right for every size a caller may choose, by the operator's own wildcards.

    ``None`` if the operator has no wildcards for this case.
    """
    node, source, out = site.node, site.node.inputs[0] or "", site.node.outputs[0] or ""
    if node.op not in ("Reshape", "Expand") or out not in site.facts.shapes:
        return None
    lead = len(site.shape_out()) - len(site.shape_in()) if node.op == "Expand" else 0
    same, rest = (0, -1) if node.op == "Reshape" else (1, None)
    constant = must.copy()
    for axis in range(must.size):
        if not site.facts.is_dynamic(out, axis):
            continue
        opposite = axis - lead
        if 0 <= opposite < len(site.shape_in()) and site.facts.always_equal(out, axis, source, opposite):
            constant[axis] = same
        elif rest is not None and rest not in constant:
            constant[axis] = rest
        else:
            return None
    edits: list[Edit] = [InputEdit(node.index, slot, constant)]
    if node.attribute("allowzero") is not None:
        edits.append(AttributeEdit(node.index, "allowzero", None))
    return edits


def own_axes(site: Site) -> list[tuple[Key, int]]:
    """Every axis of the node's data input and of its outputs."""
    axes = [*site.out_axes()]
    if site.node.op != "ConstantOfShape":
        axes += [(site.key(0) or "", a) for a in range(len(site.shape_in()))]
    return axes


def _rewrite(site: Site, literals: list[Literal], values: Array) -> list[Edit]:
    """Change literals where they enter the arithmetic.  Edits one use each, so other readers keep the old literal."""
    changed: dict[tuple[int, int], Array] = {}
    for literal, value in zip(literals, values, strict=True):
        place = (literal.node, literal.slot)
        if place not in changed:
            name = site.graph.nodes[literal.node].inputs[literal.slot] or ""
            known = recompute(site.graph, site.facts, site.shape_of, [name]).get(name)
            changed[place] = np.array(site.facts.values[name] if known is None else known)
        changed[place].reshape(-1)[literal.position] = value
    return [InputEdit(node, slot, value) for (node, slot), value in changed.items()]
