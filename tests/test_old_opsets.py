"""Files of the first opsets: converted to one that runs, which is told, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper as oh
from onnx import numpy_helper, parser

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import ModelError
from onnxprune.graph.load import load

BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
TEXT = """g (float[1,3,8,8] x) => (float[1,5] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0)  a1 = Exp(a)  a2 = BINARY<broadcast=1, axis=1>(a1, b0)  b = Relu(a2)
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(b, w1)  d = PRelu(c, s)  p = GlobalAveragePool(d)
    q = Reshape(p, sh)  y = Gemm<broadcast=1>(q, w2, b2) }"""


def caffe2(opset: int, binary: str = "Add") -> onnx.ModelProto:
    """As Caffe2 wrote it: broadcasting by attribute, initializers listed as inputs."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (12, 3, 3, 3), "b0": (12,), "w1": (16, 12, 3, 3), "s": (16,), "w2": (16, 5), "b2": (5,)}
    model = parser.parse_model(f'<ir_version: 3, opset_import: ["" : {opset}]>\n{TEXT.replace("BINARY", binary)}')
    arrays = {k: (rng.standard_normal(v) * 0.2).astype(np.float32) for k, v in shapes.items()}
    for name, array in {**arrays, "sh": np.array([1, 16], np.int64)}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        kind = oh.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(oh.make_tensor_value_info(name, kind, array.shape))
    return model


def modern(binary: str) -> onnx.ModelProto:
    """The same, as opset 13 has it."""
    model = caffe2(13, binary)
    for node in model.graph.node:
        for place in reversed([k for k, a in enumerate(node.attribute) if a.name in ("broadcast", "axis")]):
            del node.attribute[place]
    for tensor in model.graph.initializer:
        if tensor.name in ("b0", "s"):
            tensor.dims[:] = [*tensor.dims, 1, 1]
    del model.graph.input[1:]
    model.ir_version = 8
    return model


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("opset", [5, 6])
@pytest.mark.parametrize("binary", BINARY)
def test_an_old_file_is_converted_and_says_so(opset: int, binary: str) -> None:
    loaded = load(caffe2(opset, binary))
    assert loaded.repairs == (f"converted from opset {opset}, which onnxruntime does not run, to opset 7",)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answer(loaded.proto, x), answer(modern(binary), x), rtol=1e-4, atol=1e-5)


def test_an_old_file_is_pruned(tmp_path: Path) -> None:
    onnx.save(caffe2(6), tmp_path / "old.onnx")
    out = tmp_path / "small.onnx"
    assert main([str(tmp_path / "old.onnx"), "-o", str(out), "--macs", "0.7", "--samples", "4", "-q"]) == 0
    assert answer(onnx.load(out), np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 5)
    assert any(note.startswith("converted from opset 6") for note in onnxprune.inspect(tmp_path / "old.onnx").notes)


def test_what_runs_is_not_converted() -> None:
    """An operator that has not changed since needs no conversion."""
    model = parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 7]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }'
    )
    assert load(model).repairs == ()


def test_what_cannot_be_converted_is_refused_at_once() -> None:
    text = '<ir_version: 3, opset_import: ["" : 5]> g (float[1,4] x) => (float[1,4] y) { y = ParametricSoftplus(x) }'
    with pytest.raises(ModelError, match=r"opset 5.*export the model again with opset 13 or newer"):
        load(parser.parse_model(text))


def test_a_file_that_lists_constants_as_inputs_is_pruned() -> None:
    """Of IR version 3, in an opset that runs: what a cut adds is listed, too."""
    model = modern("Add")
    model.ir_version, model.opset_import[0].version = 3, 8
    for tensor in model.graph.initializer:
        model.graph.input.append(oh.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    result = onnxprune.prune(model, macs=0.7, samples=4, effort="fast")
    assert result.report.verify.passed and result.model.ir_version == 3
    listed = {value.name for value in result.model.graph.input}
    assert listed == {"x"} | {tensor.name for tensor in result.model.graph.initializer}
