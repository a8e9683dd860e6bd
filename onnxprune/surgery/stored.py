"""Keep one stored array for readers in several layouts (through Transposes), if a cut leaves the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.graph.layout import layout_of, layouts_of, readers_of_stored
from onnxprune.graph.uses import Use, shared_uses

Array = np.ndarray


def at_the_source(
    coupling: Coupling, constants: Mapping[Use, Array]
) -> tuple[dict[Use, Array], dict[str, dict[int, int]]]:
    """(``constants``, new sizes: value -> {axis: size}).  Arrays that are read through a Transpose move to where they are stored; the
    sizes are those of the values that change with them.

    Moves an array only if it has readers in several layouts, and all of them need the same array.  A weight read through a single
    Transpose goes to its reader, and the Transpose disappears.
    """
    graph, facts = coupling.graph, coupling.facts
    moved = dict(constants)
    sizes: dict[str, dict[int, int]] = {}
    exposed = {output for body in graph.bodies for output in body.outputs}
    layouts = {use: layout_of(graph, facts, coupling.value_of(use)) for use in constants}
    for stored in dict.fromkeys(layout.stored for layout in layouts.values() if layout is not None):
        readers = list(readers_of_stored(graph, facts, stored))
        known = layouts_of(graph, facts, stored)
        if len({layout.axes for _, layout in readers}) < 2 or any(layout.value in exposed for layout in known):
            continue
        arrays = [layout.back(constants[use]) for use, layout in readers if use in constants]
        if len(arrays) < len(readers) or not all(np.array_equal(arrays[0], other) for other in arrays):
            continue
        for use, _ in readers:
            del moved[use]
        moved.update(dict.fromkeys(shared_uses(graph, stored), np.ascontiguousarray(arrays[0])))
        for layout in known:
            sizes[layout.value] = {a: arrays[0].shape[axis] for a, axis in enumerate(layout.axes)}
    return moved, sizes
