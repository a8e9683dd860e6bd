"""What an edit does not name is the same bytes: a law over models and edits, and over whole cuts."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, MutableSequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, random_keep, run
from odd_models import UNKNOWN, branches, every_type, everything, loop
from onnx import TensorProto, numpy_helper
from random_graphs import random_model

from onnxprune.coupling.open import couple
from onnxprune.graph.edit import Editor, forget_notes
from onnxprune.graph.tensors import DATA_FIELDS, copied
from onnxprune.graph.view import Graph, view
from onnxprune.surgery.constants import with_constants
from onnxprune.surgery.cut import constant_of, cut, laid_along, mask, masked_constants
from onnxprune.surgery.edit import give_constants, insert_select
from onnxprune.surgery.sweep import sweep

Model = onnx.ModelProto
#: (place, edit, what both models lose before they are compared: all that the edit names)
Edit = tuple[str, Callable[[Editor], None], Callable[[Model], None]]


def random_noted() -> Model:
    return onnx.shape_inference.infer_shapes(random_model(4))


MODELS = [everything, branches, loop, every_type, random_noted]


def as_bytes(model: Model) -> bytes:
    return model.SerializeToString(deterministic=True)


def stored_tensor(graph: Graph, value: str) -> onnx.TensorProto:
    if value in graph.initializers:
        return graph.initializers[value]
    return graph.nodes[graph.producer[value]].proto.attribute[0].t


def without_data(tensor: onnx.TensorProto) -> None:
    for field in DATA_FIELDS:
        tensor.ClearField(field)


def without_sizes(value: str, model: Model) -> None:
    for body in view(model).bodies:
        for info in (*body.proto.input, *body.proto.output, *body.proto.value_info):
            if body.scope + info.name == value:
                for dim in info.type.tensor_type.shape.dim:
                    dim.ClearField("dim_value")


def other(array: np.ndarray) -> np.ndarray:
    """Half of the numbers of an array, in another order: of the same type and rank, of another shape and content."""
    return np.flip(array)[: max(len(array) // 2, 1)].copy() if array.ndim else array + array.dtype.type(1)


def numbers(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    """The constants that an edit can store anew: initializers in the model, and Constant nodes with a tensor."""
    for value in graph.constants:
        producer = graph.producer.get(value)
        if producer is None or graph.nodes[producer].attribute("value") is not None:
            if stored_tensor(graph, value).data_location != onnx.TensorProto.EXTERNAL:
                yield value, graph.constants[value]


def without(items: MutableSequence[Any], names: Container[str]) -> None:
    """Remove, in place, what has one of these names."""
    for place in reversed([k for k, item in enumerate(items) if item.name in names]):
        del items[place]


def stores(graph: Graph) -> Iterator[Edit]:
    def edit(value: str, array: np.ndarray, editor: Editor) -> None:
        assert editor.store(value, other(array))

    def erase(value: str, model: Model) -> None:
        without_data(stored_tensor(view(model), value))
        without_sizes(value, model)

    for value, array in numbers(graph):
        yield f"store {value}", partial(edit, value, array), partial(erase, value)


def attributes(graph: Graph) -> Iterator[Edit]:
    def edit(index: int, name: str, value: int | float | tuple[int, ...] | None, editor: Editor) -> None:
        editor.attribute(editor.graph.nodes[index], name, value)

    def erase(index: int, name: str, gone: bool, model: Model) -> None:
        found = view(model).nodes[index].proto.attribute
        for attribute in found:
            if attribute.name == name:
                attribute.DiscardUnknownFields()
                for field in ("type", "i", "f", "ints", "floats"):
                    attribute.ClearField(field)
        if gone:
            without(found, {name})

    for node in graph.nodes:
        for name in [a.name for a in node.proto.attribute if a.name in ("axis", "axes", "flag", "none")]:
            for value in (7, (4, 5, 6), (), 0.5, None):
                erased = partial(erase, node.index, name, value is None)
                yield f"{node.label} {name} {value}", partial(edit, node.index, name, value), erased


def rewirings(graph: Graph) -> Iterator[Edit]:
    def edit(index: int, slot: int, editor: Editor) -> None:
        editor.rewire(editor.graph.nodes[index], slot, editor.add("brand_new", np.zeros(3, np.float32)))

    def erase(index: int, slot: int, gone: str | None, model: Model) -> None:
        seen = view(model)
        inputs = seen.nodes[index].proto.input
        inputs.extend([""] * (slot + 1 - len(inputs)))
        inputs[slot] = ""
        for body in seen.bodies:
            own = gone is not None and gone.startswith(body.scope)
            names = {"brand_new", gone.removeprefix(body.scope) if gone is not None and own else ""}
            without(body.proto.initializer, names)
            without(body.proto.input, names)
            forget_notes(body.proto, names)

    kept = {value for body in graph.bodies for value in body.outputs}
    for node in graph.nodes:
        for slot in range(len(node.inputs) + 1):
            value = node.inputs[slot] if slot < len(node.inputs) else None
            # An initializer that nothing else reads goes, and what is said of it.
            alone = value in graph.initializers and value not in kept and len(graph.consumers[value]) == 1
            erased = partial(erase, node.index, slot, value if alone else None)
            yield f"{node.label} input {slot}", partial(edit, node.index, slot), erased


def insertions(graph: Graph) -> Iterator[Edit]:
    def edit(index: int, editor: Editor) -> None:
        target = editor.graph.nodes[index]
        for op in ("Mul", "Neg"):
            editor.insert(target, op, (editor.input(target, 0), "shared"), f"{op}_out")
            editor.rewire(target, 0, f"{op}_out")

    def erase(index: int, name: str, model: Model) -> None:
        for body in view(model).bodies:
            added = [node.op_type for node in body.proto.node if node.name in ("Mul_mask", "Neg_mask")]
            assert added in ([], ["Mul", "Neg"])
            without(body.proto.node, ("Mul_mask", "Neg_mask"))
        view(model).nodes[index].proto.input[0] = name

    for node in graph.nodes:
        if node.inputs:
            yield (
                f"in front of {node.label}",
                partial(edit, node.index),
                partial(erase, node.index, node.proto.input[0]),
            )


def restatements(graph: Graph) -> Iterator[Edit]:
    def edit(value: str, editor: Editor) -> None:
        editor.restate(value, {0: 77, 1: 78, 9: 79})

    for value in graph.types:
        yield f"sizes of {value}", partial(edit, value), partial(without_sizes, value)


@pytest.mark.parametrize("kind", [stores, attributes, rewirings, insertions, restatements])
@pytest.mark.parametrize("build", MODELS)
def test_an_edit_changes_only_what_it_names(
    build: Callable[[], Model], kind: Callable[[Graph], Iterator[Edit]]
) -> None:
    model = build()
    before = as_bytes(model)
    changed = total = 0
    for place, edit, erase in kind(view(model)):
        editor = Editor(view(model))
        edit(editor)
        got, want = editor.finish(), copied(model)
        assert as_bytes(model) == before, f"{place}: the original is changed"
        changed, total = changed + (as_bytes(got) != before), total + 1
        erase(got)
        erase(want)
        assert as_bytes(got) == as_bytes(want), place
    # Some edits ask for what is so: an array of one number reversed, sizes of a value that states none.
    assert changed == total or (kind in (stores, attributes, restatements) and changed >= total / 2)


@pytest.mark.parametrize("build", MODELS)
def test_what_is_stored_is_what_was_given(build: Callable[[], Model]) -> None:
    graph = view(build())
    for value, array in numbers(graph):
        editor = Editor(graph)
        assert editor.store(value, other(array))
        found = view(editor.finish()).constants[value]
        assert found.dtype == array.dtype
        assert found.tobytes() == other(array).tobytes()


@pytest.mark.parametrize("build", MODELS)
def test_constants_get_other_numbers_of_their_own_shape_and_type(build: Callable[[], Model]) -> None:
    model = build()
    graph = view(model)
    turned = {value: np.flip(array) for value, array in numbers(graph) if array.dtype.kind == "f"}
    assert turned
    found = view(with_constants(model, {value: array.astype(np.float64) for value, array in turned.items()}))
    for value, array in numbers(graph):
        wanted = turned.get(value, array)
        assert found.constants[value].dtype == array.dtype
        assert found.constants[value].tobytes() == wanted.tobytes()
    for value, array in turned.items():
        with pytest.raises(ValueError, match="has shape"):
            with_constants(model, {value: array[None]})
    with pytest.raises(KeyError):
        with_constants(model, {"no such value": np.zeros(1)})


def test_sizes_change_and_meanings_stay() -> None:
    editor = Editor(view(everything()))
    editor.restate("x", {0: 5, 1: 3})
    editor.attribute(editor.graph.nodes[4], "flag", 0.5)
    editor.attribute(editor.graph.nodes[4], "none", None)
    found = editor.finish()
    dims = found.graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[0].denotation, dims[1].dim_value) == ("batch", "DATA_BATCH", 3)
    named = {a.name: a for a in found.graph.node[4].attribute}
    assert (named["flag"].f, named["flag"].doc_string) == (0.5, "a flag")
    assert "none" not in named and "nothing" in named


def test_a_constant_that_branches_share_is_stored_where_both_see_it() -> None:
    graph = view(branches())
    editor = Editor(graph)
    name = editor.add("own", np.ones((4, 4), np.float32))
    assert name != "own", "a name that a branch has is taken"
    for node in graph.nodes:
        if node.op == "MatMul" and node.scope:
            editor.rewire(node, 1, name)
    found = editor.finish()
    assert [t.name for t in found.graph.initializer] == ["outer", "shadowed", name]
    last, then = (a.g for a in found.graph.node[0].attribute)
    assert [t.name for t in then.initializer] == ["idle", "shadowed"]
    assert not last.initializer


@pytest.mark.parametrize("source", ["constant", "copy"])
@pytest.mark.parametrize("wanted", ["equal", "different", "of different sizes", "for one reader"])
def test_what_reads_the_size_of_a_constant_reads_that_of_the_new_one(source: str, wanted: str) -> None:
    """If all readers of the numbers get other numbers of one size.  Otherwise the old constant stays, and its size."""
    s = Sketch()
    stored = s.weight(4, 6, name="stored")
    read = s.op("Identity", stored) if source == "copy" else stored
    x = s.input("x", [1, 4])
    for number, value in enumerate((stored, read)):
        s.op("Transpose", value, name=f"reader{number}")
        s.nodes[-1].output[0] = s.output(f"y{number}", [None, None])
    s.nodes += [onnx.helper.make_node("Shape", [read], [s.output("size", [2], TensorProto.INT64)], name="size")]
    s.nodes += [onnx.helper.make_node("Identity", [x], [s.output("z", [1, 4])])]
    graph = view(s.model())
    uses = [(node.index, 0) for node in graph.nodes if node.op == "Transpose"]
    first = np.arange(12, dtype=np.float32).reshape(4, 3)
    second = {"equal": first, "different": first + 1, "of different sizes": first[:2], "for one reader": first}[wanted]
    values = dict(zip(uses, (first, second), strict=wanted != "for one reader"))
    if wanted == "for one reader":
        del values[uses[1]]
    editor = Editor(graph)
    give_constants(editor, values)
    found = run(editor.finish(), {"x": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(found[0], first.T)
    if wanted != "for one reader":
        np.testing.assert_array_equal(found[1], second.T)
    assert found[2].tolist() == ([4, 3] if wanted in ("equal", "different") else [4, 6])


@pytest.mark.parametrize("exposed", [False, True], ids=["hidden", "an output"])
@pytest.mark.parametrize("left", [False, True], ids=["all readers", "one reader stays"])
@pytest.mark.parametrize("alike", [False, True], ids=["different", "equal"])
def test_a_cast_gets_other_halves_only_if_nothing_else_needs_the_old(exposed: bool, left: bool, alike: bool) -> None:
    s = Sketch()
    half = s.keep("half", np.arange(1, 5, dtype=np.float16))
    x = s.input("x", [4])
    casts = [s.op("Cast", half, attrs={"to": TensorProto.FLOAT}, name=f"cast{k}") for k in range(2)]
    for k, cast in enumerate((casts[0], casts[0], casts[1])):
        s.nodes += [onnx.helper.make_node("Mul", [x, cast], [s.output(f"y{k}", [4])])]
    if exposed:
        s.output(casts[0], [4])
    graph = view(s.model())
    old, one = np.arange(1, 5, dtype=np.float32), np.full(4, 8, np.float32)
    wanted = [one, old if left else one if alike else one + 1, one + 2]
    uses = [(node.index, 1) for node in graph.nodes if node.op == "Mul"]
    editor = Editor(graph)
    values = dict(zip(uses, wanted, strict=True))
    if left:
        del values[uses[1]]
    give_constants(editor, values)
    small = editor.finish()
    found = run(small, {"x": np.ones(4, np.float32)})
    for array, number in zip(wanted, found, strict=False):
        np.testing.assert_array_equal(number, array)
    if exposed:
        np.testing.assert_array_equal(found[3], old)
    changed = [node.name for node in small.graph.node if node.op_type == "Cast" and node.input[0] != half]
    assert changed == [name for name in ("cast0", "cast1") if name == "cast1" or (alike and not left and not exposed)]


def decorated(model: Model, names: set[str]) -> Model:
    """The model with notes on all that ``names`` says, and with parts that no cut has to do with."""
    found = copied(model)
    odd = everything()
    found.functions.extend(odd.functions)
    found.training_info.extend(odd.training_info)
    found.metadata_props.extend(odd.metadata_props)
    found.graph.sparse_initializer.extend(odd.graph.sparse_initializer)
    for part in (found, found.graph):
        part.MergeFromString(UNKNOWN)
    known = {t.name for t in found.graph.initializer} | {o for node in found.graph.node for o in node.output}
    for name in sorted(known & names):
        found.graph.quantization_annotation.add(tensor_name=name).quant_parameter_tensor_names.add(key="k", value=name)
    for body in view(found).bodies:
        for tensor in body.proto.initializer:
            if tensor.name in names:
                tensor.doc_string = f"about {tensor.name}"
                tensor.MergeFromString(UNKNOWN)
        for node in body.proto.node:
            if names.issuperset(node.output):
                node.doc_string = f"about {node.output[0]}"
                node.MergeFromString(UNKNOWN)
    return found


@pytest.mark.parametrize("seed", range(24))
def test_a_cut_of_a_noted_model_is_the_noted_cut(seed: int) -> None:
    coupling = couple(random_model(seed), {}, None)
    plain = coupling.graph.model
    graph = coupling.graph
    names = {*graph.initializers, *(o or "" for node in graph.nodes for o in node.outputs)}
    noted = decorated(plain, names)
    beside = replace(coupling, graph=view(noted))
    keep = random_keep(coupling, seed)
    small, little = cut(coupling, keep), cut(beside, keep)
    assert not coupling.groups or as_bytes(small) != as_bytes(plain)
    assert as_bytes(little) == as_bytes(decorated(small, names))
    assert as_bytes(mask(beside, keep)) == as_bytes(decorated(mask(coupling, keep), names))
    assert as_bytes(sweep(little, noted)) == as_bytes(decorated(sweep(small, plain), names))


@pytest.mark.parametrize("seed", range(12))
def test_a_mask_adds_nodes_unless_it_says_which_constants_are_all(seed: int) -> None:
    coupling = couple(random_model(seed), {}, None)
    keep = random_keep(coupling, seed)
    masked = mask(coupling, keep)
    found = masked_constants(coupling, keep)
    assert (found is None) == (len(view(masked).nodes) > len(coupling.graph.nodes))
    for use, array in (found or {}).items():
        np.testing.assert_array_equal(constant_of(couple(masked, {}, None), use), array)
    assert masked_constants(coupling, np.ones_like(keep)) == {}


def sizes(model: Model) -> dict[tuple[str, int], int]:
    """(value, axis) -> the size that the model states."""
    dims = {info.name: info.type.tensor_type.shape.dim for info in model.graph.value_info}
    return {(name, k): dim.dim_value for name, found in dims.items() for k, dim in enumerate(found) if dim.dim_value}


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_states_the_sizes_that_it_has(seed: int) -> None:
    """Those that inference finds where none are stated; where the model left one open, it stays open."""
    model = onnx.shape_inference.infer_shapes(random_model(seed), data_prop=True)
    coupling = couple(model, {}, None)
    keep = random_keep(coupling, seed)
    small = cut(coupling, keep)
    bare = copied(small)
    del bare.graph.value_info[:]
    stated, inferred = sizes(small), sizes(onnx.shape_inference.infer_shapes(bare, data_prop=True))
    assert stated.keys() <= sizes(model).keys()
    assert {place: size for place, size in stated.items() if inferred.get(place, size) != size} == {}
    assert keep.all() or any(sizes(model)[place] != size for place, size in stated.items())


def _dequantized(scale: np.ndarray, zero: np.ndarray | None, axis: int) -> Sketch:
    """Two layers; the first reads integers of six rows and four columns through a DequantizeLinear, which comes second."""
    s = Sketch()
    stored = np.random.default_rng(0).integers(-99, 99, (6, 4), dtype=np.int8)
    x = s.op("Relu", s.input("x", [2, 6]))
    points = [] if zero is None else [s.keep("zero", zero)]
    weight = s.op("DequantizeLinear", s.keep("stored", stored), s.keep("scale", scale), *points, attrs={"axis": axis})
    s.op("MatMul", s.op("Relu", s.op("MatMul", x, weight)), s.weight(4, 3))
    return s


@pytest.mark.parametrize("pointed", [True, False])
@pytest.mark.parametrize(("axis", "size"), [(0, 6), (1, 4), (-1, 4), (-2, 6), (1, None), (0, 1)])
def test_scales_and_zero_points_lie_along_the_integers_that_they_belong_to(
    axis: int, size: int | None, pointed: bool
) -> None:
    """Along one axis, or the same for all; and what a cut takes away then counts as the zero point."""
    draw, lines = np.random.default_rng(1), () if size is None else (size,)
    scale = draw.uniform(0.01, 0.1, lines).astype(np.float32)
    zero = draw.integers(-9, 9, lines).astype(np.int8) if pointed else None
    s = _dequantized(scale, zero, axis)
    made, last = s.nodes[1].output[0], s.nodes[-1].output[0]
    s.output(last, [2, 3])
    coupling = prove(s.model())
    step, point = (laid_along(coupling, (1, 0), slot) for slot in (1, 2))
    assert step is not None and (point is not None) == pointed
    assert laid_along(coupling, (1, 0), None) is None and laid_along(coupling, (1, 0), 0) is not None
    s.outputs.clear()
    s.output(made, [6, 4])
    [wanted] = run(s.model(), {"x": np.zeros((2, 6), np.float32)})
    integers = constant_of(coupling, (1, 0)).astype(np.float64)
    np.testing.assert_allclose((integers - (0 if point is None else point)) * step, wanted, rtol=1e-5)


@pytest.mark.parametrize("points", ["its own", "left out", "beyond its inputs", "none"])
def test_what_a_mask_takes_away_counts_as_zero(points: str) -> None:
    """For 8-bit numbers that is the zero point of the node that reads them, or 0 where it has none."""
    s = Sketch(opset=17)
    x, y = s.input("x", [2, 4], onnx.TensorProto.UINT8), s.input("y", [4, 3], onnx.TensorProto.UINT8)
    zero = s.array(7, np.uint8)
    inputs = {"its own": [x, y, zero], "left out": [x, y, "", s.array(3, np.uint8)]}.get(points, [x, y])
    s.output(s.op("MatMulInteger", *inputs), [2, 3], onnx.TensorProto.INT32)
    editor, stays = Editor(view(s.model())), np.array([[True, False, True, False]])
    insert_select(editor, editor.graph.nodes[0], 0, stays, np.zeros((), np.uint8), None if points == "none" else 2)
    rows, columns = np.arange(8, dtype=np.uint8).reshape(2, 4), np.arange(12, dtype=np.uint8).reshape(4, 3)
    first, second = (7, 0) if points == "its own" else (0, 3) if points == "left out" else (0, 0)
    # A node without a zero point reads zeros themselves.
    wanted = np.where(stays, rows.astype(np.int64) - first, 0) @ (columns.astype(np.int64) - second)
    [got] = run(editor.finish(), {"x": rows, "y": columns})
    np.testing.assert_array_equal(got, wanted)


def _dropouts(known: Container[str], exposed: Container[str]) -> Model:
    """Equal nodes, of which the last has another output; some are ``known``, and some give an output of the model."""
    nodes = [
        onnx.helper.make_node("Dropout", ["x"], [name, "m"] if name == "d" else [name])
        for name in "abcd"
        if name in known
    ]
    nodes.append(onnx.helper.make_node("Sum", ["x", *(name for name in "abcd" if name in known)], ["y"]))
    values = [
        onnx.helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y", *(n for n in "abcd" if n in exposed))
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:]))


@pytest.mark.parametrize("exposed", ["", "b", "bc", "ad"])
@pytest.mark.parametrize("known", ["", "a", "b", "c", "d", "ab", "bc", "bd", "abc", "abcd"])
def test_a_sweep_joins_what_is_new_with_the_first_that_is_equal(known: str, exposed: str) -> None:
    """The original's own equal nodes stay apart, and so do outputs of the model and nodes with other outputs."""
    swept = sweep(_dropouts("abcd", exposed), _dropouts(known, exposed)).graph
    stay = {"a", "d", *known, *exposed}
    assert [node.output[0] for node in swept.node] == [*sorted(stay), "y"]
    assert list(swept.node[-1].input) == ["x", *(name if name in stay else "a" for name in "abcd")]


def test_a_sweep_leaves_what_a_body_names_alike() -> None:
    original = loop()
    cut_loose = copied(original)
    cut_loose.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "lost"))
    cut_loose.graph.quantization_annotation.add(tensor_name="lost")
    body = cut_loose.graph.node[1].attribute[0].g
    body.input[0].name = "lost"
    want = copied(cut_loose)
    del want.graph.initializer[-1]
    del want.graph.quantization_annotation[:]
    assert as_bytes(sweep(cut_loose, original)) == as_bytes(want)


def test_a_sweep_reaches_into_bodies() -> None:
    """What a body no longer reads goes, with its makers; what it never read stays."""

    def within(weight: str) -> Model:
        nodes = [
            onnx.helper.make_node("Neg", ["old"], ["less"]),
            onnx.helper.make_node("Add", ["x", weight], ["then"]),
        ]
        stored = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in ("old", "new", "never")]
        value = onnx.helper.make_tensor_value_info("then", 1, [2])
        body = onnx.helper.make_graph(nodes, "body", [], [value], stored)
        inner = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        ends = [onnx.helper.make_tensor_value_info(*info) for info in (("c", 9, []), ("x", 1, [2]), ("y", 1, [2]))]
        graph = onnx.helper.make_graph([inner], "g", ends[:2], ends[2:])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)

    before, after = within("less"), within("new")
    for attribute in before.graph.node[0].attribute:
        # The original reads all but one.
        attribute.g.node.append(onnx.helper.make_node("Mul", ["then", "new"], ["more"]))
        attribute.g.output[0].name = "more"
    for attribute in sweep(after, before).graph.node[0].attribute:
        assert [node.op_type for node in attribute.g.node] == ["Add"]
        assert [tensor.name for tensor in attribute.g.initializer] == ["new", "never"]


def test_every_real_model_survives() -> None:
    folder = os.environ.get("ONNXPRUNE_ASSETS")
    if not folder:
        pytest.skip("ONNXPRUNE_ASSETS names no folder of models")
    paths = sorted(Path(folder).rglob("*.onnx"))
    assert paths
    for path in paths:
        model = onnx.load(path)
        assert as_bytes(Editor(view(model)).finish()) == as_bytes(model), path
