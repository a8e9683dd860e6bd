"""Patterns that exported architectures brought up, each as the smallest graph that has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, pruned, random_keep, reasons, run, table
from onnx import TensorProto

import onnxprune
from onnxprune.graph.load import load


def _grid(*lines: list[int]) -> np.ndarray:
    """Index tuples of every place of a grid, as exporters write the target of ``x[…] = y``."""
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).astype(np.int64)


@pytest.mark.parametrize(
    ("indices", "block"),
    [
        (_grid([0], list(range(8)), [0, 1], list(range(4))), (1, 8, 2, 4)),
        (_grid([0], list(range(8)), [-1], [3, 1, 2, 0]), (1, 8, 1, 4)),
        (_grid([0], list(range(8))), (1, 8, 4, 4)),
    ],
)
def test_a_block_pasted_at_a_constant_grid_leaves_its_channels_prunable(indices: np.ndarray, block: tuple) -> None:
    g = Sketch()
    x = g.input("x", [1, 3, 4, 4])
    whole = g.conv(x, 3, 8, 3, name="whole")
    part = g.op("Slice", g.conv(x, 3, 8, 3, name="part"), g.array([0, 0]), g.array(block[2:]), g.array([2, 3]))
    pasted = g.op("ScatterND", whole, g.keep("indices", indices), part)
    g.output(g.conv(g.op("Relu", pasted), 8, 5, name="last"), [1, 5, 4, 4])
    assert 8 in table(prove(g.model())).values()


def test_a_block_pasted_into_some_channels_cuts_those_with_it() -> None:
    g = Sketch()
    x = g.input("x", [1, 3, 4, 4])
    whole, part = g.conv(x, 3, 8, 3, name="whole"), g.conv(x, 3, 4, 3, name="part")
    indices = _grid([0], [1, 3, 5, 7])
    pasted = g.op("ScatterND", whole, g.keep("indices", indices), part)
    g.output(g.conv(pasted, 8, 5, name="last"), [1, 5, 4, 4])
    assert sorted(table(prove(g.model())).values()) == [4, 4]


def test_a_diagonal_of_indices_is_no_grid_and_stays() -> None:
    g = Sketch()
    x = g.input("x", [1, 3, 4, 4])
    whole, part = g.conv(x, 3, 4, 3, name="whole"), g.op("GlobalAveragePool", g.conv(x, 3, 4, 3, name="part"))
    indices = np.asarray([[[0, k, k]] for k in range(4)], np.int64).reshape(4, 3)
    rows = g.op("Expand", g.op("Reshape", part, g.array([4, 1])), g.array([4, 4]))
    g.output(g.conv(g.op("ScatterND", whole, g.keep("indices", indices), rows), 4, 5, name="last"), [1, 5, 4, 4])
    coupling = prove(g.model())
    assert not table(coupling) and "ScatterND" in reasons(coupling)


def test_made_up_data_suit_a_model_that_needs_long_inputs_and_a_certain_number() -> None:
    g = Sketch()
    wave, rate = g.input("wave", ["n", 1, "t"]), g.input("rate", [], TensorProto.INT64)
    frames = g.op("Conv", wave, g.weight(16, 1, 400), name="frames", attrs={"strides": [160]})
    hidden = g.op("Relu", g.op("Conv", g.op("Relu", frames), g.weight(12, 16, 1), name="hidden"))
    # Any other rate divides by zero.
    right = g.op("Cast", g.op("Equal", rate, g.array(16000)), attrs={"to": TensorProto.FLOAT})
    g.output(g.op("Div", g.op("Conv", hidden, g.weight(4, 12, 1), name="last"), right), ["n", 4, "u"])
    result = onnxprune.prune(g.model(), macs=0.6, samples=4, round_to=1, threads=1)
    assert result.report.verify.passed and result.report.macs.ratio <= 0.6


@pytest.mark.parametrize("copies", [1, 2])
def test_a_weight_shared_through_identity_is_cut_once_for_all_its_readers(copies: int) -> None:
    g = Sketch()
    weight, bias = g.weight(8, 3, 3, 3, name="weight"), g.weight(8, name="bias")
    ends = []
    for side in ("left", "right"):
        x = g.input(side, [1, 3, 6, 6])
        y = g.op("Conv", x, weight, bias, attrs={"pads": [1, 1, 1, 1]})
        ends.append(g.op("Relu", g.conv(g.op("Relu", y), 8, 4)))
        for _ in range(copies):
            weight, bias = g.op("Identity", weight), g.op("Identity", bias)
    g.output(g.op("Sub", *ends), [1, 4, 6, 6])
    model = g.model()
    coupling = prove(model)
    assert 8 in table(coupling).values()
    small = pruned(coupling, random_keep(coupling, 0))
    assert len(small.graph.initializer) == len(model.graph.initializer)


def test_a_bias_that_identity_copies_is_cut_for_each_reader_alone() -> None:
    g = Sketch()
    x, bias = g.input("x", [1, 3, 6, 6]), g.keep("bias", np.zeros(8, np.float32))
    y = g.conv(x, 3, 8, 3, bias=bias, name="first")
    z = g.conv(g.op("Relu", y), 8, 8, 3, bias=g.op("Identity", bias), name="second")
    g.output(g.conv(g.op("Relu", z), 8, 4), [1, 4, 6, 6])
    assert sorted(table(prove(g.model())).values()) == [8, 8]


def test_a_layer_with_whole_heads_in_its_batch_axis_is_refitted_at_the_heads_that_stay() -> None:
    g = Sketch()
    wide = g.conv(g.input("x", [1, 3, 6, 6]), 3, 32, 3, name="wide")
    heads = g.op("Reshape", wide, g.array([8, 4, 6, 6]))
    pooled = g.conv(g.op("Relu", heads), 4, 4, 3, group=4, name="pooled")
    joined = g.op("Reshape", g.op("Softmax", pooled, attrs={"axis": 1}), g.array([1, 32, 6, 6]))
    g.output(g.conv(joined, 32, 5, name="last"), [1, 5, 6, 6])
    model = g.model()
    assert table(prove(model)) == {"wide": 8}
    result = onnxprune.prune(model, macs=0.6, samples=8, round_to=1, threads=1)
    assert result.report.verify.passed and result.report.macs.ratio <= 0.6


def _grouped_attention(heads: int, shared: int, size: int, first: str, flat_input: bool) -> onnx.ModelProto:
    """Query heads in groups that share a key/value head; half of each head is turned, as rotary positions do.

    ``first``: which of queries and keys stand first in the file, "q" or "k".  A flat input goes apart into axes that both
    stay: a choice without anything to choose, before all others.
    """
    g, tokens, width = Sketch(), 6, 16
    x = g.input("x", [1, tokens * width] if flat_input else [1, tokens, width])
    x = g.op("Reshape", x, g.array([1, tokens, width])) if flat_input else x

    def split(name: str, count: int) -> str:
        y = g.op("MatMul", x, g.weight(width, count * size), name=name)
        return g.op("Transpose", g.op("Reshape", y, g.array([1, tokens, count, size])), attrs={"perm": [0, 2, 1, 3]})

    table = g.weight(tokens, size)

    def turn(y: str) -> str:
        a, b = g.split("Split", y, g.array([size // 2, size // 2]), outputs=2, attrs={"axis": -1})
        return g.op("Add", y, g.op("Mul", g.op("Concat", g.op("Neg", b), a, attrs={"axis": -1}), table))

    def repeat(y: str) -> str:
        wide = g.op("Expand", g.op("Unsqueeze", y, g.array([2])), g.array([1, shared, heads // shared, tokens, size]))
        return g.op("Reshape", wide, g.array([1, heads, tokens, size]))

    make = {"q": lambda: turn(split("q", heads)), "k": lambda: repeat(turn(split("k", shared)))}
    made = {name: make[name]() for name in sorted(make, key=lambda name: name != first)}
    q, k, v = made["q"], made["k"], repeat(split("v", shared))
    scores = g.op("MatMul", q, g.op("Transpose", k, attrs={"perm": [0, 1, 3, 2]}))
    seen = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores), v), attrs={"perm": [0, 2, 1, 3]})
    flat = g.op("Reshape", seen, g.array([1, tokens, heads * size]))
    g.output(g.op("MatMul", flat, g.weight(heads * size, 5), name="o"), [1, tokens, 5])
    return g.model()


@pytest.mark.parametrize(("heads", "shared", "size"), [(8, 2, 8), (16, 8, 4), (4, 4, 16), (6, 1, 8), (4, 2, 16)])
@pytest.mark.parametrize("first", ["q", "k"])
@pytest.mark.parametrize("flat_input", [False, True], ids=["", "flat input"])
def test_no_choice_between_heads_and_their_sizes_leaves_the_queries_whole(
    heads: int, shared: int, size: int, first: str, flat_input: bool
) -> None:
    coupling = prove(_grouped_attention(heads, shared, size, first, flat_input))
    uses = [key for group in coupling.groups for key, _ in group.axes if isinstance(key, tuple)]
    cut = {coupling.graph.nodes[index].label for index, _ in uses}
    assert {"q", "o"} <= cut


def _chunked(g: Sketch, x: str) -> list[str]:
    parts = g.op("SplitToSequence", x, g.array(4), attrs={"axis": 1})
    return [g.op("SequenceAt", parts, g.array(k)) for k in (1, 0)]


def _split_by_sizes(g: Sketch, x: str) -> list[str]:
    parts = g.op("SplitToSequence", x, g.array([3, 5]), attrs={"axis": 1})
    return [g.op("SequenceAt", parts, g.array(k)) for k in (0, -1)]


def _unbound(g: Sketch, x: str) -> list[str]:
    parts = g.op("SplitToSequence", g.op("Reshape", x, g.array([1, 2, 4, 6, 6])), attrs={"axis": 1, "keepdims": 0})
    return [g.op("SequenceAt", parts, g.array(k)) for k in (-1, 0)]


def _constructed(g: Sketch, x: str) -> list[str]:
    made = g.op("SequenceConstruct", x, g.op("Relu", x))
    return [g.op("SequenceAt", made, g.array(1)), g.op("ConcatFromSequence", made, attrs={"axis": 1})]


@pytest.mark.parametrize(
    ("take", "units"), [(_chunked, [4, 4]), (_split_by_sizes, [3, 5]), (_unbound, [4]), (_constructed, [8])]
)
def test_members_of_sequences_are_slices_of_what_was_split(
    take: Callable[[Sketch, str], list[str]], units: list[int]
) -> None:
    g = Sketch()
    whole = g.conv(g.input("x", [1, 3, 6, 6]), 3, 8, 3, name="whole")
    joined = g.op("Concat", *take(g, whole), attrs={"axis": 1})
    count = 24 if take is _constructed else 8
    g.output(g.conv(g.op("Relu", joined), count, 5, name="last"), [1, 5, 6, 6])
    model = g.model()
    loaded = load(model)
    assert not any("Sequence" in node.op_type for node in loaded.proto.graph.node) and loaded.repairs
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    assert np.array_equal(run(model, feeds)[0], run(loaded.proto, feeds)[0])
    assert sorted(table(prove(loaded.proto)).values()) == units


def test_members_that_only_a_run_can_pick_stay_in_their_sequence() -> None:
    g = Sketch()
    x, place = g.input("x", [1, 3, 6, 6]), g.input("place", [], TensorProto.INT64)
    parts = g.op("SplitToSequence", g.conv(x, 3, 8, 3, name="whole"), g.array(4), attrs={"axis": 1})
    g.output(g.conv(g.op("SequenceAt", parts, place), 4, 5, name="last"), [1, 5, 6, 6])
    model = g.model()
    assert load(model).proto is model
    coupling = prove(model)
    assert not table(coupling) and "sequence" in reasons(coupling)


def test_heads_leave_whole_where_their_reader_takes_blocks() -> None:
    """Positions inside heads would all be tied into one by blocks of a head's size, so heads are chosen everywhere."""
    g, heads, size = Sketch(domains={"com.microsoft": 1}), 4, 16
    x = g.input("x", [1, 6, 16])

    def split(name: str) -> str:
        y = g.op("MatMul", x, g.weight(16, heads * size), name=name)
        return g.op("Transpose", g.op("Reshape", y, g.array([1, 6, heads, size])), attrs={"perm": [0, 2, 1, 3]})

    q, k, v = (split(name) for name in "qkv")
    scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, attrs={"perm": [0, 1, 3, 2]})))
    seen = g.op("Transpose", g.op("MatMul", scores, v), attrs={"perm": [0, 2, 1, 3]})
    flat = g.op("Reshape", seen, g.array([1, 6, heads * size]))
    random = np.random.default_rng(0)
    blocks = g.keep("blocks", random.integers(0, 256, (5, heads, size // 2), dtype=np.uint8))
    scales = g.keep("scales", random.random(5 * heads, dtype=np.float32))
    attrs = {"K": heads * size, "N": 5, "bits": 4, "block_size": size}
    g.output(g.op("MatMulNBits", flat, blocks, scales, name="o", domain="com.microsoft", attrs=attrs), [1, 6, 5])
    coupling = prove(g.model())
    assert list(table(coupling).values()) == [heads]
    uses = {key for group in coupling.groups for key, _ in group.axes if isinstance(key, tuple)}
    assert {coupling.graph.nodes[index].label for index, _ in uses} >= {"q", "k", "v", "o"}


def test_states_that_carry_their_batch_on_axis_1_are_fed_and_pruned() -> None:
    g, width = Sketch(), 12
    x = g.op("Relu", g.op("MatMul", g.input("x", ["n", 5, 4]), g.weight(4, 32), name="enter"))
    state = g.input("state", [2, "n", width])
    steps, last = g.op("Transpose", x, attrs={"perm": [1, 0, 2]}), []
    for layer, size in enumerate((32, width)):
        before = g.op("Slice", state, g.array([layer]), g.array([layer + 1]), g.array([0]))
        weights = g.weight(1, 3 * width, size), g.weight(1, 3 * width, width), g.weight(1, 6 * width)
        made = g.split("GRU", steps, *weights, "", before, outputs=2, attrs={"hidden_size": width})
        steps = g.op("Squeeze", made[0], g.array([1]))
        last.append(made[1])
    g.output(g.op("MatMul", steps, g.weight(width, 3)), [5, "n", 3])
    g.output(g.op("Concat", *last, attrs={"axis": 0}), [2, "n", width])
    model = g.model()
    assert table(prove(model)) == {"enter": 32}
    result = onnxprune.prune(model, macs=0.8, samples=8, round_to=1, threads=1)
    assert result.report.verify.passed and result.report.macs.ratio <= 0.8
