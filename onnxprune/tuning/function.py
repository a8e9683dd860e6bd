"""A graph as a differentiable function of its inputs and its trained weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.graph.view import Graph
from onnxprune.tuning.control import run_control
from onnxprune.tuning.fold import folded
from onnxprune.tuning.gated import gated
from onnxprune.tuning.levels import Level, Levels, levels_of
from onnxprune.tuning.operators.call import Call, Unsupported
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.program import Block, Step

Array = np.ndarray
Values = dict[str, Tensor]
#: For this many input shapes, values that depend only on the shape are kept.
SHAPES_KEPT = 8


class Failed(Exception):
    """torch could not compute ``step``, for ``reason``."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(f"{step.node.op} '{step.node.label}': {reason}")
        self.step, self.reason = step, reason


@dataclass(frozen=True, eq=False)
class Function:
    """Computes the values ``wanted`` from the values ``given``.

    ``parameters``: value id -> leaf tensor, float32 or float64.  ``fixed``: values that are the same in every run.
    ``narrow``: places of the ``steps`` that compute in bfloat16 (:mod:`onnxprune.tuning.narrow`).
    """

    graph: Graph
    steps: tuple[Step, ...]
    given: tuple[str, ...]
    wanted: tuple[str, ...]
    parameters: Values
    levels: Levels
    fixed: Values
    device: torch.device
    narrow: frozenset[int] = frozenset()
    _by_shape: dict[tuple[tuple[int, ...], ...], Values] = field(default_factory=dict)
    _last: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, feeds: Mapping[str, Tensor], parameters: Mapping[str, Tensor] | None = None) -> Values:
        """The wanted values.  ``feeds`` holds every value of ``given``; ``parameters`` replace the function's own.

        Raises:
            ModelError: torch could not compute a node on these values.  The message names it.
        """
        try:
            return self.run(feeds, self.parameters if parameters is None else parameters)
        except Failed as failure:
            raise ModelError(f"tuning cannot run {failure}; leave the model untuned, or report this") from failure

    def run(self, feeds: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Values:
        values: Values = {**self.fixed, **parameters}
        values.update((name, feeds[name]) for name in self.given)
        shapes = tuple(tuple(feeds[name].shape) for name in self.given)
        known = self._by_shape.get(shapes)
        kept: Values = {}
        for place, step in enumerate(self.steps):
            level = max((self.levels.of(o) for o in step.outputs), default=Level.DATA)
            if level == Level.SHAPED and known is not None:
                for out in step.outputs:
                    if out is not None and out in known:
                        values[out] = known[out]
                continue
            made = self._made(place, step, values)
            values.update(made)
            if level == Level.SHAPED:
                kept.update(made)
            for name in self._last[place]:
                values.pop(name, None)
        if known is None:
            if len(self._by_shape) >= SHAPES_KEPT:
                self._by_shape.clear()
            self._by_shape[shapes] = kept
        return {name: _wide(values[name]) for name in self.wanted}

    def _made(self, place: int, step: Step, values: Values) -> Values:
        if place in self.narrow:
            with torch.autocast(self.device.type, torch.bfloat16):
                return run_step(step, values, self.device)
        if self.narrow:
            values = {**values, **{name: _wide(values[name]) for name in step.reads() if name in values}}
        return run_step(step, values, self.device)

    def numbers(self, feeds: Mapping[str, Tensor]) -> list[int]:
        """How many numbers each step computes on ``feeds``: a measure of memory and time."""
        made: list[int] = []
        values: Values = {**self.fixed, **self.parameters, **feeds}
        with torch.no_grad():
            for place, step in enumerate(self.steps):
                outputs = run_step(step, values, self.device)
                values.update(outputs)
                made.append(sum(value.numel() for value in outputs.values()))
                for name in self._last[place]:
                    values.pop(name, None)
        return made


def build(
    graph: Graph,
    block: Block,
    given: Sequence[str],
    wanted: Sequence[str],
    trained: Collection[str],
    device: torch.device,
) -> Function:
    """The steps between ``given`` and ``wanted`` as a function.  Computes constants once, here.

    Raises:
        Failed: torch could not compute a constant.
    """
    needed = _needed(block, given, wanted)
    steps = list(gated(folded([step for step in block.steps if step in needed], wanted), wanted))
    parameters = {
        name: channels_last(to_torch(graph.constants[name]).to(device)).requires_grad_()
        for name in trained
        if name in graph.constants
    }
    names = [n for n in graph.constants if n not in parameters and n not in given]
    # A trained constant is a parameter, even if a node stores it.
    steps = [step for step in steps if not parameters.keys() >= set(step.outputs)]
    levels = levels_of(Block(block.inputs, block.outputs, tuple(steps)), names, [*parameters, *given])
    fixed = {
        n: _stored(graph, n, device)
        for n in _read_names(steps, wanted)
        if n in graph.constants and n not in parameters and n not in given
    }
    rest = []
    with torch.no_grad():
        for step in steps:
            if max((levels.of(o) for o in step.outputs), default=Level.DATA) == Level.FIXED:
                if not all(o in fixed for o in step.outputs if o is not None):
                    fixed.update(run_step(step, fixed, device))
            else:
                rest.append(step)
    live = {v for step in rest for v in step.reads()} | set(wanted)
    fixed = {name: value for name, value in fixed.items() if name in live}
    used = {v for step in rest for inner in step.inside() for v in inner.inputs}
    parameters = {name: value for name, value in parameters.items() if name in used}
    function = Function(graph, tuple(rest), tuple(given), tuple(wanted), parameters, levels, fixed, device)
    function._last.extend(_last_uses(rest, wanted))
    return function


def _wide(value: Tensor) -> Tensor:
    """``value``, in float32 if a step made it in bfloat16: models with such weights are trained in float32, too."""
    return value.float() if value.dtype == torch.bfloat16 else value


def _read_names(steps: Sequence[Step], wanted: Sequence[str]) -> list[str]:
    """The names of all values that are read, also inside bodies."""
    inner = [v for step in steps for one in step.inside() for v in one.inputs if v is not None]
    return list(dict.fromkeys([*inner, *(v for step in steps for v in step.reads()), *wanted]))


def channels_last(weight: Tensor) -> Tensor:
    """``weight`` in channels-last order: convolutions follow it, which saves up to a fifth of a step on a CPU."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


def _stored(graph: Graph, name: str, device: torch.device) -> Tensor:
    value = to_torch(graph.constants[name])
    # Integers are mostly places and shapes, which the CPU reads.
    return value.to(device) if value.is_floating_point() else value


def _needed(block: Block, given: Sequence[str], wanted: Sequence[str]) -> set[Step]:
    makers = {out: step for step in block.steps for out in step.outputs if out is not None}
    waiting, needed = [v for v in wanted if v not in given], set[Step]()
    while waiting:
        step = makers.get(waiting.pop())
        if step is None or step in needed:
            continue
        needed.add(step)
        waiting += [v for v in step.reads() if v not in given]
    return needed


def _last_uses(steps: Sequence[Step], wanted: Sequence[str]) -> list[tuple[str, ...]]:
    """For each step, the values that no later step reads."""
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        for value in (*step.reads(), *(o for o in step.outputs if o is not None)):
            last[value] = place
    names: list[list[str]] = [[] for _ in steps]
    for value, place in last.items():
        if value not in wanted:
            names[place].append(value)
    return [tuple(ending) for ending in names]


def run_step(step: Step, values: Mapping[str, Tensor], device: torch.device) -> Values:
    """The step's outputs by name.

    Raises:
        Failed: torch could not compute the step; the reason is its message.
    """
    if step.entry is None:
        raise Failed(step, step.missing)
    try:
        inputs = tuple(None if name is None else values[name] for name in step.inputs)
        call = Call(step.node.op, step.opset, inputs, step.attributes, len(step.outputs))
        if step.blocks:
            result: object = run_control(call, lambda name, given: _run_block(step.blocks[name], given, values, device))
        else:
            if device.type != "cpu":
                call = Call(
                    call.op, call.opset, _together(inputs, step.entry.host, device), call.attributes, call.outputs
                )
            result = step.entry.run(call)
    except Failed:
        raise
    except Unsupported as reason:
        raise Failed(step, str(reason)) from reason
    except Exception as error:
        raise Failed(
            step, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        ) from error
    outputs = result if isinstance(result, tuple) else (result,)
    return {
        name: value
        for name, value in zip(step.outputs, outputs, strict=False)
        if name is not None and value is not None
    }


def _run_block(
    block: Block, given: Sequence[Tensor], outer: Mapping[str, Tensor], device: torch.device
) -> list[Tensor]:
    values: Values = {**outer, **dict(zip(block.inputs, given, strict=True))}
    for step in block.steps:
        # Constants exist already; some of them are trained.
        if step.node.op != "Constant" or not values.keys() >= set(step.outputs):
            values.update(run_step(step, values, device))
    return [values[name] for name in block.outputs]


def _together(
    inputs: tuple[Tensor | None, ...], host: Collection[int], device: torch.device
) -> tuple[Tensor | None, ...]:
    """Moves ``inputs`` to ``device`` if any of them is there; slots in ``host`` go to the CPU, which reads them."""
    if not any(x is not None and x.device.type == device.type for x in inputs):
        return inputs
    return tuple(None if x is None else x.cpu() if slot in host else x.to(device) for slot, x in enumerate(inputs))
