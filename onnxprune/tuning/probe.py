"""Which nodes of a graph torch can compute: it tries each of them once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.engine.session import Engine, open_literal_session, open_session, run
from onnxprune.errors import ModelError
from onnxprune.graph.view import Graph
from onnxprune.tuning.function import Failed, run_step
from onnxprune.tuning.operators.call import Unsupported
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.program import Block

Array = np.ndarray
#: Relative L2 error between torch and onnxruntime that rounding explains, also if integers in between land on a neighbour.
ALIKE = 2e-2


@dataclass(frozen=True)
class Probed:
    """The result of the probe.

    ``failed``: node index -> why torch cannot compute it.  ``learns``: floating-point values with a gradient to a trained
    weight.  ``sizes``: the shape of every computed value.  ``effects``: weight -> root mean square of the values that its
    first reader makes.
    """

    failed: Mapping[int, str]
    learns: frozenset[str]
    sizes: Mapping[str, tuple[int, ...]]
    effects: Mapping[str, float]


def probe(
    model: onnx.ModelProto,
    graph: Graph,
    block: Block,
    trained: Collection[str],
    feeds: Mapping[str, Array],
    engine: Engine,
) -> Probed:
    """Run every node once on ``feeds`` with torch, and compare the values with onnxruntime's.

    Cost: one run of each, all values in memory.
    """
    values: dict[str, Tensor] = {
        name: to_torch(graph.constants[name]) for name in graph.constants if not _is_text(graph, name)
    }
    values.update((name, values[name].requires_grad_()) for name in trained)
    values.update((name, to_torch(array)) for name, array in feeds.items())
    failed: dict[int, str] = {}
    made: list[str] = []
    effects: dict[str, float] = {}
    unread = set(trained)
    for step in block.steps:
        if values.keys() >= {o for o in step.outputs if o is not None}:
            continue
        if not values.keys() >= set(step.reads()):
            continue
        try:
            outputs = run_step(step, values, torch.device("cpu"))
        except Failed as failure:
            failed[step.node.index] = failure.reason
            # Later nodes continue with the values from onnxruntime.
            outputs = _by_runtime(graph, [o for o in step.outputs if o is not None], feeds, engine)
        values.update(outputs)
        made += outputs
        new = {v for one in step.inside() for v in one.inputs if v is not None and v in unread}
        if new:
            effects.update(dict.fromkeys(new, _root_mean_square(outputs)))
            unread -= new
    other = _first_unlike(model, graph, block, values, made, feeds, engine)
    if other is not None:
        failed[other] = "torch and onnxruntime compute different values"
    learns = frozenset(n for n in made if values[n].requires_grad and values[n].is_floating_point())
    return Probed(failed, learns, {name: tuple(values[name].shape) for name in [*made, *feeds]}, effects)


def _root_mean_square(outputs: Mapping[str, Tensor]) -> float:
    """Of the first output; 1 if that is zero, or holds no finite floating-point number."""
    first = next(iter(outputs.values()), None)
    if first is None or not first.is_floating_point() or not first.numel():
        return 1.0
    found = float(first.detach().double().square().mean().sqrt())
    return found if found and math.isfinite(found) else 1.0


def _is_text(graph: Graph, name: str) -> bool:
    return graph.constants[name].dtype.kind not in "fiub" and graph.constants[name].dtype.name not in (
        "bfloat16",
        "int4",
        "uint4",
        "int2",
        "uint2",
    )


def _first_unlike(
    model: onnx.ModelProto,
    graph: Graph,
    block: Block,
    values: Mapping[str, Tensor],
    made: Collection[str],
    feeds: Mapping[str, Array],
    engine: Engine,
) -> int | None:
    """The first node whose output differs from onnxruntime's; ``None`` if the outputs of the model agree."""
    ends = [name for name in graph.outputs if name in made]
    if ends and not _unlike(graph, ends, values, feeds, engine):
        return None
    floats = [name for name in made if values[name].is_floating_point()]
    wrong = set() if not floats else set(_unlike(graph, floats, values, feeds, engine))
    for step in block.steps:
        if any(out in wrong for out in step.outputs):
            return step.node.index
    return None


def _by_runtime(graph: Graph, names: list[str], feeds: Mapping[str, Array], engine: Engine) -> dict[str, Tensor]:
    """The values by onnxruntime; empty if it cannot compute them either."""
    try:
        arrays = run(open_session(graph.model, engine, names), feeds)
        return {name: to_torch(array) for name, array in zip(names, arrays, strict=True)}
    except (ModelError, Unsupported):
        return {}


def _unlike(
    graph: Graph, names: list[str], values: Mapping[str, Tensor], feeds: Mapping[str, Array], engine: Engine
) -> list[str]:
    wanted = run(open_literal_session(graph.model, engine, names), feeds)
    unlike = []
    for name, want in zip(names, wanted, strict=True):
        got = values[name].detach().double().numpy()
        wide = want.astype(np.float64)
        finite = np.isfinite(wide)
        apart = (
            float(np.linalg.norm(np.where(finite, wide, 0) - np.where(finite, got, 0)))
            if got.shape == wide.shape
            else np.inf
        )
        if not apart <= ALIKE * max(float(np.linalg.norm(wide[finite])), 1e-6):
            unlike.append(name)
    return unlike
