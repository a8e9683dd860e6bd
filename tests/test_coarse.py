"""Large Reshapes are traced without their inert factors: the same coupling, in a fraction of the positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, permutations

import numpy as np
import onnx
import pytest
from graphs import Sketch

import onnxprune
from onnxprune.coupling import bind, coarse
from onnxprune.coupling import trace as tracing
from onnxprune.coupling.coarse import factors
from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.open import couple
from onnxprune.coupling.rule import NodeInfo
from onnxprune.coupling.trace import Trace, trace
from onnxprune.graph.load import load

WIDE, SIDE = 16, 6
Block = Callable[[Sketch, str], str]


@pytest.mark.parametrize("seed", range(40))
def test_factors_multiply_to_both_shapes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = generator.choice([1, 2, 3, 4, 5], size=6).tolist()

    def joined() -> tuple[int, ...]:
        cuts = [0, *sorted(generator.choice(7, size=2)), 6]
        return tuple(math.prod(parts[a:b]) for a, b in pairwise(cuts))

    before, after = joined(), joined()
    found = factors(before, after)
    assert found is not None
    for shape, of in ((before, [f.before for f in found]), (after, [f.after for f in found])):
        assert of == sorted(of)
        assert all(math.prod(f.size for f, at in zip(found, of, strict=True) if at == k) == n for k, n in enumerate(shape))


@pytest.mark.parametrize(("before", "after"), [((6, 4), (4, 6)), ((2, 9), (9, 2)), ((4, 0), (0, 4))])
def test_shapes_that_cut_across_each_other_have_no_factors(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert factors(before, after) is None


def _group_norm(groups: int) -> Block:
    """As the TorchScript exporter writes it."""

    def block(s: Sketch, x: str) -> str:
        flat = s.op("Reshape", x, s.array([0, groups, -1]))
        normal = s.op("InstanceNormalization", flat, s.array(np.ones(groups), np.float32), s.array(np.zeros(groups), np.float32))
        back = s.op("Reshape", normal, s.op("Shape", x))
        return s.op("Mul", back, s.weight(WIDE, 1, 1))

    return block


def _tokens(s: Sketch, x: str) -> str:
    """Places as tokens, and back."""
    flat = s.op("Transpose", s.op("Reshape", x, s.array([0, WIDE, -1])), attrs={"perm": [0, 2, 1]})
    mixed = s.op("Add", flat, s.op("MatMul", s.op("Relu", s.op("MatMul", flat, s.weight(WIDE, 24))), s.weight(24, WIDE)))
    return s.op("Reshape", s.op("Transpose", mixed, attrs={"perm": [0, 2, 1]}), s.array([0, WIDE, SIDE, SIDE]))


def _windows(s: Sketch, x: str) -> str:
    half = SIDE // 2
    split = s.op("Reshape", x, s.array([1, WIDE, 2, half, 2, half]))
    moved = s.op("Transpose", split, attrs={"perm": [0, 2, 4, 3, 5, 1]})
    rows = s.op("Reshape", moved, s.array([4, half * half, WIDE]))
    rows = s.op("Add", rows, s.op("MatMul", s.op("Relu", s.op("MatMul", rows, s.weight(WIDE, 20))), s.weight(20, WIDE)))
    back = s.op("Transpose", s.op("Reshape", rows, s.array([1, 2, 2, half, half, WIDE])), attrs={"perm": [0, 5, 1, 3, 2, 4]})
    return s.op("Reshape", back, s.array([1, WIDE, SIDE, SIDE]))


def _deeper(s: Sketch, x: str) -> str:
    """Space to depth, and back."""
    half = SIDE // 2
    split = s.op("Reshape", x, s.array([1, WIDE, half, 2, half, 2]))
    deep = s.op("Reshape", s.op("Transpose", split, attrs={"perm": [0, 1, 3, 5, 2, 4]}), s.array([1, 4 * WIDE, half, half]))
    again = s.op("Reshape", s.op("Relu", deep), s.array([1, WIDE, 2, 2, half, half]))
    return s.op("Reshape", s.op("Transpose", again, attrs={"perm": [0, 1, 4, 2, 5, 3]}), s.array([1, WIDE, SIDE, SIDE]))


BLOCKS: dict[str, Block] = {
    "one group": _group_norm(1),
    "four groups": _group_norm(4),
    "a group per channel": _group_norm(WIDE),
    "tokens": _tokens,
    "windows": _windows,
    "deeper": _deeper,
}


def _net(block: Block, flattened: bool) -> onnx.ModelProto:
    s = Sketch()
    x = s.op("Relu", s.conv(s.input("x", [1, 3, SIDE, SIDE]), 3, WIDE, 3, name="a"))
    x = s.op("Relu", s.conv(block(s, x), WIDE, WIDE, 3, name="b"))
    if flattened:
        flat = s.op("Reshape", x, s.array([1, WIDE * SIDE * SIDE]))
        s.output(s.op("MatMul", flat, s.weight(WIDE * SIDE * SIDE, 5)), [1, 5])
    else:
        s.output(s.conv(x, WIDE, 2, name="c"), [1, 2, SIDE, SIDE])
    return s.model()


def _free(coupling: Coupling) -> dict[object, list[list[bool]]]:
    return {key: [(units >= 0).tolist() for units in axes] for key, axes in coupling.units.items()}


@pytest.mark.parametrize("rules", ["exact", "approximate"])
@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_inert_factors_change_neither_groups_nor_what_is_free(
    name: str, flattened: bool, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = _net(BLOCKS[name], flattened), []

    def seen(*given: object) -> Trace | None:
        made.append(coarse.coarse(*given))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(bind, "coarse", seen)
    plain = couple(model, {}, None, rules)
    assert not any(made)
    monkeypatch.setattr(coarse, "LARGE", 0)
    thin = couple(model, {}, None, rules)
    assert any(made)
    assert [(g.name, len(g)) for g in thin.groups] == [(g.name, len(g)) for g in plain.groups]
    assert _free(thin) == _free(plain) and thin.walked.ledger.count <= plain.walked.ledger.count
    if rules == "exact" and not flattened:
        result = onnxprune.prune(model, macs=0.8, samples=8, effort="fast", round_to=1, threads=1)
        assert result.report.verify.passed and result.report.macs.ratio <= 0.8


def test_a_normalization_of_a_large_picture_is_never_traced_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 540 x 960 every Reshape of the group normalization has 33 million pairs of positions."""
    s = Sketch()
    x = s.conv(s.input("x", [1, 3, 540, 960]), 3, 64, name="a")
    flat = s.op("Reshape", x, s.array([0, 8, -1]))
    normal = s.op("InstanceNormalization", flat, s.array(np.ones(8), np.float32), s.array(np.zeros(8), np.float32))
    s.output(s.conv(s.op("Reshape", normal, s.op("Shape", x)), 64, 2, name="b"), [1, 2, 540, 960])

    def small(info: object, *rest: object) -> Trace:
        raise AssertionError("traced in full")

    monkeypatch.setattr(bind, "trace", small)
    coupling = couple(s.model(), {}, None)
    assert trace is not small and [len(group) for group in coupling.groups] == [8]
    assert coupling.walked.ledger.count < 10_000


def _moved(op: str, shape: tuple[int, ...], *operands: list[int], **attrs: object) -> onnx.ModelProto:
    s = Sketch()
    x = s.op("Relu", s.input("x", list(shape)))
    given = [s.array(operand) for operand in operands]
    s.output(s.op(op, x, *given, attrs=dict(attrs)), [None] * len(shape))
    return s.model()


MOVES = {
    **{f"Transpose {perm}": _moved("Transpose", (2, 3, 4), perm=perm) for perm in map(list, permutations(range(3)))},
    "Transpose of ones": _moved("Transpose", (1, 5, 1, 3), perm=[3, 0, 1, 2]),
    **{
        f"Pad {pads}": _moved("Pad", (1, 4, 3), pads)
        for pads in ([0] * 6, [0, 1, 0, 0, 0, 2], [1, 0, 2, 0, 0, 0], [0, -1, 0, 0, 0, 1], [2, 2, 2, 2, 2, 2])
    },
    "Pad by reflection": _moved("Pad", (1, 4, 3), [0, 0, 1, 0, 0, 1], mode="reflect"),
}


@pytest.mark.parametrize("name", MOVES)
def test_axes_that_move_alone_move_as_they_do_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(MOVES[name])
    coupling = couple(loaded.proto, {}, None)
    info = NodeInfo(coupling.graph.nodes[1], coupling.graph, coupling.facts)
    found = []
    for alone in (None, lambda _: False):
        if alone is not None:
            monkeypatch.setattr(tracing, "_moves_each_axis_alone", alone)
        moved = trace(info, [0])
        links = [(k.axis, k.out_axis, k.source.tolist(), k.target.tolist()) for k in moved.links]
        found.append((links, [positions.tolist() for *_, positions in moved.fixed], moved.out_shapes))
    assert found[0] == found[1] and found[0][0]
