"""Channel shuffles become Gathers: bit for bit the same, and every channel leaves alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Sketch, prove, pruned, random_keep, run, table

from onnxprune.coupling.open import couple


def _shuffled(s: Sketch, x: str, blocks: tuple[int, ...], perm: list[int], dynamic: bool) -> str:
    """``x`` (n, 12, h, w) split into ``blocks``, turned by ``perm`` of those, and put together again."""
    rest = len(blocks) + 1
    if dynamic:
        size = [s.op("Shape", x, attrs={"start": k, "end": k + 1}) for k in (0, 2, 3)]
        split = s.op("Concat", size[0], s.array(blocks), size[1], size[2], attrs={"axis": 0})
        merged = s.op("Concat", size[0], s.array([-1]), size[1], size[2], attrs={"axis": 0})
    else:
        split, merged = s.array([0, *blocks, 4, 4]), s.array([0, 12, 4, 4])
    order = [0, *(1 + k for k in perm), rest, rest + 1]
    return s.op("Reshape", s.op("Transpose", s.op("Reshape", x, split), attrs={"perm": order}), merged)


def _model(blocks: tuple[int, ...], perm: list[int], dynamic: bool = False) -> onnx.ModelProto:
    s = Sketch()
    side: int | str = "h" if dynamic else 4
    x = s.conv(s.input("x", ["n", 3, side, side]), 3, 12, name="before")
    y = s.conv(_shuffled(s, x, blocks, perm, dynamic), 12, 2, name="after")
    s.output(y, ["n", 2, side, side])
    return s.model()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("blocks", "perm"), [((2, 6), [1, 0]), ((4, 3), [1, 0]), ((2, 2, 3), [2, 0, 1])])
def test_a_shuffle_becomes_a_gather_that_lets_every_channel_leave(
    blocks: tuple[int, ...], perm: list[int], dynamic: bool
) -> None:
    model = _model(blocks, perm, dynamic)
    coupling = prove(model)
    assert table(coupling) == {"before": 12}
    written = coupling.graph.model
    assert [n.op_type for n in written.graph.node if n.op_type not in ("Conv", "Shape", "Concat")] == ["Gather"]
    assert not any(n.op_type == "Transpose" for n in written.graph.node)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    assert np.array_equal(run(model, feeds)[0], run(written, feeds)[0])


def test_shuffles_in_a_row_tie_nothing() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 4, 4]), 3, 12, name="before")
    for _ in range(3):
        x = s.op("Relu", _shuffled(s, x, (2, 6), [1, 0], False))
    s.output(s.conv(x, 12, 2, name="after"), ["n", 2, 4, 4])
    assert table(prove(s.model())) == {"before": 12}


def test_a_shuffle_whose_inside_is_read_elsewhere_stays() -> None:
    s = Sketch()
    x = s.conv(s.input("x", ["n", 3, 4, 4]), 3, 12, name="before")
    apart = s.op("Reshape", x, s.array([0, 2, 6, 4, 4]))
    back = s.op("Reshape", s.op("Transpose", apart, attrs={"perm": [0, 2, 1, 3, 4]}), s.array([0, 12, 4, 4]))
    s.output(s.conv(back, 12, 2, name="after"), ["n", 2, 4, 4])
    s.output(s.op("ReduceMax", apart, attrs={"axes": [1, 2, 3, 4], "keepdims": 0}), ["n"])
    coupling = couple(s.model(), {}, None)
    assert coupling.graph.model.SerializeToString() == s.model().SerializeToString()


@pytest.mark.parametrize("perm", [[0, 2, 1, 4, 3], [0, 3, 2, 1, 4], [0, 1, 2, 3, 4]])
def test_what_moves_other_axes_or_nothing_is_no_shuffle(perm: list[int]) -> None:
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 4, 4]), 3, 16, name="before")
    turned = s.op("Transpose", s.op("Reshape", x, s.array([1, 4, 4, 4, 4])), attrs={"perm": perm})
    s.output(s.conv(s.op("Reshape", turned, s.array([1, 16, 4, 4])), 16, 2, name="after"), [1, 2, 4, 4])
    coupling = prove(s.model())
    assert any(n.op_type == "Transpose" for n in coupling.graph.model.graph.node)


def test_the_indices_are_renumbered() -> None:
    coupling = couple(_model((2, 6), [1, 0]), {}, None)
    keep = random_keep(coupling, 0)
    small = pruned(coupling, keep)
    node = next(n for n in small.graph.node if n.op_type == "Gather")
    index = next(onnx.numpy_helper.to_array(t) for t in small.graph.initializer if t.name == node.input[1])
    assert sorted(index.tolist()) == list(range(int(keep.sum())))
