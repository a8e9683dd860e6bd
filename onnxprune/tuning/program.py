"""A graph as steps for torch: one per node, in order.  A step holds the steps of its bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import inliner

from onnxprune.graph.view import Body, Graph, Node, view
from onnxprune.tuning.attributes import attributes_of
from onnxprune.tuning.control import CONTROL
from onnxprune.tuning.operators import TABLE
from onnxprune.tuning.operators.call import Entry, Unsupported

#: Domains of the standard operators.
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, eq=False)
class Step:
    """One node.  ``entry`` is ``None`` if torch cannot compute it; ``missing`` says why."""

    node: Node
    entry: Entry | None
    attributes: Mapping[str, object]
    opset: int
    blocks: Mapping[str, Block]
    missing: str = ""

    @property
    def inputs(self) -> tuple[str | None, ...]:
        return self.node.inputs

    @property
    def outputs(self) -> tuple[str | None, ...]:
        return self.node.outputs

    def inside(self) -> Iterator[Step]:
        """The step, and all steps in its bodies."""
        yield self
        for block in self.blocks.values():
            for step in block.steps:
                yield from step.inside()

    def reads(self) -> Iterator[str]:
        """Every value that the step reads, including values that its bodies capture."""
        yield from (value for value in self.inputs if value is not None)
        for block in self.blocks.values():
            made = block.made()
            yield from (v for step in block.steps for v in step.reads() if v not in made)
            yield from (v for v in block.outputs if v not in made)


@dataclass(frozen=True, eq=False)
class Block:
    """The steps of the model's graph, or of a body."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]

    def made(self) -> frozenset[str]:
        return frozenset(self.inputs) | {out for step in self.steps for out in step.outputs if out is not None}


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions inlined; the model itself if it defines none."""
    return inliner.inline_local_functions(model) if model.functions else model


def program_of(model: onnx.ModelProto) -> tuple[Graph, Block]:
    """(view, steps) of the model with its functions inlined."""
    graph = view(inlined(model))
    return graph, _block(graph, graph.main)


def _block(graph: Graph, body: Body) -> Block:
    steps = tuple(_step(graph, node) for node in graph.nodes if node.scope == body.scope)
    return Block(body.inputs, body.outputs, steps)


def _step(graph: Graph, node: Node) -> Step:
    domain = "" if node.domain in STANDARD else node.domain
    opset = graph.opsets.get(node.domain, graph.opsets.get("", 1))
    blocks = {name: _block(graph, graph.body_of(node, name)) for name, _ in node.bodies()}
    entry = TABLE.get((domain, node.op)) or (CONTROL.get(node.op) if not domain else None)
    if entry is None:
        return Step(node, None, {}, opset, blocks, "tuning knows no gradient of it")
    inner = next((s for block in blocks.values() for s in block.steps if s.entry is None), None)
    if inner is not None:
        return Step(
            node, None, {}, opset, blocks, f"its body holds {inner.node.op} '{inner.node.label}': {inner.missing}"
        )
    try:
        return Step(node, entry, attributes_of(node.proto), opset, blocks)
    except Unsupported as reason:
        return Step(node, None, {}, opset, blocks, str(reason))
