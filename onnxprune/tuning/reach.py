"""Which part of a graph is tuned, and at which values it is compared with the original."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnxprune.errors import ModelError
from onnxprune.graph.view import Graph
from onnxprune.tuning.levels import levels_of
from onnxprune.tuning.parameters import MOVES
from onnxprune.tuning.probe import Probed
from onnxprune.tuning.program import Block, Step


@dataclass(frozen=True)
class Reach:
    """``given``: inputs of the tuned part; onnxruntime computes the ones in ``outside``.  ``targets``: values to compare
    with the original's.  ``trained``: the weights in between.  ``notes``: for the user."""

    given: tuple[str, ...]
    outside: tuple[str, ...]
    targets: tuple[str, ...]
    trained: tuple[str, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def reach(graph: Graph, block: Block, trained: Collection[str], seen: Probed, original: Graph) -> Reach:
    """The part to tune: the whole graph if torch can compute it.

    Else one of two parts, the one with more weights: everything before the nodes that torch cannot compute, or everything
    after them.

    Raises:
        ModelError: no weight is left.  The message names the nodes.
    """
    bad = [step for step in block.steps if step.node.index in seen.failed]
    if not bad:
        parts = [_part(graph, block, block.steps, trained, seen, original)]
    else:
        after, before = _descendants(block, bad), _ancestors(block, bad)
        parts = [
            _part(graph, block, [s for s in block.steps if s not in after], trained, seen, original),
            _part(graph, block, [s for s in block.steps if s not in before], trained, seen, original),
        ]
    best = max(parts, key=lambda part: _weights(graph, part.trained) if part.targets else 0)
    obstacle = _obstacle(bad, seen)
    if not best.trained or not best.targets:
        if not bad:
            raise ModelError(
                "the model holds no floating-point weight that its outputs depend on: nothing can be tuned"
            )
        raise ModelError(f"nothing can be tuned: {obstacle}, and no weight lies before or after it")
    if not bad:
        return best
    share = _weights(graph, best.trained) / max(_weights(graph, trained), 1)
    where = "after" if best.outside else "before"
    told = f"{obstacle}: {len(best.trained)} weights {where} it are tuned ({share:.0%} of all), the others stay unchanged"
    if len(best.trained) == len(trained):
        told = f"{obstacle}: all {len(trained)} weights lie {where} it and are tuned"
    return Reach(
        best.given,
        best.outside,
        best.targets,
        best.trained,
        best.steps,
        (told,),
    )


def _obstacle(bad: Iterable[Step], seen: Probed) -> str:
    named = [f"{step.node.op} '{step.node.label}' ({seen.failed[step.node.index]})" for step in bad]
    more = f" and {len(named) - 2} more" if len(named) > 2 else ""
    return f"torch cannot compute {', '.join(named[:2])}{more}"


def _weights(graph: Graph, names: Iterable[str]) -> int:
    return sum(int(graph.constants[name].size) for name in names)


def _descendants(block: Block, bad: Iterable[Step]) -> set[Step]:
    later, tainted = set(bad), {o for step in bad for o in step.outputs}
    for step in block.steps:
        if step in later or any(v in tainted for v in step.reads()):
            later.add(step)
            tainted.update(step.outputs)
    return later


def _ancestors(block: Block, bad: Iterable[Step]) -> set[Step]:
    makers = {o: step for step in block.steps for o in step.outputs if o is not None}
    waiting, earlier = list(bad), set[Step]()
    while waiting:
        step = waiting.pop()
        if step not in earlier:
            earlier.add(step)
            waiting += [makers[v] for v in step.reads() if v in makers]
    return earlier


def _part(
    graph: Graph, block: Block, steps: Iterable[Step], trained: Collection[str], seen: Probed, original: Graph
) -> Reach:
    chosen = tuple(steps)
    made = {o for step in chosen for o in step.outputs if o is not None}
    elsewhere = {v for step in block.steps if step not in set(chosen) for one in step.inside() for v in one.inputs}
    mine = {v for step in chosen for one in step.inside() for v in one.inputs}
    # A weight that the untuned part also reads must not change.
    weights = tuple(name for name in trained if name in mine and name not in elsewhere)
    learns = _learning(chosen, weights) & seen.learns if len(chosen) < len(block.steps) else seen.learns
    targets = _targets(graph, block, chosen, made, learns, trained, original)
    computed = {o for step in block.steps for o in step.outputs if o is not None} - made
    constants = levels_of(block, [n for n in graph.constants if n not in trained], trained)
    read = dict.fromkeys(v for step in chosen for v in step.reads() if v in computed)
    outside = tuple(v for v in read if constants.of(v) > 0)
    inputs = tuple(name for name in graph.inputs if any(name in step.reads() for step in chosen))
    return Reach((*inputs, *outside), outside, targets, weights, chosen)


def _learning(steps: Iterable[Step], weights: Collection[str]) -> frozenset[str]:
    """Values that depend on a trained weight."""
    learning = set(weights)
    for step in steps:
        if any(v in learning for one in step.inside() for v in one.inputs):
            learning.update(o for o in step.outputs if o is not None)
    return frozenset(learning)


#: Operators that make values between 0 and 1.
SQUASHES = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Clip"})


def squashed(graph: Graph, name: str) -> bool:
    """Whether a value comes from a sigmoid or the like, with only moves in between."""
    waiting, seen = [name], set[str]()
    while waiting:
        value = waiting.pop()
        if value in seen or value not in graph.producer:
            continue
        seen.add(value)
        node = graph.nodes[graph.producer[value]]
        if node.op in SQUASHES:
            return True
        if node.op in MOVES or node.op in ("Identity", "If"):
            waiting += [i for i in node.inputs if i is not None]
            waiting += [out for body in graph.bodies if body.owner == node.index for out in body.outputs]
    return False


def _targets(
    graph: Graph,
    block: Block,
    steps: tuple[Step, ...],
    made: Collection[str],
    learns: Collection[str],
    trained: Collection[str],
    original: Graph,
) -> tuple[str, ...]:
    """The values to compare: the outputs, or values before them.

    An output does not suit if two models may answer in different places (a choice, a list of any length), or if no
    gradient passes.  Then the last suitable values before it that both models have take its place.
    """
    levels = levels_of(
        Block(block.inputs, block.outputs, steps), [n for n in graph.constants if n not in trained], trained
    )
    makers = {o: step for step in block.steps for o in step.outputs if o is not None}
    waiting, seen, targets = list(graph.outputs), set[str](), dict[str, None]()
    while waiting:
        value = waiting.pop(0)
        if value in seen:
            continue
        seen.add(value)
        if value in made and value in learns and value not in levels.apart and value in original.producer:
            targets.setdefault(value)
        elif value in makers:
            waiting += list(makers[value].reads())
    return tuple(targets)
