"""The recipes of the README: what comes after pruning takes the pruned model as it takes any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import onnxprune

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recipes() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "tools" / "recipes"))
    yield
    sys.path.pop(0)


@pytest.fixture(scope="module")
def small(recipes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at 70 % of its MACs, quickly made."""
    target = tmp_path_factory.mktemp("recipes") / "small.onnx"
    data = ROOT / "models" / "calib.npz"
    onnx.save(
        onnxprune.prune(ROOT / "models" / "demo.onnx", data, macs=0.7, preprocess="unit", samples=64).model, target
    )
    return target


def imported(name: str, needs: str) -> ModuleType:
    pytest.importorskip(needs)
    return __import__(name)


def test_a_pruned_model_is_quantized(small: Path) -> None:
    quantize, data = imported("quantize", "onnxruntime.quantization"), __import__("data")
    target = small.with_name("int8.onnx")
    quantize.quantize(small, target)
    kinds = {node.op_type for node in onnx.load(target).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    before, after = (data.top1(data.onnxruntime_network(model)) for model in (small, target))
    assert before > 0.85
    assert after > before - 0.03
    assert target.stat().st_size < 0.6 * small.stat().st_size


@pytest.mark.parametrize("runtime", ["openvino", "ncnn"])
def test_other_runtimes_answer_alike(small: Path, tmp_path: Path, runtime: str) -> None:
    recipe, data = imported(f"{runtime}_run", runtime), __import__("data")
    network = recipe.network(small) if runtime == "openvino" else recipe.network(*recipe.convert(small, tmp_path))
    batch = data.pictures("test")[0][:16]
    np.testing.assert_allclose(network(batch), data.onnxruntime_network(small)(batch), atol=1e-4)


def test_a_plugin_node_is_put_behind_a_pruned_graph(recipes: None, tmp_path: Path) -> None:
    recipe, data = __import__("plugin"), __import__("data")
    target = tmp_path / "plugin.onnx"
    result = recipe.build(target, samples=64)
    assert result.report.macs.ratio <= 0.6
    written = onnx.load(target)
    assert [(node.op_type, node.domain) for node in written.graph.node][-1] == ("BestClasses", "acme.plugins")
    assert {entry.domain for entry in written.opset_import} == {"", "acme.plugins"}
    assert [output.name for output in written.graph.output] == ["classes", "confidences"]
    # Without the plugin, which no runtime here knows, it computes what the result does.
    scores = written.graph.node.pop().input[0]
    del written.graph.output[:]
    written.graph.output.extend(result.model.graph.output)
    assert [output.name for output in written.graph.output] == [scores]
    onnx.save(written, tmp_path / "without.onnx")
    onnx.save(result.model, tmp_path / "result.onnx")
    batch = data.pictures("test")[0][:16]
    answers = [data.onnxruntime_network(tmp_path / f"{name}.onnx")(batch) for name in ("without", "result")]
    np.testing.assert_array_equal(*answers)
