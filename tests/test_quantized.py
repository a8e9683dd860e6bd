"""Quantized nets, as onnxruntime's own quantizers write them: cut equals masked original, within one quantum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graphs import Sketch, prove, table
from onnx import helper as oh
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import onnxprune
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.graph.load import load
from onnxprune.linear.stored import real_values
from onnxprune.pipeline.notes import reading_notes
from onnxprune.selection.base import evidence
from onnxprune.surgery.cut import cut, mask

ort.set_default_logger_severity(4)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rest = [{"image": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.rest.pop() if self.rest else None


def small_net() -> onnx.ModelProto:
    """Stem, depthwise, residual, concat, gate by LeakyRelu, pooling and a classifier."""
    rng = np.random.default_rng(3)
    weights: list[onnx.TensorProto] = []

    def w(name: str, *shape: int) -> str:
        fan = int(np.prod(shape[1:])) or 1
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32), name))
        return name

    nodes = [
        oh.make_node("Conv", ["image", w("w0", 12, 3, 3, 3), w("b0", 12)], ["c0"], pads=[1] * 4),
        oh.make_node("Relu", ["c0"], ["r0"]),
        oh.make_node("Conv", ["r0", w("w1", 12, 1, 3, 3), w("b1", 12)], ["c1"], pads=[1] * 4, group=12),
        oh.make_node("LeakyRelu", ["c1"], ["r1"], alpha=0.1),
        oh.make_node("Conv", ["r1", w("w2", 12, 12, 1, 1), w("b2", 12)], ["c2"]),
        oh.make_node("Add", ["c2", "r0"], ["a2"]),
        oh.make_node("Conv", ["a2", w("w3", 8, 12, 1, 1), w("b3", 8)], ["c3"]),
        oh.make_node("Sigmoid", ["c3"], ["s3"]),
        oh.make_node("Concat", ["a2", "s3"], ["k"], axis=1),
        oh.make_node("MaxPool", ["k"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        oh.make_node("Conv", ["m", w("w4", 16, 20, 3, 3), w("b4", 16)], ["c4"], pads=[1] * 4),
        oh.make_node("Relu", ["c4"], ["r4"]),
        oh.make_node("GlobalAveragePool", ["r4"], ["p"]),
        oh.make_node("Flatten", ["p"], ["f"]),
        oh.make_node("Gemm", ["f", w("w5", 10, 16), w("b5", 10)], ["g"], transB=1),
        oh.make_node("Relu", ["g"], ["h"]),
        oh.make_node("MatMul", ["h", w("w6", 10, 6)], ["scores"]),
    ]
    graph = oh.make_graph(
        nodes,
        "small",
        [oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [2, 3, 8, 8])],
        [oh.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [2, 6])],
        weights,
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 13)], ir_version=8)


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Fusions may round elsewhere in a graph with a mask in it; without them both compute the same integers.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def check(model: onnx.ModelProto, quantum: float) -> Coupling:
    coupling = couple(model, {}, None)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        keep = np.ones(coupling.unit_count, np.bool_)
        for group in coupling.groups:
            keep[rng.permutation(group.units)[: rng.integers(1, len(group))]] = False
        small, masked = cut(coupling, keep), mask(coupling, keep)
        image = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
        got, want, base = run(small, image), run(masked, image), run(model, image)
        assert np.abs(got - want).max() <= max(quantum, 1e-4 * float(np.abs(base).max()))
        assert np.abs(got - base).max() > quantum, "the cut must be seen"
    return coupling


def quantum_of(model: onnx.ModelProto) -> float:
    """The step of the last quantization, the unit in which rounding may differ."""
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("scale")}
    return float(max(v.max() for k, v in scales.items() if k.startswith("scores")))


@pytest.mark.parametrize("kind", [QuantFormat.QDQ, QuantFormat.QOperator], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8], ids=["int8", "uint8"])
def test_statically_quantized(tmp_path: Path, kind: QuantFormat, per_channel: bool, weights: QuantType) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(small_net(), source)
    quantize_static(
        source,
        target,
        _Images(),
        quant_format=kind,
        per_channel=per_channel,
        weight_type=weights,
        activation_type=QuantType.QUInt8,
    )
    model = onnx.load(target)
    coupling = check(model, quantum_of(model))
    sizes = sorted(len(g) for g in coupling.groups)
    # Residual stream 12, branch after the depthwise 12 (tied), sigmoid branch 8, 16 and 10 hidden.
    assert sizes == [8, 10, 12, 16]


def test_dynamically_quantized(tmp_path: Path) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(small_net(), source)
    quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
    coupling = check(onnx.load(target), 1e-5)
    assert sorted(len(g) for g in coupling.groups) == [8, 10, 12, 16]


def _quantized(folder: Path, kind: QuantFormat, per_channel: bool) -> onnx.ModelProto:
    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(small_net(), source)
    quantize_static(source, target, _Images(), quant_format=kind, per_channel=per_channel)
    return onnx.load(target)


FORMS = [(kind, per_channel) for kind in (QuantFormat.QDQ, QuantFormat.QOperator) for per_channel in (True, False)]


@pytest.mark.parametrize(("kind", "per_channel"), FORMS)
def test_stored_integers_are_the_numbers_that_were_quantized(
    tmp_path: Path, kind: QuantFormat, per_channel: bool
) -> None:
    coupling = couple(_quantized(tmp_path, kind, per_channel), {}, None)
    exact = {t.name: numpy_helper.to_array(t) for t in small_net().graph.initializer}
    found = {}
    for key, lines in coupling.units.items():
        if isinstance(key, tuple) and len(lines) > 1 and coupling.value_of(key).startswith("w"):
            found[coupling.value_of(key)[:2]] = real_values(coupling, key)
    assert found.keys() == {name for name in exact if name.startswith("w")}
    for name, values in found.items():
        assert values is not None
        assert np.abs(values - exact[name]).max() <= np.abs(exact[name]).max() / 100


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_weight_is_scaled_by_its_own_scale(per_channel: bool) -> None:
    """Not by that of the data, which stands before it."""
    draw, lines = np.random.default_rng(0), (6,) if per_channel else ()
    stored = draw.integers(0, 255, (4, 6)).astype(np.uint8)
    scale, zero = draw.uniform(0.01, 0.1, lines).astype(np.float32), draw.integers(100, 150, lines).astype(np.uint8)
    s = Sketch(domains={"com.microsoft": 1})
    others = (s.array(7.0, np.float32), s.keep("scale", scale), s.array(3, np.uint8), s.keep("zero", zero))
    inputs = (s.input("x", [2, 4], onnx.TensorProto.UINT8), s.keep("w", stored), *others)
    y = s.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft")
    s.output(s.op("MatMul", y, s.weight(6, 3)), [2, 3])
    coupling = couple(s.model(), {}, None)
    found = real_values(coupling, (0, 1))
    assert found is not None
    np.testing.assert_allclose(found, (stored.astype(np.float64) - zero) * scale)


@pytest.mark.parametrize(("kind", "per_channel"), FORMS)
def test_units_of_quantized_layers_are_ranked_by_their_real_size(
    tmp_path: Path, kind: QuantFormat, per_channel: bool
) -> None:
    quantized, plain = couple(_quantized(tmp_path, kind, per_channel), {}, None), couple(small_net(), {}, None)
    sizes = {len(g): evidence(plain, g, (), {}).magnitude for g in plain.groups}
    for group in quantized.groups:
        magnitude = evidence(quantized, group, (), {}).magnitude
        assert np.corrcoef(magnitude, sizes[len(group)])[0, 1] > 0.99


@pytest.mark.parametrize(("kind", "per_channel"), FORMS)
def test_a_quantized_model_is_really_cut_and_its_report_says_what_was_left_out(
    tmp_path: Path, kind: QuantFormat, per_channel: bool
) -> None:
    model = _quantized(tmp_path, kind, per_channel)
    report = onnxprune.prune(model, macs=0.6, samples=8, round_to=1, threads=1).report
    assert report.macs.ratio <= 0.6 and report.bytes.after < report.bytes.before
    assert report.verify.passed and not report.refits
    assert any("7 of 7 layers have integer weights" in note for note in report.notes)
    shares = {row.name: row.macs_share for row in report.groups if row.locked is None}
    assert len(shares) == 4 and all(share > 0 for share in shares.values())


def test_layers_of_a_dequantized_weight_are_named_and_their_locks_told(tmp_path: Path) -> None:
    model = small_net()
    for number, node in enumerate(model.graph.node):
        node.name = f"layer{number}"
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(model, source)
    quantize_static(source, target, _Images(), quant_format=QuantFormat.QDQ)
    found = onnxprune.inspect(onnx.load(target))
    wanted = onnxprune.inspect(onnx.load(source))
    assert [row.name for row in found.groups] == [row.name for row in wanted.groups]
    assert [row.locked for row in found.groups] == [row.locked for row in wanted.groups]
    assert [round(row.macs_share, 9) for row in found.groups] == [round(row.macs_share, 9) for row in wanted.groups]


def test_a_dequantized_vector_that_several_layers_share_ties_none_of_them() -> None:
    g = Sketch()
    step, zero = g.array(0.01, np.float32), g.array(0, np.int8)
    ones = g.op("DequantizeLinear", g.array([100] * 4, np.int8), step, zero)
    shift = g.op("DequantizeLinear", g.array([0] * 4, np.int8), step, zero)
    x = g.input("x", [1, 3, 8, 8])
    for name, width, before in (("a", 16, 3), ("b", 8, 16)):
        x = g.conv(x, before, width, name=name)
        flat = g.op("Reshape", x, g.array([0, 4, -1]))
        x = g.op("Relu", g.op("Reshape", g.op("InstanceNormalization", flat, ones, shift), g.op("Shape", x)))
    g.output(g.conv(g.op("Concat", x, x, attrs={"axis": 1}), 16, 5), [1, 5, 8, 8])
    coupling = prove(g.model())
    assert table(coupling) == {"a": 4, "b": 4}
    assert any("gets one DequantizeLinear per reader" in note for note in reading_notes(load(g.model()), coupling))


def test_a_dequantized_weight_that_layers_share_by_design_stays_shared() -> None:
    g = Sketch()
    stored = g.keep("stored", np.random.default_rng(0).integers(-99, 99, (12, 12), dtype=np.int8))
    weight = g.op("DequantizeLinear", stored, g.array(0.01, np.float32))
    x = g.op("Relu", g.op("MatMul", g.input("x", [2, 12]), weight, name="a"))
    g.output(g.op("MatMul", x, weight, name="b"), [2, 12])
    coupling = couple(g.model(), {}, None)
    assert sum(node.op == "DequantizeLinear" for node in coupling.graph.nodes) == 1


def _integers(s: Sketch, shape: tuple[int, ...], axis: int, kind: type, form: str) -> str:
    """A weight of integers, which the nodes that ``form`` names dequantize along ``axis``."""
    rng = np.random.default_rng(len(s.initializers))
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    along = [shape[axis] if a == axis else 1 for a in range(len(shape))]
    value = s.op("Cast", s.keep(s.fresh("q"), rng.integers(low, high, shape).astype(kind)), attrs={"to": 1})
    zero = rng.integers(0, 5, along) + (low + high) // 2
    if "cast" in form:
        value = s.op("Sub", value, s.op("Cast", s.keep(s.fresh("z"), zero.astype(kind)), attrs={"to": 1}))
    elif "sub" in form:
        value = s.op("Sub", value, s.keep(s.fresh("z"), zero.astype(np.float32)))
    scale = s.keep(s.fresh("s"), (rng.uniform(0.5, 1.5, along) / high).astype(np.float32))
    return s.op("Mul", *((scale, value) if "turned" in form else (value, scale)))


def _cast_net(kind: type, form: str) -> onnx.ModelProto:
    s = Sketch()
    weight = _integers(s, (16, 3, 3, 3), 0, kind, form)
    h = s.op("Conv", s.input("image", ["n", 3, 8, 8]), weight, s.weight(16), attrs={"pads": [1] * 4}, name="c0")
    h = s.op("Relu", s.op("Conv", s.op("Relu", h), _integers(s, (24, 16, 1, 1), 0, kind, form), name="c1"))
    h = s.op("Flatten", s.op("GlobalAveragePool", h))
    weight = s.op("Transpose", _integers(s, (20, 24), 0, kind, form), attrs={"perm": [1, 0]})
    h = s.op("Relu", s.op("MatMul", h, weight, name="m"))
    s.output(s.op("Gemm", h, _integers(s, (20, 10), 1, kind, form), s.weight(10), name="end"), ["n", 10])
    return s.model()


def _narrow(model: onnx.ModelProto) -> int:
    """How many values are stored in one byte each."""
    return sum(
        int(np.prod(t.dims))
        for t in model.graph.initializer
        if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    )


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("form", ["mul", "mul turned", "sub mul", "cast sub mul"])
def test_integers_that_casts_dequantize_stay_integers(kind: type, form: str) -> None:
    model = _cast_net(kind, form)
    coupling = prove(model)
    assert table(coupling) == {"c0": 16, "c1": 24, "m": 20}
    assert {held.name for held in coupling.held} == {"c0", "end"}
    result = onnxprune.prune(model, macs=0.6, samples=16)
    small = result.model
    wide = [t for t in small.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(max(t.dims) == np.prod(t.dims) for t in wide), "only scales, zero points and biases are real numbers"
    assert _narrow(small) < _narrow(model) and small.ByteSize() < model.ByteSize()
    kinds = [[n.op_type for n in m.graph.node if n.op_type != "Cast"] for m in (small, model)]
    assert kinds[0] == kinds[1]
    assert not result.report.refits
    assert any("4 of 4 layers have integer weights: they are not refitted" in n for n in result.report.notes)


@pytest.mark.parametrize("form", ["mul turned", "cast sub mul"])
def test_cast_integers_are_ranked_by_the_numbers_that_they_stand_for(form: str) -> None:
    model = _cast_net(np.uint8, form)
    coupling = couple(model, {}, None)
    conv = next(node for node in coupling.graph.nodes if node.label == "c1")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(oh.make_tensor_value_info(conv.proto.input[1], onnx.TensorProto.FLOAT, [24, 16, 1, 1]))
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    weight = session.run(None, {"image": np.zeros((1, 3, 8, 8), np.float32)})[1]
    uses = [key for key in coupling.units if isinstance(key, tuple) and len(coupling.units[key]) == 4]
    found = [real_values(coupling, use) for use in uses if coupling.graph.nodes[use[0]].op == "Cast"]
    assert any(f is not None and f.shape == weight.shape and np.allclose(f, weight, rtol=1e-5) for f in found)


def test_integers_that_a_layer_reads_unscaled_or_looks_up_stay_integers() -> None:
    s = Sketch()
    table_of = s.keep("table", np.random.default_rng(0).integers(-128, 127, (50, 32)).astype(np.int8))
    scale = s.keep("scale", np.random.default_rng(1).uniform(0.005, 0.01, (50, 1)).astype(np.float32))
    rows = s.op("Mul", s.op("Cast", table_of, attrs={"to": 1}), scale)
    h = s.op("Gather", rows, s.input("ids", ["n", 6], onnx.TensorProto.INT64), name="table")
    for number, out in enumerate((48, 5)):
        stored = np.random.default_rng(out).integers(-128, 127, (32 if out == 48 else 48, out)).astype(np.int8)
        h = s.op("MatMul", h, s.op("Cast", s.keep(f"w{number}", stored), attrs={"to": 1}), name=f"m{number}")
        h = s.op("Mul", h, s.keep(f"s{number}", np.full(out, 0.01, np.float32)))
        h = s.op("Relu", h) if out == 48 else h
    s.output(h, ["n", 6, 5])
    model = s.model()
    assert table(prove(model)) == {"table": 32, "m0": 48}
    small = onnxprune.prune(model, macs=0.6, samples=16).model
    assert small.ByteSize() < model.ByteSize()
    assert {t.data_type for t in small.graph.initializer if len(t.dims) == 2 and t.dims[1] > 1} == {
        onnx.TensorProto.INT8
    }


def test_a_mask_of_integers_that_is_no_weight_is_a_constant_as_before() -> None:
    s = Sketch()
    h = s.op("Relu", s.op("MatMul", s.input("x", ["n", 8]), s.weight(8, 16), name="a"))
    mask_of = s.keep("mask", (np.arange(16) % 2).astype(np.uint8).reshape(1, 16))
    h = s.op("Mul", h, s.op("Cast", mask_of, attrs={"to": 1}))
    s.output(s.op("MatMul", h, s.weight(16, 4)), ["n", 4])
    coupling = prove(s.model())
    assert table(coupling) == {"a": 16}
    cast = next(node for node in coupling.graph.nodes if node.op == "Cast")
    assert cast.index in coupling.facts.folded


def test_integers_that_meet_what_a_deep_graph_computes_are_no_weights() -> None:
    s = Sketch()
    h = s.op("Relu", s.op("MatMul", s.input("x", [4, 8]), s.weight(8, 16), name="a"))
    for _ in range(1500):
        h = s.op("Identity", h)
    h = s.op("Mul", s.op("Cast", s.keep("q", np.ones((4, 16), np.int8)), attrs={"to": 1}), h)
    s.output(s.op("MatMul", h, s.weight(16, 4)), [4, 4])
    assert table(couple(s.model(), {}, None, "exact")) == {"a": 16}
