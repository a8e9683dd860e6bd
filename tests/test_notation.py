"""The rule notation: what it says, and that it refuses what it cannot say."""

from __future__ import annotations

import numpy as np
import pytest
from law import info_of, one_node

from onnxprune.coupling.notation import NotationError, Pattern, expand, parse_pattern
from onnxprune.coupling.rule import Bound, DoesNotFit, Role, Rule, bind


def test_a_rule_reads_back_as_it_was_written() -> None:
    for text in (
        "n (g i) x.., (g o) i k.., (g o) -> n (g o) y..",
        "d0 1 d2, _ -> d0 d1 d2",
        "t b i, _ -> t d b h, d b h",
    ):
        assert str(parse_pattern(text)) == text


def test_terms_are_dims_of_factors() -> None:
    found = parse_pattern("n (g i) 1, _ -> x..")
    assert found == Pattern(((("n",), ("g", "i"), ()), None), ((("x..",),),))


def test_a_variadic_dim_fills_the_rank() -> None:
    term = parse_pattern("n c x.. -> n")
    assert expand(term.inputs[0] or (), 4) == (("n",), ("c",), ("x0",), ("x1",))
    assert expand(term.inputs[0] or (), 2) == (("n",), ("c",))


@pytest.mark.parametrize(
    "text",
    ["n c", "a -> b -> c", "n ( -> n", "n [c] -> n", "x.. y.. -> n", "2 -> n"],
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(NotationError):
        parse_pattern(text)


def test_a_wrong_rank_is_refused() -> None:
    with pytest.raises(NotationError):
        expand(parse_pattern("n c x.. -> n").inputs[0] or (), 1)
    with pytest.raises(NotationError):
        expand(parse_pattern("n c -> n").inputs[0] or (), 3)


def _call(*shapes: tuple[int, ...]):
    inputs = [np.ones(shape, np.float32) for shape in shapes]
    model = one_node("Sum", inputs, {}, "", 1, 21)
    feeds = {f"i{k}": x for k, x in enumerate(inputs)}
    out = np.broadcast_shapes(*shapes)
    return info_of(model, feeds, {"o0": np.ones(out, np.float32)})


def test_compound_sizes_are_solved_from_the_others() -> None:
    bound = bind(Rule("(a b), a -> (a b)"), _call((12,), (1,)))
    assert dict(bound.sizes) == {"a": 1, "b": 12}
    bound = bind(Rule("(a b) -> (a b)", sizes={"a": 3}), _call((12,)))
    assert bound.sizes["b"] == 4


@pytest.mark.parametrize(
    ("rule", "shapes"),
    [
        (Rule("(a b) -> (a b)", sizes={"a": 5}), ((12,),)),
        (Rule("(a b) -> (a b)"), ((12,),)),
        (Rule("a, a -> a"), ((12,), (1,))),
        (Rule("1 -> 1"), ((12,),)),
        (Rule("a b -> a b"), ((12,),)),
        (Rule("a -> a"), ((12,), (12,))),
    ],
)
def test_sizes_that_contradict_a_rule_do_not_fit(rule: Rule, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(DoesNotFit):
        bind(rule, _call(*shapes))


def test_roles_follow_from_where_a_factor_stands() -> None:
    bound = bind(Rule("i k, k j -> i j"), _matmul())
    assert bound.role("k") is Role.SUMMED and bound.role("i") is bound.role("j") is Role.PASSED
    assert bound.inputs_with("k") == [0, 1] and bound.in_output("j")
    assert bound.factors() == ["i", "k", "j"]


def test_declarations_of_a_rule_override_where_a_factor_stands() -> None:
    def role(rule: Rule, factor: str) -> Role:
        terms = parse_pattern(rule.text)
        return Bound(rule, terms.inputs, terms.outputs, {}).role(factor)

    k = frozenset("k")
    assert role(Rule("n k -> n"), "k") is Role.CONSUMED
    assert role(Rule("n -> n k"), "k") is Role.CREATED
    assert role(Rule("n k -> n", sums=k), "k") is Role.SUMMED
    assert role(Rule("n k -> n k", estimates=k, sums=k), "k") is Role.ESTIMATED
    assert role(Rule("n k -> n k", mix=k, estimates=k, sums=k), "k") is Role.MIXED


def _matmul():
    inputs = [np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)]
    model = one_node("MatMul", inputs, {}, "", 1, 21)
    return info_of(model, {"i0": inputs[0], "i1": inputs[1]}, {"o0": np.ones((3, 5), np.float32)})
