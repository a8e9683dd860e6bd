"""A graph under random construction, in the ways that exporters write things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper as oh
from onnx import numpy_helper

Array = np.ndarray


OPSET = 18


@dataclass(frozen=True)
class Value:
    """A tensor: its name and its shape at batch 2.  Rank 4 is NCHW, rank 3 is (batch, token, width), rank 2 flat."""

    name: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else self.shape[1]


@dataclass(eq=False)
class Builder:
    rng: np.random.Generator
    dynamic: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shared: dict[tuple[int, ...], str] = field(default_factory=dict)
    live: list[Value] = field(default_factory=list)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, *options: int) -> int:
        return int(options[int(self.rng.integers(len(options)))])

    def put(self, array: Array, stem: str = "w") -> str:
        """A constant: an initializer, or now and then a Constant node."""
        name = self.name(stem)
        if self.chance(0.15):
            self.nodes.append(oh.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan: int = 1) -> str:
        """Random weights; sometimes those of an earlier node of the same shape, or seen through Identity."""
        if self.chance(0.12) and shape in self.shared:
            return self.shared[shape]
        array = (self.rng.standard_normal(shape) / np.sqrt(max(fan, 1))).astype(np.float32)
        name = self.put(array)
        if self.chance(0.05):
            name = self.op("Identity", [name])
        self.shared[shape] = name
        return name

    def positive(self, size: int) -> str:
        return self.put((self.rng.random(size) + 0.5).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.put(np.asarray(values, np.int64), "n")

    def op(self, kind: str, inputs: list[str], **attributes: object) -> str:
        out = self.name(kind.lower())
        name = out if self.chance(0.9) else ""
        self.nodes.append(oh.make_node(kind, inputs, [out], name=name, **attributes))
        return out

    def many(self, kind: str, inputs: list[str], count: int, **attributes: object) -> list[str]:
        outs = [self.name(kind.lower()) for _ in range(count)]
        self.nodes.append(oh.make_node(kind, inputs, outs, **attributes))
        return outs

    def reshape(self, x: str, batch_of: str, dims: tuple[int, ...]) -> str:
        """To (batch, *dims): by literals, by 0 or -1, or by arithmetic on Shape as tracing exporters write it."""
        way = self.pick(0, 1, 2) if not self.dynamic else self.pick(1, 2, 3)
        if way == 0:
            return self.op("Reshape", [x, self.ints(2, *dims)])
        if way == 1:
            return self.op("Reshape", [x, self.ints(0, *dims)])
        if way == 3 or not self.dynamic:
            place = int(self.rng.integers(len(dims)))
            free = [-1 if k == place else d for k, d in enumerate(dims)]
            return self.op("Reshape", [x, self.ints(0, *free)])
        shape = self.op("Shape", [batch_of])
        batch = self.op("Gather", [shape, self.put(np.asarray(0, np.int64))], axis=0)
        first = self.op("Unsqueeze", [batch, self.ints(0)])
        rest = [self.ints(d) for d in dims]
        return self.op("Reshape", [x, self.op("Concat", [first, *rest], axis=0)])


Piece = Callable[[Builder, Value], "Value | None"]
