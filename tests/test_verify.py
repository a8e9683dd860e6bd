"""Verification: a sound cut passes, and a model broken on purpose is refused before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Sketch, pruned, random_keep
from onnx import TensorProto, numpy_helper
from onnx import helper as oh
from random_graphs import random_model
from workbench import correlated

import onnxprune
from onnxprune.cli import main
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.engine.probe import plausible_feeds
from onnxprune.engine.session import Engine, open_session, run
from onnxprune.errors import VerificationError
from onnxprune.result import Verification
from onnxprune.surgery.cut import mask
from onnxprune.verify import checks
from onnxprune.verify.checks import interface, masked_error, verify
from onnxprune.verify.guided import VANISHING

ENGINE = Engine(threads=1)


def small_net() -> onnx.ModelProto:
    sketch = Sketch(seed=1)
    hidden = sketch.op("Relu", sketch.norm(sketch.conv(sketch.input("x", ["n", 3, 8, 8]), 3, 16, 3, name="first"), 16))
    deep = sketch.op("Relu", sketch.conv(hidden, 16, 16, 3, name="second"))
    pooled = sketch.op("Flatten", sketch.op("GlobalAveragePool", sketch.op("Add", hidden, deep)))
    y = sketch.op("Gemm", pooled, sketch.weight(10, 16), sketch.weight(10), name="head", attrs={"transB": 1})
    sketch.output(y, ["n", 10])
    return sketch.model()


def checked(model: onnx.ModelProto, coupling: Coupling, keep: np.ndarray) -> Verification:
    feeds = plausible_feeds(coupling.graph, {n: coupling.facts.shapes[n] for n in coupling.graph.inputs})
    return verify(coupling, keep, model, (), feeds, ENGINE)


@pytest.mark.parametrize("seed", range(10))
def test_a_sound_cut_passes_everything(seed: int) -> None:
    coupling = couple(random_model(seed), {}, None)
    keep = random_keep(coupling, seed)
    found = checked(pruned(coupling, keep), coupling, keep)
    assert found.passed
    assert found.checker and found.onnxruntime and found.signature
    assert found.masked_max_rel_err <= 1e-4


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_gets_its_room_whatever_the_outputs_are_cast_to(half: bool) -> None:
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    sketch = Sketch(dtype=kind)
    x = sketch.op("Cast", sketch.input("x", ["n", 3, 8, 8], TensorProto.FLOAT), attrs={"to": kind})
    y = sketch.conv(sketch.op("Relu", sketch.conv(x, 3, 8, 3, name="first")), 8, 4, name="second")
    sketch.output(sketch.op("Cast", y, attrs={"to": TensorProto.FLOAT}), ["n", 4, 8, 8], TensorProto.FLOAT)
    coupling = couple(sketch.model(), {}, None)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    worst, allowed = masked_error(coupling, random_keep(coupling, 0), feeds, ENGINE)
    assert worst <= allowed == (5e-2 if half else 1e-4)


def test_models_that_draw_random_numbers_draw_the_same_ones() -> None:
    made = []
    for longer in (False, True):
        sketch = Sketch()
        x = sketch.input("x", ["n", 4])
        # onnxruntime seeds a node by its number, which what is put in front of it changes.
        y = sketch.op("Neg", sketch.op("Neg", x)) if longer else x
        sketch.nodes.append(oh.make_node("RandomNormalLike", [y], ["noise"]))
        sketch.output(sketch.op("Add", y, "noise"), ["n", 4])
        made.append(sketch.model())
    feeds = {"x": np.ones((2, 4), dtype=np.float32)}
    first, second = (run(open_session(model, ENGINE), feeds)[0] for model in made)
    assert np.array_equal(first, second)
    assert not any(node.op_type.startswith("Random") and node.attribute for node in made[0].graph.node)


# -- broken models -------------------------------------------------------------------------------------------------


def initializer(model: onnx.ModelProto, node: str, slot: int) -> onnx.TensorProto:
    name = next(n for n in model.graph.node if n.name == node).input[slot]
    return next(t for t in model.graph.initializer if t.name == name)


def change(model: onnx.ModelProto, node: str, slot: int, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = initializer(model, node, slot)
    array = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def wrong_width(model: onnx.ModelProto) -> None:
    change(model, "second", 1, lambda w: w[:, :-1])


def wrong_bias(model: onnx.ModelProto) -> None:
    change(model, "second", 2, lambda b: b[:-1])


def not_a_number(model: onnx.ModelProto) -> None:
    change(model, "head", 2, lambda b: np.where(np.arange(len(b)) == 3, np.nan, b).astype(b.dtype))


def infinite(model: onnx.ModelProto) -> None:
    change(model, "head", 1, lambda w: np.full_like(w, 3e38))


def renamed_output(model: onnx.ModelProto) -> None:
    last = next(n for n in model.graph.node if n.name == "head")
    last.output[0] = model.graph.output[0].name = "answer"


def extra_output(model: onnx.ModelProto) -> None:
    head = next(n for n in model.graph.node if n.name == "head")
    extra = model.graph.node.add()
    extra.CopyFrom(onnx.helper.make_node("Identity", [head.output[0]], ["copy"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("copy", 1, ["n", 10]))


def wrong_output_shape(model: onnx.ModelProto) -> None:
    change(model, "head", 1, lambda w: w[:-1])
    change(model, "head", 2, lambda b: b[:-1])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def dangling_input(model: onnx.ModelProto) -> None:
    next(n for n in model.graph.node if n.name == "second").input[0] = "nowhere"


def missing_operator(model: onnx.ModelProto) -> None:
    next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Reluu"


BREAKS: dict[Callable[[onnx.ModelProto], None], tuple[str, ...]] = {
    wrong_width: ("onnxruntime",),
    wrong_bias: ("onnxruntime",),
    not_a_number: ("is not finite",),
    infinite: ("is not finite",),
    renamed_output: ("inputs or outputs",),
    extra_output: ("inputs or outputs",),
    wrong_output_shape: ("inputs or outputs",),
    fixed_batch: ("inputs or outputs",),
    dangling_input: ("onnx.checker", "onnxruntime"),
    missing_operator: ("onnx.checker", "onnxruntime"),
}


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_model_is_told_by_the_check_that_is_there_for_it(damage: Callable[[onnx.ModelProto], None]) -> None:
    coupling = couple(small_net(), {}, None)
    keep = random_keep(coupling, 0)
    model = pruned(coupling, keep)
    assert checked(model, coupling, keep).passed
    damage(model)
    found = checked(model, coupling, keep)
    assert not found.passed
    for said in BREAKS[damage]:
        assert any(said in complaint for complaint in found.complaints), found.complaints
    assert found.checker == (not any("onnx.checker" in c for c in found.complaints))
    assert found.signature == (not any("inputs or outputs" in c for c in found.complaints))


def crossed(coupling: Coupling, node: str, slot: int) -> Coupling:
    """The same coupling with the labels of one constant turned by one place: what a wrong rule would do."""
    index = next(n.index for n in coupling.graph.nodes if n.label == node)
    units = dict(coupling.units)
    units[index, slot] = tuple(np.roll(line, 1) for line in units[index, slot])
    return replace(coupling, units=units)


@pytest.mark.parametrize(("node", "slot"), [("first", 1), ("first", 2), ("second", 1), ("second", 2), ("head", 1)])
def test_channels_that_are_mixed_up_fail_masked_equivalence(node: str, slot: int) -> None:
    coupling = couple(small_net(), {}, None)
    keep = random_keep(coupling, 0)
    feeds = plausible_feeds(coupling.graph, {"x": (2, 3, 8, 8)})
    assert masked_error(coupling, keep, feeds, ENGINE)[0] <= 1e-5
    wrong = crossed(coupling, node, slot)
    found = checked(pruned(wrong, keep), wrong, keep)
    assert not found.passed
    assert found.masked_max_rel_err > 1e-4
    assert any("masked equivalence fails" in complaint for complaint in found.complaints)


@pytest.mark.parametrize("literal", [True, False])
def test_rounding_that_the_model_itself_magnifies_is_no_fault_of_the_cut(
    monkeypatch: pytest.MonkeyPatch, literal: bool
) -> None:
    """Sessions that compute what is written tell; where these round otherwise, too, the rounding is measured."""
    if not literal:
        monkeypatch.setattr(checks, "open_literal_session", open_session)
    g = Sketch()
    y = g.conv(g.op("Relu", g.conv(g.input("x", [2, 3, 8, 8]), 3, 16, 3, name="first")), 16, 6, 3, name="second")
    g.output(g.op("Sin", g.op("Mul", y, g.array(2e3, np.float32))), [2, 6, 8, 8])
    coupling = couple(g.model(), {}, None)
    keep = random_keep(coupling, 0)
    feeds = plausible_feeds(coupling.graph, {"x": (2, 3, 8, 8)})
    worst, tolerance = masked_error(coupling, keep, feeds, ENGINE)
    assert worst <= tolerance <= 1e-2
    assert (worst > 1e-4) == (not literal)
    wrong = crossed(coupling, "second", 1)
    assert not checked(pruned(wrong, keep), wrong, keep).passed


def test_rounding_is_no_fault_of_the_cut_where_the_inputs_last_bit_is_lost() -> None:
    """Behind a quantization nothing is left of the inputs' last bit; that of the sums in between still flips levels."""
    g = Sketch()
    step = g.array(0.05, np.float32)
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", g.input("x", [2, 3, 8, 8]), step), step)
    y = g.conv(g.op("Sigmoid", g.norm(g.conv(x, 3, 16, 3, name="first"), 16)), 16, 6, 3, name="second")
    g.output(g.op("Sin", g.op("Mul", y, g.array(4e3, np.float32))), [2, 6, 8, 8])
    coupling = couple(g.model(), {}, None)
    keep = random_keep(coupling, 0)
    feeds = plausible_feeds(coupling.graph, {"x": (2, 3, 8, 8)})
    worst, tolerance = masked_error(coupling, keep, feeds, ENGINE)
    assert worst <= tolerance <= 1e-2


class Saturating:
    """Opens sessions as on a processor whose 8-bit kernels round otherwise: the more so, the more channels they sum."""

    def __init__(self) -> None:
        self.sessions: list[object] = []

    def open(self, model: onnx.ModelProto, engine: Engine) -> object:
        self.sessions.append(open_session(model, engine))
        return self.sessions[-1]

    def run(self, session: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = run(session, feeds)
        if not any(session is mine for mine in self.sessions):
            return found
        noise = np.random.default_rng(len(self.sessions))
        return [a + np.float32(0.01) * np.abs(a).max() * noise.uniform(-1, 1, a.shape).astype(a.dtype) for a in found]


@pytest.mark.parametrize("wrong", [False, True])
def test_kernels_that_round_by_processor_prove_nothing(monkeypatch: pytest.MonkeyPatch, wrong: bool) -> None:
    kernels = Saturating()
    monkeypatch.setattr(checks, "open_session", kernels.open)
    monkeypatch.setattr(checks, "run", kernels.run)
    coupling = couple(small_net(), {}, None)
    keep = random_keep(coupling, 0)
    found = checked(pruned(coupling, keep), crossed(coupling, "second", 1) if wrong else coupling, keep)
    assert kernels.sessions
    assert found.passed == (not wrong)
    assert (found.masked_max_rel_err > 1e-4) == wrong


def ranked_places(seed: int = 3) -> onnx.ModelProto:
    """Scores of 64 places that all but tie, the best eight of them, and what stands there."""
    sketch = Sketch(seed=seed)
    hidden = sketch.op("Relu", sketch.conv(sketch.input("x", [1, 3, 8, 8]), 3, 64, 1, name="first"))
    scores = sketch.op("Reshape", sketch.conv(hidden, 64, 1, 1, name="score"), sketch.array([1, 64]))
    values, places = (f"best_{k}" for k in ("values", "places"))
    sketch.nodes.append(oh.make_node("TopK", [scores, sketch.array([8])], [values, places], name="best", axis=1))
    boxes = sketch.op("Reshape", sketch.conv(hidden, 64, 4, 1, name="box"), sketch.array([4, 64]))
    index = sketch.op("Reshape", places, sketch.array([8]))
    there = sketch.op(
        "Add", sketch.op("Gather", boxes, index, attrs={"axis": 1}), sketch.op("Cast", index, attrs={"to": 1})
    )
    sketch.output(there, [4, 8])
    sketch.output(places, [1, 8], TensorProto.INT64)
    return sketch.model()


def all_but_tied() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return {"x": np.float32(1) + np.float32(1e-7) * noise}


def test_what_is_chosen_among_ties_is_no_fault_of_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    coupling = couple(ranked_places(), {}, None)
    keep = random_keep(coupling, 0)
    worst, allowed = masked_error(coupling, keep, all_but_tied(), ENGINE)
    assert worst <= allowed
    monkeypatch.setattr("onnxprune.verify.checks.choosing", lambda *_: ())
    worst, allowed = masked_error(coupling, keep, all_but_tied(), ENGINE)
    assert worst > allowed, "the places differ by rounding alone"


@pytest.mark.parametrize("node", ["score", "box"])
def test_a_wrong_cut_fails_whatever_is_chosen(node: str) -> None:
    coupling = couple(ranked_places(), {}, None)
    keep = random_keep(coupling, 0)
    worst, allowed = masked_error(crossed(coupling, node, 1), keep, all_but_tied(), ENGINE)
    assert worst > allowed


#: Activation -> (attributes, the largest input at which the output is next to zero).
VANISHING_AT: dict[str, tuple[dict[str, float], float]] = {
    "Sigmoid": ({}, -15.0),
    "HardSigmoid": ({"alpha": 0.2, "beta": 0.5}, -2.5 + 1e-6),
    "Relu": ({}, 1e-6),
    "Clip": ({}, 1e-6),
}


def nothing_found(activation: str, move: str, lowered: float) -> onnx.ModelProto:
    """A map behind ``activation``, whose inputs are ``lowered``; without one, those inputs."""
    g = Sketch()
    y = g.conv(g.op("Relu", g.conv(g.input("x", [2, 3, 8, 8]), 3, 16, 3, name="first")), 16, 6, 3, name="second")
    y = g.op("Sub", y, g.array(lowered, np.float32))
    if activation:
        bounds = [g.array(0.0, np.float32), g.array(1.0, np.float32)] if activation == "Clip" else []
        y = g.op(activation, y, *bounds, attrs=VANISHING_AT[activation][0])
    if move == "Concat":
        # Boxes in pixels beside scores.
        boxes = g.op("Mul", g.conv(g.nodes[0].input[0], 3, 4, name="boxes"), g.array(640.0, np.float32))
        g.output(g.op("Concat", boxes, y, attrs={"axis": 1}), [2, 10, 8, 8])
    elif move == "Transpose":
        g.output(g.op("Transpose", y, attrs={"perm": [0, 2, 3, 1]}), [2, 8, 8, 6])
    else:
        g.output(y, [2, 6, 8, 8])
    return g.model()


@pytest.mark.parametrize("below", [0.0, 1.0])
@pytest.mark.parametrize("move", ["", "Transpose", "Concat"])
@pytest.mark.parametrize("activation", VANISHING_AT)
def test_an_output_that_vanishes_is_compared_before_its_activation(
    monkeypatch: pytest.MonkeyPatch, activation: str, move: str, below: float
) -> None:
    """Outputs of 1e-7 differ by a tenth from rounding alone, and outputs of 0 do not differ if the cut is wrong."""
    assert set(VANISHING_AT) == VANISHING
    attributes, edge = VANISHING_AT[activation]
    plain = couple(nothing_found("", "", 0.0), {}, None)
    feeds = plausible_feeds(plain.graph, {"x": (2, 3, 8, 8)})
    keep = random_keep(plain, 0)
    models = (mask(plain, keep), mask(crossed(plain, "second", 1), keep), plain.graph.model)
    highest = max(float(run(open_session(model, ENGINE), feeds)[0].max()) for model in models)
    coupling = couple(nothing_found(activation, move, highest - edge + below), {}, None)
    worst, allowed = masked_error(coupling, keep, feeds, ENGINE)
    assert worst <= allowed == 1e-4
    wrong = crossed(coupling, "second", 1)
    assert masked_error(wrong, keep, feeds, ENGINE)[0] > allowed
    if move == "Concat" or (below and activation != "Sigmoid"):
        monkeypatch.setattr("onnxprune.verify.checks.ending", lambda *_: ())
        assert masked_error(wrong, keep, feeds, ENGINE)[0] <= allowed, "there is nothing to see"


def test_nothing_cut_is_equivalent_without_a_run() -> None:
    coupling = couple(small_net(), {}, None)
    keep = np.ones(coupling.unit_count, dtype=np.bool_)
    assert masked_error(coupling, keep, {}, ENGINE) == (0.0, 1e-4)


def test_complaints_that_the_original_has_too_are_not_held_against_the_result() -> None:
    coupling = couple(small_net(), {}, None)
    keep = random_keep(coupling, 0)
    model = pruned(coupling, keep)
    # Stale shapes are an old sin of exporters; only the full check sees them.
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, [1, 2, 3]))
    feeds = plausible_feeds(coupling.graph, {"x": (1, 3, 8, 8)})
    strict, lenient = (verify(coupling, keep, model, said, feeds, ENGINE) for said in ((), ("stale shapes",)))
    assert not strict.checker
    assert lenient.checker


def test_the_signature_is_names_types_and_shapes() -> None:
    model = small_net()
    assert interface(model) == [("in", "x", 1, ("n", 3, 8, 8)), ("out", model.graph.output[0].name, 1, ("n", 10))]
    # What has a default need not be fed.
    model.graph.input.append(onnx.helper.make_tensor_value_info(model.graph.initializer[0].name, 1, None))
    assert len(interface(model)) == 2


# -- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [wrong_width, not_a_number, renamed_output])
def test_what_fails_is_not_written(
    damage: Callable[[onnx.ModelProto], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from onnxprune.pipeline import verified

    original, data = small_net(), correlated((24, 3, 8, 8), rank=2)
    sound = verified.verify

    def after_damage(coupling: Coupling, keep: np.ndarray, model: onnx.ModelProto, *rest: object) -> Verification:
        damage(model)
        return sound(coupling, keep, model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verified, "verify", after_damage)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VerificationError, match="was not written"):
        onnxprune.prune(original, data, macs=0.6)
    onnx.save(original, "net.onnx")
    np.save("data.npy", data)
    before = sorted(os.listdir())
    line = "net.onnx --data data.npy --macs 0.6 -q --plan p.json --report r.html --json"
    assert main(line.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "failed verification" in err
    assert sorted(os.listdir()) == before
