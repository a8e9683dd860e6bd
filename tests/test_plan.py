"""The plan as an interface: its schema, its replay, and its way back to a checkpoint."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import onnx
import pytest
from graphs import Sketch, random_keep
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnxprune
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.errors import PlanError
from onnxprune.plan import Cut, Plan, TensorCut, fingerprint, from_ranges, to_ranges
from onnxprune.surgery.checkpoint import tensor_cuts

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads(files("onnxprune").joinpath("plan.schema.json").read_text(encoding="utf-8"))


def network() -> onnx.ModelProto:
    """Convolutions with and without a group, a normalization, a residual Add, a flattened classifier."""
    sketch = Sketch()
    x = sketch.norm(sketch.conv(sketch.input("x", [2, 3, 4, 4]), 3, 8, 3, name="stem"), 8)
    x = sketch.op("Relu", x)
    inner = sketch.conv(sketch.conv(x, 8, 12, name="widen"), 12, 12, 3, group=12, name="depthwise")
    x = sketch.op("Add", x, sketch.conv(inner, 12, 8, name="narrow"))
    flat = sketch.op("Flatten", x)
    sketch.output(sketch.op("Gemm", flat, sketch.weight(8 * 16, 5, name="fc")), [2, 5])
    return sketch.model()


def plan_of(model: onnx.ModelProto, coupling: Coupling, keep: np.ndarray) -> Plan:
    cuts = [
        Cut(g.name, len(g), tuple(np.flatnonzero(keep[g.units]).tolist()))
        for g in coupling.groups
        if not keep[g.units].all()
    ]
    return Plan(fingerprint(model), tuple(cuts), tensor_cuts(coupling, keep))


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module", params=range(4))
def case(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, Plan]:
    model = network()
    coupling = couple(model, {}, None)
    return model, plan_of(model, coupling, random_keep(coupling, request.param))


def test_every_plan_is_valid_and_reads_back(case: tuple[onnx.ModelProto, Plan]) -> None:
    _, plan = case
    text = plan.to_json()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(text), SCHEMA)
    assert Plan.from_json(text) == plan


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(onnxprune_plan=2),
        lambda d: d.pop("model"),
        lambda d: d["groups"][0].update(kept=[]),
        lambda d: d["groups"][0].update(kept=["1"]),
        lambda d: d["groups"][0].pop("before"),
        lambda d: d["tensors"][0]["kept"].update({"0": "a-b"}),
        lambda d: d["tensors"][0].pop("shape"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses(case: tuple[onnx.ModelProto, Plan], spoil) -> None:
    document = json.loads(case[1].to_json())
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(document))


def test_a_checkpoint_is_cut_like_the_model(case: tuple[onnx.ModelProto, Plan]) -> None:
    model, plan = case
    cut = weights(onnxprune.apply(model, plan))
    state = weights(model)
    for one in (plan, Plan.from_json(plan.to_json())):
        sliced = onnxprune.torch_plan(one, state)
        assert list(sliced) == list(state)
        for name, array in sliced.items():
            np.testing.assert_array_equal(array, cut[name], err_msg=name)
    assert any(sliced[name].shape != state[name].shape for name in state)


def test_a_plan_by_hand_needs_the_model_and_a_prefix_is_understood(case: tuple[onnx.ModelProto, Plan]) -> None:
    model, plan = case
    state = weights(model)
    bare = replace(plan, tensors=())
    with pytest.raises(PlanError, match="lists no tensors"):
        onnxprune.torch_plan(bare, state)
    told = onnxprune.torch_plan(bare, {f"module.{name}": array for name, array in state.items()}, model)
    for name, array in onnxprune.torch_plan(plan, state).items():
        np.testing.assert_array_equal(told[f"module.{name}"], array)


def test_names_shapes_and_models_that_do_not_match_are_named(case: tuple[onnx.ModelProto, Plan]) -> None:
    model, plan = case
    state = weights(model)
    first = plan.tensors[-1].name
    with pytest.raises(PlanError, match=f"'{first}', which the checkpoint does not have"):
        onnxprune.torch_plan(plan, {name: a for name, a in state.items() if name != first})
    with pytest.raises(PlanError, match=f"'{first}' has shape"):
        onnxprune.torch_plan(plan, {**state, first: state[first][..., None]})
    with pytest.raises(PlanError, match="another model"):
        onnxprune.torch_plan(replace(plan, model="0" * 32), state, model)
    length = plan.tensors[0].shape[0]
    with pytest.raises(PlanError, match="folded"):
        onnxprune.torch_plan(plan, {**state, "bn1.running_mean": np.zeros(length, dtype=np.float32)})
    with pytest.raises(PlanError, match="different parts"):
        onnxprune.torch_plan(replace(plan, tensors=(*plan.tensors, plan.tensors[0])), state)


def test_vectors_that_the_exporter_merged_are_cut_like_their_module(case: tuple[onnx.ModelProto, Plan]) -> None:
    _, plan = case
    vector = next(cut for cut in plan.tensors if len(cut.shape) == 1)
    kernel = next(cut for cut in plan.tensors if len(cut.shape) == 4 and 0 in cut.kept)
    named = replace(
        plan, tensors=(replace(vector, name="norm.weight"), replace(kernel, name="conv.weight")), model=plan.model
    )
    state = {
        "norm.weight": np.ones(vector.shape),
        "norm.bias": np.arange(vector.shape[0]),
        "conv.weight": np.ones(kernel.shape),
        "other.bias": np.ones(vector.shape),
    }
    sliced = onnxprune.torch_plan(named, state)
    np.testing.assert_array_equal(sliced["norm.bias"], vector.kept[0])
    assert sliced["other.bias"].shape == vector.shape
    with pytest.raises(PlanError, match=r"'conv\.bias' may need a cut"):
        onnxprune.torch_plan(named, {**state, "conv.bias": np.ones(kernel.shape[0])})


@pytest.mark.parametrize("stated", [True, False])
def test_a_plan_lists_tensors_by_the_names_of_the_framework(stated: bool) -> None:
    """Those of initializers, also behind a Transpose, and of the Identity that keeps a merged one's name; no others."""
    s = Sketch()
    scale, weight = s.weight(12, name="one.scale"), s.weight(12, 5, name="one.weight")
    x = s.op("MatMul", s.input("x", [2, 5]), s.op("Transpose", weight, attrs={"perm": [1, 0]} if stated else {}))
    x = s.op("MatMul", s.op("Relu", s.op("Mul", x, scale)), s.weight(12, 8, name="two.weight"))
    offset = s.op("Constant", attrs={"value": numpy_helper.from_array(np.arange(8, dtype=np.float32))})
    x = s.op("Mul", s.op("Relu", s.op("Add", x, offset)), s.op("Identity", s.weight(8, name="merged")))
    s.output(s.op("MatMul", x, s.weight(8, 4, name="head")), [2, 4])
    coupling = couple(s.model(), {}, None)
    keep = np.arange(coupling.unit_count) % 3 > 0
    cuts = {cut.name: cut for cut in tensor_cuts(coupling, keep)}
    identity = next(node.outputs[0] for node in coupling.graph.nodes if node.op == "Identity")
    assert cuts.keys() == {"one.scale", "one.weight", "two.weight", "head", identity}
    wide, narrow = cuts["one.scale"].kept[0], cuts["head"].kept[0]
    assert {len(wide), len(narrow)} == {8, 5}
    assert cuts["one.weight"] == TensorCut("one.weight", (12, 5), {0: wide})
    assert cuts["two.weight"].kept == {0: wide, 1: narrow} and cuts[identity].kept == {0: narrow}


def test_a_weight_behind_transposes_is_cut_in_its_own_layout() -> None:
    """Three axes and two Transposes, none of which undoes the other."""
    s = Sketch()
    weight = s.weight(6, 4, 5, name="w")
    first = s.op("Transpose", weight, attrs={"perm": [2, 0, 1]})
    second = s.op("Transpose", first, attrs={"perm": [0, 2, 1]})
    x = s.op("Relu", s.op("MatMul", s.input("x", [5, 2, 4]), second))
    x = s.op("MatMul", x, s.weight(6, 3, name="head"))
    s.output(x, [5, 2, 3])
    coupling = couple(s.model(), {}, None)
    keep = np.arange(coupling.unit_count) % 3 > 0
    cuts = {cut.name: cut for cut in tensor_cuts(coupling, keep)}
    assert cuts["w"] == TensorCut("w", (6, 4, 5), {0: cuts["head"].kept[0]})


@pytest.mark.parametrize("prefix", ["", "module.", "net.model."])
def test_a_normalization_that_was_folded_is_seen_whatever_precedes_its_name(prefix: str) -> None:
    plan = Plan("", (), (TensorCut("conv.weight", (8, 3, 1, 1), {0: (0, 2)}),))
    state = {f"{prefix}conv.weight": np.ones((8, 3, 1, 1)), f"{prefix}bn.running_mean": np.ones(8)}
    with pytest.raises(PlanError, match=f"'{prefix}bn.running_mean', but the plan cuts no BatchNormalization"):
        onnxprune.torch_plan(plan, state)
    other = {**state, f"{prefix}bn.running_mean": np.ones(9)}
    assert onnxprune.torch_plan(plan, other)[f"{prefix}conv.weight"].shape == (2, 3, 1, 1)
    both = replace(plan, tensors=(*plan.tensors, TensorCut("bn.running_mean", (8,), {0: (0, 2)})))
    assert onnxprune.torch_plan(both, state)[f"{prefix}bn.running_mean"].shape == (2,)


def test_a_vector_is_cut_with_its_module_only_where_lengths_agree() -> None:
    """Not one of another length, of another axis, of two axes, or of a module of its own."""
    vector, across = TensorCut("a.weight", (6,), {0: (1, 4)}), TensorCut("b.weight", (6, 6), {1: (0, 1, 2)})
    state = {"a.weight": np.arange(6), "a.bias": np.arange(6), "a.more": np.arange(5), "a.wide": np.ones((6, 2))}
    state |= {"b.weight": np.ones((6, 6)), "b.bias": np.arange(6), "bias": np.arange(6)}
    sliced = onnxprune.torch_plan(Plan("", (), (vector, across)), state)
    changed = {name: array.shape for name, array in sliced.items() if array.shape != state[name].shape}
    assert changed == {"a.weight": (2,), "a.bias": (2,), "b.weight": (6, 3)}
    assert sliced["a.bias"].tolist() == [1, 4]


@pytest.mark.parametrize(("count", "listed"), [(5, r"'w3', 'w4', "), (6, r"'w3', 'w4' and 1 more, "), (9, "'w4' and 4 more, ")])
def test_a_list_of_names_stays_short(count: int, listed: str) -> None:
    cuts = tuple(TensorCut(f"w{k}", (4,), {0: (0,)}) for k in range(count))
    with pytest.raises(PlanError, match=f"{listed}which the checkpoint does not have .it has 'x'.;"):
        onnxprune.torch_plan(Plan("", (), cuts), {"x": np.ones(4)})


@pytest.mark.parametrize("kept", [(0,), (0, 1, 2), (3, 5, 6, 9), (0, 2, 4)])
def test_ranges_read_back(kept: tuple[int, ...]) -> None:
    assert from_ranges(to_ranges(kept), 10) == kept


def test_ranges_are_short() -> None:
    assert to_ranges((0, 1, 2, 3, 7, 9, 10)) == "0-3,7,9-10"


# -- the schema decides ------------------------------------------------------------------------------------------------

#: What a field of a plan may be mistaken for.
_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([0.0, 1.0, 0.5, 1.9, 1e300, 2**70, "", "0", "0123", "0-3", "3-0", "a", "٣", "0-1\n"]),
    st.lists(st.sampled_from([0, 1, 1.0, 2, True, False, 0.5, "1", None, -1]), max_size=4),
    st.dictionaries(
        st.sampled_from(["0", "1", "-1", "x", "name"]), st.sampled_from(["0-1", "1", "0,0", 1, ""]), max_size=2
    ),
)


@st.composite
def _plans(draw: st.DrawFn) -> object:
    """A sound plan in which a few places were replaced, removed or repeated."""
    document: dict[str, object] = {
        "onnxprune_plan": 1,
        "model": "0123456789abcdef" * 2,
        "groups": [{"name": "a", "before": 4, "kept": [0, 2]}, {"name": "b", "before": 8, "kept": [1, 2, 3]}],
        "tensors": [{"name": "w", "shape": [4, 3], "kept": {"0": "0,2", "1": "0-1"}}],
        "rules": "exact",
    }
    for _ in range(draw(st.integers(0, 2))):
        place: object = document
        while True:
            keys = (
                list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
            )
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]  # type: ignore[index]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                place = inner
                continue
            what = draw(st.sampled_from(["replace", "remove", "repeat"]))
            if what == "replace":
                place[key] = draw(_ODD)  # type: ignore[index]
            elif what == "remove":
                del place[key]  # type: ignore[attr-defined]
            elif isinstance(place, list):
                place.append(inner)
            else:
                place[f"{key}x"] = inner  # type: ignore[index]
            break
    return document


def _sensible(document: dict) -> bool:
    """What no schema says: indices ascend within their axis, and no group is listed twice."""

    def ascend(kept: list[int], size: int) -> bool:
        return all(a < b for a, b in itertools.pairwise([-1, *kept, size]))

    def expanded(text: str) -> list[int]:
        ends = [(int(a), int(b or a)) for a, _, b in (part.partition("-") for part in text.split(","))]
        return [k for a, b in ends for k in (range(a, b + 1) if a <= b else [b, a])]

    groups = document["groups"]
    return (
        all(ascend(g["kept"], g["before"]) for g in groups)
        and len({g["name"] for g in groups}) == len(groups)
        and all(
            int(axis) < len(t["shape"]) and ascend(expanded(text), t["shape"][int(axis)])
            for t in document.get("tensors", ())
            for axis, text in t["kept"].items()
        )
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_plans())
def test_reader_and_schema_agree(document: dict) -> None:
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(document)
    wanted = valid and _sensible(document)
    try:
        plan = Plan.from_json(json.dumps(document))
    except PlanError as error:
        assert not wanted, error
        assert "\n" not in str(error).replace("0-1\n", "")
    else:
        assert wanted
        assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"onnxprune_plan": 1, "model": "", "groups": [{"name": "a", "before": 1e999}]}', "schema"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
        ("\ufeff{}", "not JSON"),
        ("", "not JSON"),
        ('{"onnxprune_plan": true}', "follow its schema|not a plan of version"),
    ],
)
def test_texts_that_are_no_plans(text: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Plan.from_json(text)


@pytest.mark.parametrize("ranges", ["0-99999999999", "9" * 4000, "0-" + "9" * 4000, "0-16777217", "2-1", "0,0"])
def test_ranges_beyond_the_axis_are_never_written_out(case: tuple[onnx.ModelProto, Plan], ranges: str) -> None:
    document = json.loads(case[1].to_json())
    document["tensors"][0].update(shape=[10**12], kept={"0": ranges})
    with pytest.raises(PlanError, match="axis 0: "):
        Plan.from_json(json.dumps(document))


def test_every_word_of_the_schema_is_known() -> None:
    """A word that the reader does not know would be a rule that it does not follow."""
    from onnxprune.json_file import _NOTES, _RULES

    def words(schema: object) -> set[str]:
        if not isinstance(schema, dict):
            return set()
        found = set(schema)
        for key in ("items", "propertyNames", "additionalProperties"):
            found |= words(schema.get(key))
        return found.union(*(words(part) for part in schema.get("properties", {}).values()))

    assert words(SCHEMA) <= set(_RULES) | _NOTES
