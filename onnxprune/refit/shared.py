"""Layers that share one stored matrix: siamese branches, heads over several scales, steps of an unrolled loop.

If each were fitted alone, each would need its own copy of the matrix, and the cut model could outgrow the original.
So they get one common fit on the original's inputs, before the first of them runs.  Later only the bias of each layer,
which is small, is fitted to its inputs in the cut model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.coupling.groups import Coupling
from onnxprune.linear.form import Layer
from onnxprune.linear.gram import SecondMoments
from onnxprune.linear.solve import fold
from onnxprune.refit.cut_layer import CutLayer
from onnxprune.refit.job import LayerJob
from onnxprune.refit.solution import Solution
from onnxprune.surgery.cut import constant_of

Array = np.ndarray
FOLD_RIDGE = 1e-3


def shared(coupling: Coupling, layers: Sequence[Layer]) -> dict[int, tuple[Layer, ...]]:
    """Layer index -> all layers that read its weight, in graph order.  Leaves out layers with a weight of their own.

    The tuple is empty if no common fit suits all readers: another node reads the weight too (a table of embeddings that
    also gives the scores), or the layers use it in different ways.
    """
    facts = coupling.facts
    readers: dict[str, set[int]] = {}
    for node in coupling.graph.nodes:
        if node.index not in facts.folded and node.index not in facts.arithmetic:
            for value in node.inputs:
                readers.setdefault(_stored(coupling, value) or "", set()).add(node.index)
    known = {layer.index: layer for layer in layers}
    sharing: dict[int, tuple[Layer, ...]] = {}
    for layer in layers:
        reading = readers[_stored(coupling, coupling.value_of((layer.index, layer.weight_slot))) or ""]
        if len(reading) > 1:
            members = tuple(known[index] for index in sorted(reading) if index in known)
            suits = len(members) == len(reading) and all(_alike(coupling, layer, other) for other in members)
            sharing[layer.index] = members if suits else ()
    return sharing


def _alike(coupling: Coupling, one: Layer, other: Layer) -> bool:
    if (one.kind, one.flip, one.groups()) != (other.kind, other.flip, other.groups()):
        return False
    first, second = (constant_of(coupling, (layer.index, layer.weight_slot)) for layer in (one, other))
    return first is second or np.array_equal(first, second)


def _stored(coupling: Coupling, value: str | None) -> str | None:
    """The stored constant of ``value``, looking through changes of layout; ``None`` if ``value`` is not constant."""
    graph = coupling.graph
    size = _size(coupling, value)
    while value is not None:
        index = graph.producer.get(value, -1)
        inputs = graph.nodes[index].inputs if index in coupling.facts.folded else ()
        if not inputs or _size(coupling, inputs[0]) != size:
            break
        value = inputs[0]
    return value if size else None


def _size(coupling: Coupling, value: str | None) -> int:
    """The number of elements of a constant; 0 for anything else."""
    if value is None:
        return 0
    known = coupling.facts.values.get(value, coupling.graph.constants.get(value))
    return 0 if known is None else known.size


def fit_together(members: Sequence[LayerJob], grams: Mapping[int, SecondMoments], solution: Solution) -> None:
    """Fit one common matrix on the kept inputs of ``members``.  Does nothing if they keep different channels."""
    parts = [job.part for job in members]
    known = [grams[job.index] for job in members if job.index in grams]
    if not parts or len(known) < len(parts) or parts[0].kept_inputs.all():
        return
    if len({(part.groups, part.kept_inputs.tobytes(), part.kept_outputs.tobytes()) for part in parts}) > 1:
        return
    if parts[0].groups < members[0].layer.groups():
        # A depthwise layer loses whole groups, and no other group can make up for one.
        return
    free = [job.constant > 0 for job in members]
    for job, weights in zip(members, together(parts, known, free, FOLD_RIDGE), strict=True):
        solution.keep(job, weights)


def together(
    parts: Sequence[CutLayer], grams: Sequence[SecondMoments], free: Sequence[bool], strength: float
) -> list[Array]:
    """One matrix on the kept inputs that best reproduces the outputs of all ``parts`` on the original's inputs.

    ``grams``: moments of the original's inputs.  ``free``: whether the bias of each part may change.
    Returns (g, n+1, o) per part.  They differ only in the biases.
    """
    whole, fitted = [part.full() for part in parts], [part.base() for part in parts]
    alive = parts[0].kept_features
    outs = parts[0].kept_outputs.reshape(len(whole[0]), -1)
    for g in range(len(fitted[0])):
        weights = whole[0][g][:, outs[g]]
        weights[-1] = 0.0
        moments, means = np.zeros((len(weights), len(weights))), []
        # One at a time: the moments of wide layers are large.
        for gram, bias in zip(grams, free, strict=True):
            xx = gram.of(g)
            means.append(xx[-1, :-1] / max(xx[-1, -1], 1.0) * bias)
            moments[:-1, :-1] += xx[:-1, :-1] - xx[-1, -1] * np.outer(means[-1], means[-1])
        solved = fold(moments, weights, alive, strength)
        for one, mean in zip(fitted, means, strict=True):
            one[g, :-1] = solved[:-1]
            one[g, -1] += mean @ weights[:-1] - mean[alive[:-1]] @ solved[:-1]
    return fitted
