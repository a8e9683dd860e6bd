"""Tiny seeded graphs, and the check that every one of them must pass: cut and masked original compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnx import helper as oh
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.engine.probe import plausible_feeds
from onnxprune.graph.inputs import input_shapes
from onnxprune.surgery.cut import cut, mask
from onnxprune.surgery.sweep import sweep

Dim = int | str | None
Attribute = int | float | str | list[int] | list[float] | onnx.GraphProto | onnx.TensorProto


@dataclass
class Sketch:
    """A graph under construction; every method that adds something returns its name."""

    opset: int = 17
    dtype: int = TensorProto.FLOAT
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    value_info: list[onnx.ValueInfoProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    prefix: str = ""
    count: int = 0

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{self.prefix}{stem}{self.count}"

    def input(self, name: str, shape: Sequence[Dim] | None, dtype: int | None = None) -> str:
        self.inputs.append(oh.make_tensor_value_info(name, dtype or self.dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[Dim] | None = None, dtype: int | None = None) -> str:
        self.outputs.append(oh.make_tensor_value_info(name, dtype or self.dtype, shape))
        return name

    def array(self, values: object, dtype: type = np.int64) -> str:
        return self.keep(self.fresh("c"), np.asarray(values, dtype))

    def keep(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, name: str = "") -> str:
        generator = np.random.default_rng((self.seed, self.count))
        scale = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        kind = np.dtype(oh.tensor_dtype_to_np_dtype(self.dtype))
        values = (generator.standard_normal(shape) * scale).astype(kind)
        return self.keep(name or self.fresh("w"), values)

    def op(self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, domain: str = "",
           attrs: Mapping[str, Attribute] | None = None) -> str:  # fmt: skip
        """Adds a node; the answer is its first output (``split`` gives all)."""
        return self.split(kind, *inputs, name=name, outputs=outputs, domain=domain, attrs=attrs)[0]

    def split(self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, domain: str = "",
              attrs: Mapping[str, Attribute] | None = None) -> list[str]:  # fmt: skip
        made = [self.fresh(kind.lower()) for _ in range(outputs)]
        label = made[0] if name is None else name
        self.nodes.append(oh.make_node(kind, list(inputs), made, name=label, domain=domain, **(attrs or {})))
        return made

    def conv(self, x: str, into: int, out: int, size: int = 1, group: int = 1, name: str | None = None,
             bias: str | None = None) -> str:  # fmt: skip
        weight = self.weight(out, into // group, size, size)
        attrs: dict[str, Attribute] = {"group": group, "pads": [size // 2] * 4}
        return self.op("Conv", x, weight, bias or self.weight(out), name=name, attrs=attrs)

    def norm(self, x: str, channels: int) -> str:
        ones = [self.weight(channels) for _ in range(3)]
        variance = self.keep(self.fresh("v"), np.linspace(0.5, 1.5, channels, dtype=np.float32))
        return self.op("BatchNormalization", x, *ones, variance)

    def graph(self, name: str = "g") -> onnx.GraphProto:
        return oh.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers, value_info=self.value_info)

    def model(self) -> onnx.ModelProto:
        imports = [oh.make_opsetid("", self.opset)] + [oh.make_opsetid(d, v) for d, v in self.domains.items()]
        model = oh.make_model(self.graph(), opset_imports=imports, ir_version=8, functions=self.functions)
        onnx.checker.check_model(model)
        return model


def in_layouts(layouts: Sequence[str]) -> onnx.ModelProto:
    """Layers that read one square matrix as it is (""), transposed (T), through Identity (I) or from float16 (C)."""
    s = Sketch()
    half = any("C" in steps for steps in layouts)
    table = s.array(np.random.default_rng(0).standard_normal((32, 32)) / 6, np.float16 if half else np.float32)
    laid: dict[str, str] = {}
    y = s.op("MatMul", s.input("x", [8, 7]), s.weight(7, 32))
    for steps in layouts:
        value = table
        for k, step in enumerate(steps):
            if steps[: k + 1] not in laid:
                kind = {"I": ("Identity", {}), "T": ("Transpose", {"perm": [1, 0]}), "C": ("Cast", {"to": 1})}[step]
                laid[steps[: k + 1]] = s.op(kind[0], value, attrs=kind[1])
            value = laid[steps[: k + 1]]
        y = s.op("Relu", s.op("MatMul", y, value))
    s.output(s.op("MatMul", y, s.weight(32, 5)), [8, 5])
    return s.model()


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs by onnxruntime; by the reference evaluator where onnxruntime lacks a kernel for one of the types."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except NotImplemented as error:
        assert "Could not find an implementation" in str(error)
        return [np.asarray(r) for r in ReferenceEvaluator(model).run(None, dict(feeds))]
    return [np.asarray(r) for r in session.run(None, dict(feeds))]


def random_keep(coupling: Coupling, seed: int, share: float = 0.4) -> np.ndarray:
    """One boolean per unit; every group of two or more loses at least one and keeps at least one."""
    generator = np.random.default_rng(seed)
    keep = np.ones(coupling.unit_count, dtype=np.bool_)
    for group in coupling.groups:
        away = min(max(1, int(len(group) * share)), len(group) - 1)
        keep[generator.permutation(group.units)[:away]] = False
    return keep


def pruned(coupling: Coupling, keep: np.ndarray) -> onnx.ModelProto:
    return sweep(cut(coupling, keep), coupling.graph.model)


def relative_error(got: np.ndarray, wanted: np.ndarray, original: np.ndarray) -> float:
    assert got.shape == wanted.shape
    if got.dtype.kind not in "fV" or not got.size:
        return 0.0 if np.array_equal(got, wanted) else 1.0
    a, b, c = (np.asarray(k, np.float64) for k in (got, wanted, original))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.abs(c).max(), 1e-9))


def prove(model: onnx.ModelProto, tolerance: float = 1e-4, given: Mapping[str, tuple[int, ...]] | None = None,
          seeds: int = 2) -> Coupling:  # fmt: skip
    """Couple, cut at random, and hold the result to the law: valid, no larger, same shapes, same function as the
    masked original, at both input sizes."""
    before = model.SerializeToString(deterministic=True)
    coupling = couple(model, given or {}, None)
    for seed in range(seeds):
        keep = random_keep(coupling, seed)
        small, masked = pruned(coupling, keep), mask(coupling, keep)
        onnx.checker.check_model(small)
        if coupling.groups:
            assert small.ByteSize() < model.ByteSize()
        for shapes in input_shapes(coupling.graph, given or {}, None):
            feeds = plausible_feeds(coupling.graph, shapes)
            results = zip(run(small, feeds), run(masked, feeds), run(model, feeds), strict=True)
            for got, wanted, original in results:
                assert got.shape == original.shape
                assert relative_error(got, wanted, original) <= tolerance
    assert model.SerializeToString(deterministic=True) == before
    return coupling


def table(coupling: Coupling) -> dict[str, int]:
    """Group name -> channels."""
    return {group.name: len(group) for group in coupling.groups}


def reasons(coupling: Coupling) -> str:
    """Every reason that holds a weight's channels, as one text."""
    return "\n".join(held.reason.text for held in coupling.held)
