"""The original's answers: its outputs and hidden values for given inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.engine.session import Engine, open_session, run
from onnxprune.tuning.function import Failed, Function, build
from onnxprune.tuning.operators.types import to_torch
from onnxprune.tuning.program import inlined, program_of

Array = np.ndarray
AnswerFunction = Callable[[Mapping[str, Array]], dict[str, Tensor]]


def by_runtime(model: onnx.ModelProto, names: Sequence[str], engine: Engine) -> AnswerFunction:
    """Answers by onnxruntime, which runs any operator."""
    session = open_session(inlined(model), engine, names)

    def answers(feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        return {name: to_torch(array) for name, array in zip(names, run(session, feeds), strict=True)}

    return answers


def by_torch(function: Function) -> AnswerFunction:
    """Answers by ``function``, which reads the model's inputs."""

    def answers(feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        with torch.no_grad():
            return function({name: to_torch(array).to(function.device) for name, array in feeds.items()})

    return answers


def torch_function(model: onnx.ModelProto, names: Sequence[str], device: torch.device) -> Function | None:
    """The values ``names`` of the model as a function of its inputs; ``None`` if torch lacks an operator."""
    graph, block = program_of(model)
    try:
        return build(graph, block, graph.inputs, names, (), device)
    except Failed:
        return None


def original_answers(model: onnx.ModelProto, names: Sequence[str], engine: Engine, device: torch.device) -> AnswerFunction:
    """Answers by onnxruntime on the CPU; on another device by torch, if it knows all the operators."""
    function = None if device.type == "cpu" else torch_function(model, names, device)
    if function is not None:
        return by_torch(function)
    slow = by_runtime(model, names, engine)
    if device.type == "cpu":
        return slow
    return lambda feeds: {name: value.to(device) for name, value in slow(feeds).items()}
