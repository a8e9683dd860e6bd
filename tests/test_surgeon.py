"""Graphs of onnx-graphsurgeon are models like any other, and a result is one on demand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.plan import Cut, Plan, fingerprint
from onnxprune.surgeon import from_graph, to_graph

DEMO = Path(__file__).parents[1] / "models" / "demo.onnx"


@pytest.fixture
def graph() -> gs.Graph:
    return gs.import_onnx(onnx.load(DEMO))


def test_every_command_takes_a_graph(graph: gs.Graph) -> None:
    exported = gs.export_onnx(graph)
    found, wanted = onnxprune.inspect(graph), onnxprune.inspect(exported)
    assert found == wanted
    name = found.groups[0].name
    assert onnxprune.why(graph, name) == onnxprune.why(exported, name)
    assert onnxprune.analyse(graph).unit_count == onnxprune.analyse(exported).unit_count
    plan = Plan(fingerprint(exported), (Cut(name, 16, tuple(range(8))),))
    small = onnxprune.apply(graph, plan)
    assert small.SerializeToString() == onnxprune.apply(exported, plan).SerializeToString()
    drop = onnxprune.compare(graph, exported, DEMO.with_name("test.npz")).drop
    assert drop is not None and drop.value == 0.0
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer}
    assert len(onnxprune.torch_plan(plan, weights, graph)) == len(weights)


def test_a_result_is_a_graph_of_its_own(graph: gs.Graph, capsys: pytest.CaptureFixture[str]) -> None:
    before = gs.export_onnx(graph).SerializeToString()
    result = onnxprune.prune(graph, macs=0.7, samples=16, effort="fast")
    assert gs.export_onnx(graph).SerializeToString() == before, "the given graph is changed"
    kept = result.model.SerializeToString()
    edited = result.graph()
    for tensor in edited.tensors().values():
        tensor.name = f"renamed_{tensor.name}"
    assert {t.name[:8] for t in gs.export_onnx(edited).graph.initializer} == {"renamed_"}
    assert result.model.SerializeToString() == kept
    assert len(result.graph().nodes) == len(result.model.graph.node)
    assert capsys.readouterr().out == ""


def test_what_is_no_graph_passes_as_it_is() -> None:
    model = onnx.load(DEMO)
    assert from_graph(model) is model
    assert from_graph(DEMO) is DEMO


def test_what_onnx_graphsurgeon_refuses_is_told_in_one_line(graph: gs.Graph) -> None:
    graph.nodes[0].attrs["odd"] = object()
    with pytest.raises(
        ModelError, match=r"^onnx-graphsurgeon cannot export the graph: .*onnx_graphsurgeon.export_onnx"
    ):
        onnxprune.inspect(graph)
    model = onnx.load(DEMO)
    model.graph.node[0].attribute.add(name="bytes", type=onnx.AttributeProto.STRING, s=b"\xff")
    with pytest.raises(ModelError, match=r"^onnx-graphsurgeon cannot import the model: .*") as caught:
        to_graph(model)
    assert "\n" not in str(caught.value)


def test_an_incomplete_graph_is_refused_as_a_model_would_be() -> None:
    x = gs.Variable("x", np.float32, (1, 4))
    lost = gs.Node("Relu", inputs=[gs.Variable("nowhere")], outputs=[gs.Variable("y", np.float32, (1, 4))])
    with pytest.raises(ModelError, match="nowhere"):
        onnxprune.inspect(gs.Graph([lost], [x], [lost.outputs[0]], opset=17))
