"""The cut, and its oracle: the masked original.

``cut`` removes positions everywhere.  ``mask`` keeps the graph; at every node that sums over a cut axis, it zeroes the
positions that the cut would remove.  Both compute exactly the same function, which proves the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.held import stored_at
from onnxprune.coupling.labels import Key
from onnxprune.coupling.rule import Role
from onnxprune.coupling.site import AttributeEdit, InputEdit
from onnxprune.graph.edit import Editor
from onnxprune.graph.uses import Use
from onnxprune.surgery.edit import add_input, give_constants, insert_scale, insert_select
from onnxprune.surgery.stored import at_the_source

Array = np.ndarray


def constant_of(coupling: Coupling, use: Use) -> Array:
    """The array of one use of a constant (an initializer, a Constant node, or computed from these)."""
    value = coupling.value_of(use)
    computed = coupling.facts.values.get(value)
    return computed if computed is not None else coupling.graph.constants[value]


def laid_along(coupling: Coupling, use: Use, slot: int | None) -> Array | None:
    """The constant at input ``slot`` of the same node (a scale, a zero point), shaped to broadcast over that at ``use``.

    ``None`` if there is none, or if its values run along no axis of the constant at ``use`` (blocks).
    """
    inputs, bound = coupling.graph.nodes[use[0]].inputs, coupling.walked.bounds[use[0]]
    name = inputs[slot] if slot is not None and slot < len(inputs) else None
    if slot is None or name is None or (name not in coupling.facts.values and name not in coupling.graph.constants):
        return None
    values, term, own = constant_of(coupling, (use[0], slot)), bound.inputs[use[1]] or (), bound.inputs[slot]
    sizes = {dim: size for dim, size in zip(own or (), values.shape, strict=False) if dim}
    shape = [sizes.get(dim, 1) for dim in term]
    return values.reshape(shape) if int(np.prod(shape)) == values.size else None


def kept_constants(coupling: Coupling, keep: Array) -> dict[Use, Array]:
    """Every use of a constant that loses positions, with the array that remains."""
    masks = coupling.masks(keep)
    remaining: dict[Use, Array] = {}
    for key, lines in coupling.units.items():
        if not isinstance(key, tuple) or not any((line >= 0).any() for line in lines):
            continue
        lines_kept = [masks(key, axis) for axis in range(len(lines))]
        if all(mask.all() for mask in lines_kept):
            continue
        array = constant_of(coupling, key)
        for axis, mask in enumerate(lines_kept):
            if not mask.all():
                array = np.compress(mask, array, axis=axis)
        remaining[key] = np.ascontiguousarray(array)
    return remaining


def cut(coupling: Coupling, keep: Array, weights: Mapping[Use, Array] | None = None) -> onnx.ModelProto:
    """A new model without the units that ``keep`` (units,) bool drops.  ``weights`` replaces sliced constants (a refit).

    Node order and names stay, so node indices of ``coupling.graph`` are valid in the result.
    """
    editor = Editor(coupling.graph)
    constants = {**kept_constants(coupling, keep), **(weights or {})}
    for edit in coupling.edits(keep):
        if isinstance(edit, AttributeEdit):
            editor.attribute(coupling.graph.nodes[edit.node], edit.name, edit.value)
        elif isinstance(edit, InputEdit):
            constants[edit.node, edit.slot] = edit.value
    known = {u: a for u, a in constants.items() if _has_input(coupling, u)}
    at_source, sizes = at_the_source(coupling, known)
    give_constants(editor, at_source)
    for use, array in constants.items():
        if use not in known:
            add_input(editor, coupling.graph.nodes[use[0]], use[1], array)
    for value, axes in {**_new_sizes(coupling, keep), **sizes}.items():
        editor.restate(value, axes)
    return editor.finish()


def _has_input(coupling: Coupling, use: Use) -> bool:
    inputs = coupling.graph.nodes[use[0]].inputs
    return use[1] < len(inputs) and inputs[use[1]] is not None


def _new_sizes(coupling: Coupling, keep: Array) -> dict[str, dict[int, int]]:
    masks = coupling.masks(keep)
    sizes: dict[str, dict[int, int]] = {}
    for key, lines in coupling.units.items():
        if isinstance(key, str):
            for axis in range(len(lines)):
                mask = masks(key, axis)
                if not mask.all():
                    sizes.setdefault(key, {})[axis] = int(mask.sum())
    return sizes


def mask(coupling: Coupling, keep: Array) -> onnx.ModelProto:
    """The original with zeros wherever a node reads cut channels.  All shapes stay."""
    editor, places = Editor(coupling.graph), _masked(coupling, keep)
    for place in places:
        if place.stored is None:
            node = coupling.graph.nodes[place.node]
            kind = onnx.helper.tensor_dtype_to_np_dtype(coupling.facts.dtypes[node.inputs[place.slot] or ""])
            point = coupling.walked.bounds[place.node].rule.zeros.get(place.slot)
            if point is None and kind.kind not in "iu":
                insert_scale(editor, node, place.slot, place.stays.astype(kind))
            else:
                insert_select(editor, node, place.slot, place.stays, np.zeros((), kind), point)
    give_constants(editor, _zeroed(coupling, places))
    return editor.finish()


def masked_constants(coupling: Coupling, keep: Array) -> dict[Use, Array] | None:
    """The constants in which the masked original differs from the original; ``None`` if it differs in more than these."""
    places = _masked(coupling, keep)
    return None if any(place.stored is None for place in places) else _zeroed(coupling, places)


@dataclass(frozen=True, eq=False)
class _Masked:
    """A node input to zero outside ``stays``, which broadcasts over it.  ``stored`` is the constant there, if any."""

    node: int
    slot: int
    stored: Use | None
    stays: Array


def _masked(coupling: Coupling, keep: Array) -> list[_Masked]:
    masks = coupling.masks(keep)
    masked: list[_Masked] = []
    for index in coupling.walked.bounds:
        for slot, axes in _places(coupling, index):
            stored = stored_at(coupling.graph, coupling.walked, index, slot)
            key: Key = stored or coupling.graph.nodes[index].inputs[slot] or ""
            lines = [(axis, line) for axis in axes if not (line := masks(key, axis)).all()]
            rank = len(coupling.facts.shapes[coupling.value_of(key)])
            stays = np.ones((1,) * rank, dtype=np.bool_)
            for axis, line in lines:
                stays = stays & line.reshape([-1 if a == axis else 1 for a in range(rank)])
            if lines:
                masked.append(_Masked(index, slot, stored, stays))
    return masked


def _zeroed(coupling: Coupling, places: Sequence[_Masked]) -> dict[Use, Array]:
    zeroed: dict[Use, Array] = {}
    for place in places:
        if place.stored is not None:
            # Several nodes may read one dequantized weight.
            array = zeroed.get(place.stored, constant_of(coupling, place.stored))
            zeroed[place.stored] = np.where(place.stays, array, _zero(coupling, place.stored)).astype(array.dtype)
    return zeroed


def _zero(coupling: Coupling, use: Use) -> Array:
    """The number that stands for zero in a constant: its zero points, shaped to broadcast over it, or 0."""
    points = laid_along(coupling, use, coupling.walked.bounds[use[0]].rule.zeros.get(use[1]))
    return np.zeros((), dtype=np.int8) if points is None else points


def _places(coupling: Coupling, index: int) -> list[tuple[int, list[int]]]:
    """(slot, axes) to zero at one node: the places that its rule declares, and one slot per factor that it sums over."""
    bound = coupling.walked.bounds[index]
    inputs = coupling.graph.nodes[index].inputs
    places: dict[int, set[int]] = {}
    covered: set[str] = set()
    for slot, axis in bound.rule.masks:
        if slot < len(inputs) and inputs[slot] is not None:
            places.setdefault(slot, set()).add(axis)
            covered.update((bound.inputs[slot] or ())[axis])
    for factor in bound.factors():
        if factor in covered or bound.role(factor) is not Role.SUMMED:
            continue
        slots = [slot for slot in bound.inputs_with(factor) if inputs[slot] is not None]
        # A constant can be zeroed in place; any other input needs a node in front.
        slot = next((s for s in slots if stored_at(coupling.graph, coupling.walked, index, s)), slots[0])
        term = bound.inputs[slot] or ()
        places.setdefault(slot, set()).update(a for a, dim in enumerate(term) if factor in dim)
    return [(slot, sorted(axes)) for slot, axes in sorted(places.items())]
