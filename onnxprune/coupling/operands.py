"""Operands that state sizes or positions (Reshape's shape, Split's sizes, Pad's pads …), after a cut.

Each handler says what an operand *must* be once given positions are gone.  What an operand *will* be comes from
recomputing the shape arithmetic behind it; where the two differ, a literal in that arithmetic is rewritten, or
the operand is frozen to a constant, or - where neither is possible - the cut is refused for those axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.bind import Key, Walked
from onnxprune.coupling.provenance import Literal, literal_sources
from onnxprune.graph.facts import Facts, Shape, recompute
from onnxprune.graph.view import Graph, Node, data_uses

Array = np.ndarray
#: Which positions of one axis stay, as a boolean vector.
Masks = Callable[[Key, int], Array]


@dataclass(frozen=True, eq=False)
class InputEdit:
    """The node's input slot reads this constant from now on."""

    node: int
    slot: int
    value: Array


@dataclass(frozen=True, eq=False)
class AttributeEdit:
    """The node's attribute has this value from now on (``None``: it is removed)."""

    node: int
    name: str
    value: int | float | tuple[int, ...] | None


Edit = InputEdit | AttributeEdit


class CannotFollow(Exception):
    """No edit makes this node follow the cut.

    ``axes``: the (key, axis) at the node that must stay whole; ``sources``: those whose sizes its operand is
    computed from, which must stay where the node's own axes already do.
    """

    def __init__(
        self, node: Node, text: str, axes: list[tuple[Key, int]], sources: list[tuple[Key, int]] | None = None
    ) -> None:
        super().__init__(f"{node.op} '{node.label}' {text}")
        self.node = node
        self.text = text
        self.axes = axes
        self.sources = sources or []


@dataclass(frozen=True, eq=False)
class _Site:
    """One node during one cut: masks of its axes, its operands as they will be recomputed (``fresh``), and what
    operands must be in the end (``needs``: site, slot, value), to be checked when all edits are known.
    """

    graph: Graph
    facts: Facts
    walked: Walked
    masks: Masks
    node: Node
    shape_of: Callable[[str], Shape]
    needs: list[tuple[_Site, int, Array]]

    def key(self, slot: int) -> Key | None:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return (self.node.index, slot) if (self.node.index, slot) in self.walked.labels else value

    def mask_in(self, slot: int, axis: int) -> Array:
        key = self.key(slot)
        return self.masks(key if key is not None else "", axis)

    def mask_out(self, axis: int, output: int = 0) -> Array:
        return self.masks(self.node.outputs[output] or "", axis)

    def shape_in(self, slot: int = 0) -> Shape:
        return self.facts.shapes[self.node.inputs[slot] or ""]

    def shape_out(self, output: int = 0) -> Shape:
        return self.facts.shapes[self.node.outputs[output] or ""]

    def new_in(self, axis: int, slot: int = 0) -> int:
        return int(self.mask_in(slot, axis).sum())

    def new_out(self, axis: int, output: int = 0) -> int:
        return int(self.mask_out(axis, output).sum())

    def out_axes(self) -> list[tuple[Key, int]]:
        return [(o, a) for o in self.node.outputs if o is not None for a in range(len(self.facts.shapes[o]))]

    def original(self, slot: int) -> Array | None:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            return None
        return self.facts.values.get(value, self.graph.constants.get(value))

    def ints(self, attribute: str, slot: int) -> list[int] | None:
        found = self.node.integers(attribute)
        if found is not None:
            return list(found)
        operand = self.original(slot)
        return None if operand is None else [int(i) for i in operand.ravel()]


#: handler(site, operand as recomputed) -> operand as it must be.  Slot -1 is an attribute or an absent input.
Handler = Callable[[_Site, Array], Array]


def _reshape(site: _Site, current: Array) -> Array:
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


def _expand(site: _Site, current: Array) -> Array:
    original = site.original(1)
    base = current if original is None else original
    out = current.copy()
    lead = len(site.shape_out()) - len(base)
    for place, literal in enumerate(base.ravel().tolist()):
        if literal != 1:
            out[place] = site.new_out(lead + place)
    return out


def _fill(site: _Site, current: Array) -> Array:
    return np.asarray([site.new_out(a) for a in range(len(site.shape_out()))], dtype=current.dtype)


def _tile(site: _Site, current: Array) -> Array:
    out = current.copy()
    for axis, size in enumerate(site.shape_in()):
        if size == 1:
            out[axis] = site.new_out(axis)
    return out


def _split(site: _Site, current: Array) -> Array:
    axis = site.node.integer("axis", 0) % len(site.shape_in())
    return np.asarray([site.new_out(axis, k) for k in range(len(site.node.outputs))], dtype=current.dtype)


def _pad(site: _Site, current: Array) -> Array:
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


def _gather(site: _Site, current: Array) -> Array:
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


def _sizes(site: _Site, current: Array) -> Array:
    """Resize's ``sizes``: only axes that keep their size can be cut."""
    rank = len(site.shape_in())
    axes = [a % rank for a in (site.node.integers("axes") or range(rank))]
    out = current.copy()
    for place, axis in enumerate(axes):
        if not site.mask_out(axis).all():
            out[place] = site.new_out(axis)
    return out


_SHAPED: Mapping[str, tuple[int, Handler]] = {
    "Reshape": (1, _reshape),
    "Expand": (1, _expand),
    "ConstantOfShape": (0, _fill),
    "Tile": (1, _tile),
    "Split": (1, _split),
    "Pad": (1, _pad),
    "Gather": (1, _gather),
    "Resize": (3, _sizes),
    "MaxUnpool": (2, _fill),
}
_ATTRIBUTES: Mapping[str, tuple[str, Handler]] = {
    "Reshape": ("shape", _reshape),
    "Split": ("split", _split),
    "Pad": ("pads", _pad),
}


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
    needs: list[tuple[_Site, int, Array]] = []
    for value in graph.outputs:
        if is_arithmetic(value) and not np.array_equal(fresh.get(value, np.empty(0)), facts.values[value]):
            node = graph.nodes[graph.producer[value]]
            site = _Site(graph, facts, walked, masks, node, shape_of, needs)
            raise CannotFollow(node, f"gives a size out of the model as '{value}'", _sources(site, value))
    for node in graph.nodes:
        if node.index in facts.arithmetic or node.index in facts.folded:
            continue
        site = _Site(graph, facts, walked, masks, node, shape_of, needs)
        if node.index in walked.movers or node.op in ("Resize", "Upsample", "MaxUnpool"):
            found += _moved(site, fresh)
        for slot, name in enumerate(node.inputs):
            if is_arithmetic(name) and not _is_operand(walked, node, slot):
                found += _unchanged(site, slot, fresh)
    found += _checked(found, needs, lambda replaced: recompute(graph, facts, shape_of, wanted, replaced))
    for index in walked.bounds:
        found += _attributes(graph.nodes[index], walked, masks)
    return found


def _checked(
    found: list[Edit],
    needs: list[tuple[_Site, int, Array]],
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
            template = _template(site, slot, must)
            if template is not None:
                more += template
                continue
            raise CannotFollow(
                site.node,
                f"shares the arithmetic of its sizes in '{value}' with other nodes",
                _own(site),
                _sources(site, value),
            )
        more.append(InputEdit(site.node.index, slot, must))
    return more


def _is_operand(walked: Walked, node: Node, slot: int) -> bool:
    handler = _SHAPED.get(node.op)
    if handler is not None and handler[0] == slot:
        return True
    return node.op == "Slice" and slot in (1, 2)


def _unchanged(site: _Site, slot: int, fresh: Mapping[str, Array]) -> list[Edit]:
    """A size that enters the computation as a number keeps the number it had (1/sqrt of a width, say)."""
    value = site.node.inputs[slot] or ""
    must, now = _left_of(site, slot), fresh.get(value)
    if not site.facts.varies(value):
        site.needs.append((site, slot, must))
    if now is not None and now.shape == must.shape and np.array_equal(now, must):
        return []
    if site.facts.varies(value):
        raise CannotFollow(site.node, f"computes with the size behind '{value}'", _sources(site, value))
    return [InputEdit(site.node.index, slot, must)]


def _left_of(site: _Site, slot: int) -> Array:
    """What a cut leaves of the numbers in ``slot``: numbers along a cut axis go with their channels."""
    array = site.facts.values[site.node.inputs[slot] or ""]
    for axis in range(array.ndim):
        mask = site.mask_in(slot, axis)
        if not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array


def _sources(site: _Site, value: str) -> list[tuple[Key, int]]:
    """The cut axes whose sizes this arithmetic value depends on: each is put back alone to see if it matters."""
    tensors: dict[str, None] = {}
    waiting, seen = [value], {value}
    while waiting:
        index = site.graph.producer.get(waiting.pop())
        if index is None or index not in site.facts.arithmetic:
            continue
        node = site.graph.nodes[index]
        behind = [v for v in node.inputs if v is not None and v not in seen]
        seen.update(behind)
        if node.op in ("Shape", "Size"):
            tensors.update(dict.fromkeys(behind))
        else:
            waiting += behind
    now = recompute(site.graph, site.facts, site.shape_of, [value]).get(value)
    found: list[tuple[Key, int]] = []
    for tensor in tensors:
        for axis, size in enumerate(site.facts.shapes[tensor]):
            if site.shape_of(tensor)[axis] == size:
                continue
            then = recompute(site.graph, site.facts, _restored(site, tensor, axis), [value]).get(value)
            if now is None or then is None or not np.array_equal(now, then):
                keys: list[Key] = [tensor] if tensor in site.walked.labels else [*data_uses(site.graph, tensor)]
                found += [(key, axis) for key in keys]
    return found


def _restored(site: _Site, tensor: str, axis: int) -> Callable[[str], Shape]:
    def shape_of(value: str) -> Shape:
        shape = site.shape_of(value)
        if value != tensor:
            return shape
        return (*shape[:axis], site.facts.shapes[tensor][axis], *shape[axis + 1 :])

    return shape_of


def _moved(site: _Site, fresh: Mapping[str, Array]) -> list[Edit]:
    node = site.node
    if node.op == "Slice":
        return _slice(site, fresh)
    if node.op in _SHAPED:
        slot, handler = _SHAPED[node.op]
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is not None:
            original = site.original(slot)
            if original is None:
                return []
            current = fresh.get(value, original)
            return _settle(site, slot, current, handler(site, current))
    if node.op in _ATTRIBUTES:
        name, handler = _ATTRIBUTES[node.op]
        stated = node.integers(name)
        if stated is not None:
            must = handler(site, np.asarray(stated, dtype=np.int64))
            return [] if tuple(must) == stated else [AttributeEdit(node.index, name, tuple(int(i) for i in must))]
    if node.op == "Split":
        return _equal_split(site)
    return []


def _equal_split(site: _Site) -> list[Edit]:
    """Parts that were equal because nobody said otherwise may be unequal after a cut: then it must be said."""
    parts = _split(site, np.zeros(0, dtype=np.int64))
    total, count = int(parts.sum()), len(parts)
    chunk = -(-total // count)
    default = [chunk] * (count - 1) + [total - chunk * (count - 1)]
    if parts.tolist() == default:
        return []
    if site.graph.opsets.get("", 1) < 13:
        return [AttributeEdit(site.node.index, "split", tuple(int(i) for i in parts))]
    remove: list[Edit] = []
    if site.node.attribute("num_outputs") is not None:
        remove.append(AttributeEdit(site.node.index, "num_outputs", None))
    return [*remove, InputEdit(site.node.index, 1, parts)]


def _slice(site: _Site, fresh: Mapping[str, Array]) -> list[Edit]:
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
        got = np.arange(int(mask.sum()))[now_starts[k] : now_ends[k] : steps[k]]
        if np.array_equal(wanted, got):
            continue
        if len(wanted) and steps[k] == 1:
            must_starts[k], must_ends[k] = int(wanted[0]), int(wanted[-1]) + 1
        elif len(wanted) and steps[k] == -1:
            must_starts[k] = int(wanted[0])
            must_ends[k] = int(wanted[-1]) - 1 if wanted[-1] > 0 else -(1 << 31)
        else:
            axes_in: list[tuple[Key, int]] = [(site.key(0) or "", axis)]
            raise CannotFollow(node, f"takes every {steps[k]}th position of axis {axis}", axes_in)
    if node.integers("starts") is not None:
        found: list[Edit] = []
        if tuple(must_starts) != node.integers("starts"):
            found.append(AttributeEdit(node.index, "starts", tuple(must_starts)))
        if tuple(must_ends) != node.integers("ends"):
            found.append(AttributeEdit(node.index, "ends", tuple(must_ends)))
        return found
    result: list[Edit] = []
    for slot, now, must in ((1, now_starts, must_starts), (2, now_ends, must_ends)):
        original = site.original(slot)
        if original is not None:
            kind, form = original.dtype, original.shape
            result += _settle(site, slot, np.asarray(now, kind).reshape(form), np.asarray(must, kind).reshape(form))
    return result


def _now(site: _Site, slot: int, fresh: Mapping[str, Array], original: list[int]) -> list[int]:
    value = site.node.inputs[slot] if slot < len(site.node.inputs) else None
    return [int(i) for i in fresh[value].ravel()] if value is not None and value in fresh else list(original)


def _settle(site: _Site, slot: int, current: Array, must: Array) -> list[Edit]:
    """Edits that turn the operand ``current`` into ``must``."""
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
        found = [sources[k] for k in wrong] if sources is not None else [None]
        literals = [s for s in found if s is not None]
        if len(literals) == len(found):
            return _rewrite(site, literals, must.ravel()[wrong])
    if not site.facts.varies(value):
        return [InputEdit(node.index, slot, must)]
    template = _template(site, slot, must)
    if template is not None:
        return template
    text = f"gets its sizes from arithmetic in '{value}' that cannot follow the cut"
    raise CannotFollow(node, text, _own(site), _sources(site, value))


def _template(site: _Site, slot: int, must: Array) -> list[Edit] | None:
    """A constant operand that says the same for every size a caller may choose, by the operator's own wildcards."""
    node, source, out = site.node, site.node.inputs[0] or "", site.node.outputs[0] or ""
    if node.op not in ("Reshape", "Expand") or out not in site.facts.shapes:
        return None
    lead = len(site.shape_out()) - len(site.shape_in()) if node.op == "Expand" else 0
    same, rest = (0, -1) if node.op == "Reshape" else (1, None)
    found = must.copy()
    for axis in range(must.size):
        if not site.facts.is_dynamic(out, axis):
            continue
        opposite = axis - lead
        if 0 <= opposite < len(site.shape_in()) and site.facts.always_equal(out, axis, source, opposite):
            found[axis] = same
        elif rest is not None and rest not in found:
            found[axis] = rest
        else:
            return None
    edits: list[Edit] = [InputEdit(node.index, slot, found)]
    if node.attribute("allowzero") is not None:
        edits.append(AttributeEdit(node.index, "allowzero", None))
    return edits


def _own(site: _Site) -> list[tuple[Key, int]]:
    """Every axis of what the node moves and makes."""
    axes = [*site.out_axes()]
    if site.node.op != "ConstantOfShape":
        axes += [(site.key(0) or "", a) for a in range(len(site.shape_in()))]
    return axes


def _rewrite(site: _Site, literals: list[Literal], values: Array) -> list[Edit]:
    """Change literals where they enter the arithmetic; each is edited at one use, never for its other readers."""
    changed: dict[tuple[int, int], Array] = {}
    for literal, value in zip(literals, values, strict=True):
        place = (literal.node, literal.slot)
        if place not in changed:
            name = site.graph.nodes[literal.node].inputs[literal.slot] or ""
            known = recompute(site.graph, site.facts, site.shape_of, [name]).get(name)
            changed[place] = np.array(site.facts.values[name] if known is None else known)
        changed[place].reshape(-1)[literal.position] = value
    return [InputEdit(node, slot, value) for (node, slot), value in changed.items()]


def _attributes(node: Node, walked: Walked, masks: Masks) -> list[Edit]:
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

    found: list[Edit] = []
    for name, text in bound.rule.attributes.items():
        parts = text.split(",")
        now = tuple(product(part) for part in parts)
        if all(sizes[f] == bound.sizes[f] for part in parts for f in part.split()):
            continue
        found.append(AttributeEdit(node.index, name, now if len(parts) > 1 else now[0]))
    for name, (factor, value) in bound.rule.pins.items():
        if product(factor) != bound.sizes[factor]:
            found.append(AttributeEdit(node.index, name, value))
    return found


def factor_size(node: Node, walked: Walked, masks: Masks, factor: str) -> int | None:
    """The size of ``factor`` at ``node`` after a cut; ``None`` where it stands on no labelled axis."""
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
