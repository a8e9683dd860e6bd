"""Mixed precision in tuning: hidden layers in bfloat16, the last ones and every evaluation in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import Sketch

import onnxprune
from onnxprune.calibration.open import open_dataset
from onnxprune.engine.session import Engine
from onnxprune.graph.load import load
from onnxprune.graph.view import view
from onnxprune.options import Options
from onnxprune.pipeline.setup import specs_for
from onnxprune.surgery.constants import with_constants

torch = pytest.importorskip("torch")

from onnxprune.tuning import mixed as mixed_module  # noqa: E402
from onnxprune.tuning.function import build  # noqa: E402
from onnxprune.tuning.mixed import mixed  # noqa: E402
from onnxprune.tuning.narrow import layer_weights, narrowed  # noqa: E402
from onnxprune.tuning.original import torch_function  # noqa: E402
from onnxprune.tuning.pair import ModelPair, pair  # noqa: E402
from onnxprune.tuning.parameters import trainable  # noqa: E402
from onnxprune.tuning.program import program_of  # noqa: E402
from onnxprune.tuning.samples import Samples  # noqa: E402


def plain() -> onnx.ModelProto:
    """Two convolutions, one with a batch normalization, and a classifier."""
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    y = s.op("Relu", s.norm(s.conv(x, 3, 8, 3, name="first"), 8))
    y = s.op("Relu", s.conv(y, 8, 12, 3, name="second"))
    y = s.op("Flatten", s.op("GlobalAveragePool", y))
    s.output(s.op("Gemm", y, s.weight(12, 5), s.weight(5), name="last"), ["n", 5])
    return s.model()


def pixels() -> onnx.ModelProto:
    """Two heads on one backbone: one is decoded to pixels by a fixed kernel of one output, as detectors do."""
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    y = s.op("Relu", s.conv(x, 3, 8, 3, name="first"))
    bins = s.op("Softmax", s.conv(y, 8, 16, 1, name="bins"), attrs={"axis": 1})
    side = s.op("Conv", bins, s.keep("steps", np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)), name="decode")
    side = s.op("Mul", s.op("Add", side, s.keep("grid", 40 * np.ones((1, 1, 8, 8), np.float32))), s.keep("stride", np.asarray(32, np.float32)), name="scale")
    score = s.op("Sigmoid", s.conv(y, 8, 4, 1, name="score"))
    s.output(s.op("Concat", side, score, attrs={"axis": 1}), ["n", 5, 8, 8])
    return s.model()


def generated() -> onnx.ModelProto:
    """The weight of the first layer is a product of two constants, so it stands behind arithmetic."""
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    kernel = s.op("Mul", s.weight(8, 3, 3, 3, name="direction"), s.weight(8, 1, 1, 1, name="length"), name="weight")
    y = s.op("Relu", s.op("Conv", x, kernel, name="first"))
    s.output(s.conv(y, 8, 4, 3, name="last"), ["n", 4, 6, 6])
    return s.model()


def damaged(model: onnx.ModelProto, share: float = 0.3) -> onnx.ModelProto:
    generator = np.random.default_rng(3)
    weights = {n: a for n, a in view(model).constants.items() if a.dtype == np.float32 and a.ndim > 1 and n != "steps"}
    return with_constants(
        model, {n: a + share * a.std() * generator.standard_normal(a.shape) for n, a in weights.items()}
    )


def pictures(count: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def paired(student: onnx.ModelProto, original: onnx.ModelProto) -> tuple[ModelPair, Samples]:
    specs = specs_for(load(original), None, Options())
    samples = Samples(open_dataset(pictures(), specs, None, None, 0))
    return pair(student, original, samples, Engine(threads=1), torch.device("cpu")), samples


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bfloat16."""
    monkeypatch.setattr(mixed_module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(mixed_module, "NUMBERS", 1)


@pytest.mark.parametrize(
    ("model", "hidden", "last"),
    [
        (plain(), {"first", "BatchNormalization", "Relu", "second", "GlobalAveragePool", "Flatten"}, {"last"}),
        (pixels(), {"first", "Relu"}, {"bins", "score", "Softmax", "decode", "Add", "scale", "Sigmoid", "Concat"}),
        (generated(), {"first", "Relu"}, {"weight", "last"}),
    ],
)
def test_steps_before_the_last_layers_are_narrow_and_no_others(
    model: onnx.ModelProto, hidden: set[str], last: set[str]
) -> None:
    both, _ = paired(damaged(model), model)
    function = both.function
    found = narrowed(function, layer_weights(function))
    names = [step.node.proto.name if step.node.proto.name in last | hidden else step.node.op for step in function.steps]
    narrow = {name for place, name in enumerate(names) if place in found.narrow}
    assert (narrow, set(names) - narrow) == (hidden, last)


def test_the_originals_kernels_are_scaled_and_rounded_once() -> None:
    """A batch normalization that nothing else reads is folded; without trained weights, once and for all."""
    model = plain()
    graph, block = program_of(model)
    student = build(graph, block, graph.inputs, graph.outputs, trainable(graph), torch.device("cpu"))
    found = torch_function(model, graph.outputs, torch.device("cpu"))
    assert found is not None and len(found.steps) == len(student.steps) - 1
    kept = narrowed(found, layer_weights(student))
    assert sorted(x.shape[0] for x in kept.fixed.values() if x.dtype == torch.bfloat16) == [8, 12]
    given = {name: torch.as_tensor(array) for name, array in pictures(4).items()}
    exact, rounded = (function(given)[graph.outputs[0]] for function in (found, kept))
    assert 0 < float((exact - rounded).norm()) < 0.01 * float(exact.norm())


@pytest.mark.parametrize("make", [plain, pixels, generated])
def test_training_in_mixed_precision_has_nearly_the_same_values_and_gradients(make, fast) -> None:
    model = make()
    both, samples = paired(damaged(model), model)
    found = mixed(both, model, samples.fetch(range(32)))
    assert found.trained is not both.function and found.function is both.function
    feeds = samples.fetch(range(32))
    gradients = []
    for each in (both, found):
        losses = each.losses(feeds)
        assert losses.dtype == torch.float32
        weights = list(each.function.parameters.values())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), weights)]))
        assert gradients[-1].dtype == torch.float32
    exact, rounded = gradients
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).norm() / exact.norm()) < 0.15
    values = found.trained(found.given_of(feeds))
    assert {value.dtype for value in values.values()} == {torch.float32}
    # Hidden values of two models that nearly agree differ by little more than rounding.  Outputs are not rounded.
    outputs = []
    for each in (both, found):
        weights = list(each.function.parameters.values())
        losses = replace(each, hidden=()).losses(feeds)
        outputs.append(torch.autograd.grad(losses.mean(), weights, allow_unused=True))
    apart = [(a - b).flatten() for a, b in zip(*outputs, strict=True) if a is not None]
    whole = [a.flatten() for a in outputs[0] if a is not None]
    assert float(torch.cat(apart).norm() / torch.cat(whole).norm()) < 0.03


def test_weights_are_the_same_leaves_and_held_out_samples_are_judged_in_float32(fast) -> None:
    model = plain()
    both, samples = paired(damaged(model), model)
    found = mixed(both, model, samples.fetch(range(32)))
    assert all(found.trained.parameters[name] is weight for name, weight in both.function.parameters.items())
    feeds = samples.fetch(range(8))
    wanted = both.judge(feeds)
    assert torch.equal(found.look(feeds, found.judge(feeds), None)[0], both.look(feeds, wanted, None)[0])


@pytest.mark.parametrize("share", [0.0, 1e-3])
def test_where_rounding_would_drown_the_error_training_stays_in_float32(share: float, fast) -> None:
    model = plain()
    both, samples = paired(damaged(model, share), model)
    assert mixed(both, model, samples.fetch(range(32))) is both


def grouped() -> onnx.ModelProto:
    s = Sketch()
    x = s.input("x", ["n", 3, 8, 8])
    y = s.op("Relu", s.conv(x, 3, 8, 1))
    y = s.op("Relu", s.op("Conv", y, s.weight(8, 1, 3, 3), attrs={"group": 8}))
    s.output(s.conv(y, 8, 4, 1), ["n", 4, 6, 6])
    return s.model()


def dense() -> onnx.ModelProto:
    """A convolution before many matrix products."""
    s = Sketch()
    y = s.op("Flatten", s.conv(s.input("x", ["n", 3, 8, 8]), 3, 2, 3))
    for width in (128, 300, 300):
        y = s.op("Relu", s.op("MatMul", y, s.weight(width, 300)))
    s.output(s.op("MatMul", y, s.weight(300, 4)), ["n", 4])
    return s.model()


@pytest.mark.parametrize(("model", "numbers"), [(grouped(), 1), (dense(), 1), (plain(), mixed_module.NUMBERS)])
def test_where_it_does_not_pay_training_stays_in_float32(model: onnx.ModelProto, numbers: int, fast, monkeypatch) -> None:
    monkeypatch.setattr(mixed_module, "NUMBERS", numbers)
    both, samples = paired(damaged(model), model)
    assert mixed(both, model, samples.fetch(range(32))) is both


def test_on_a_cpu_that_only_emulates_bfloat16_training_stays_in_float32(fast, monkeypatch) -> None:
    monkeypatch.setattr(mixed_module, "multiplies_bfloat16", lambda: False)
    model = plain()
    both, samples = paired(damaged(model), model)
    assert mixed(both, model, samples.fetch(range(32))) is both


def test_an_operator_without_a_bfloat16_form_leaves_float32(fast, monkeypatch) -> None:
    model = plain()
    both, samples = paired(damaged(model), model)
    monkeypatch.setattr(mixed_module, "_computed", lambda function, given: None)
    assert mixed(both, model, samples.fetch(range(32))) is both


def test_a_damaged_model_comes_back_in_mixed_precision_with_the_same_bytes_each_time(fast) -> None:
    model = plain()
    first, again = (
        onnxprune.tune(damaged(model), model, pictures(96), length="8x", threads=1, seed=1) for _ in range(2)
    )
    assert first.tuning.after < 0.5 * first.tuning.before
    assert first.model.SerializeToString() == again.model.SerializeToString()
