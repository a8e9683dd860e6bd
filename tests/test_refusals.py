"""Forms of an operator that its rule refuses, each beside its nearest form that the rule takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from case import MS
from law import info_of_shapes

from onnxprune.coupling import rules
from onnxprune.coupling.rule import Locked, Mover, NodeInfo, Rule, Structural, bind
from onnxprune.coupling.rules import lookup

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Form:
    """One node.  ``inputs``: shapes, ``None`` where one is left out.  ``known``: operands whose numbers are known."""

    op: str
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape]
    attributes: Mapping[str, object] = field(default_factory=dict)
    known: Mapping[int, Sequence[int]] = field(default_factory=dict)
    domain: str = ""

    def info(self) -> NodeInfo:
        found = info_of_shapes(self.op, self.domain, self.inputs, self.outputs, self.attributes)
        values = {f"i{slot}": np.asarray(numbers, np.int64) for slot, numbers in self.known.items()}
        return replace(found, facts=replace(found.facts, values=values))

    def with_(self, **attributes: object) -> Form:
        return replace(self, attributes={**self.attributes, **attributes})


def at(form: Form, slot: int, shape: Shape | None) -> Form:
    inputs = [*form.inputs, *[None] * (slot + 1 - len(form.inputs))]
    return replace(form, inputs=[*inputs[:slot], shape, *inputs[slot + 1 :]])


LINEAR = Form(
    "LinearAttention", [(2, 5, 24), (2, 5, 12), (2, 5, 12)], [(2, 5, 24)], {"q_num_heads": 6, "kv_num_heads": 3}
)
ATTENTION = Form("Attention", LINEAR.inputs, LINEAR.outputs, LINEAR.attributes)
PACKED = Form("Attention", [(2, 5, 7), (7, 36), (36,)], [(2, 5, 12)], {"num_heads": 3}, domain=MS)
QPACKED = Form("QAttention", [(2, 5, 7), (7, 36), (36,), (), ()], [(2, 5, 12)], {"num_heads": 3}, domain=MS)
HEADS = Form("MultiHeadAttention", [(2, 5, 12)] * 3, [(2, 5, 12)], {"num_heads": 3}, domain=MS)
BIASED = at(HEADS, 3, (36,))
WIDER = replace(at(HEADS, 2, (2, 5, 24)), outputs=[(2, 5, 24)])
GROUPED = Form(
    "GroupQueryAttention",
    [(2, 5, 48), (2, 5, 16), (2, 5, 16), None, None, (2,), (1,)],
    [(2, 5, 48)],
    {"num_heads": 6, "kv_num_heads": 2},
    domain=MS,
)
ROTARY = Form("RotaryEmbedding", [(2, 3, 5, 8), (2, 5), (9, 4), (9, 4)], [(2, 3, 5, 8)], domain=MS)
PRODUCT = Form("FusedMatMul", [(2, 3), (3, 5)], [(2, 5)], domain=MS)
ENDED = Form("FusedMatMulActivation", [(2, 3), (3, 5)], [(2, 5)], {"activation": "Relu"}, domain=MS)
DEFORMED = Form("DeformConv", [(1, 4, 6, 6), (8, 4, 3, 3), (1, 18, 4, 4)], [(1, 8, 4, 4)])
NORM = Form("BatchNormalization", [(2, 3, 4, 4), (3,), (3,), (3,), (3,)], [(2, 3, 4, 4)])
SCALE = Form("DequantizeLinear", [(4, 3), (3,)], [(4, 3)], {"axis": 1})
BLOCKS = Form(
    "MatMulNBits", [(2, 32), (8, 2, 8), (16,)], [(2, 8)], {"K": 32, "N": 8, "block_size": 16, "bits": 4}, domain=MS
)
SUM = Form("ReduceSum", [(2, 3, 4), (1,)], [(2, 1, 4)], known={1: [1]})
RUNNING = Form("CumSum", [(2, 3), ()], [(2, 3)], known={1: [1]})
COLUMNS = Form("Col2Im", [(1, 12, 4), (2,), (2,)], [(1, 3, 4, 4)], known={1: [4, 4], 2: [2, 2]})
FOURIER = Form("DFT", [(1, 8, 3, 1), None, ()], [(1, 8, 3, 2)], known={2: [1]})
EXPAND = Form("ExpandDims", [(2, 3), ()], [(2, 1, 3)], known={1: [1]}, domain=MS)
CAUSAL = Form("CausalConvWithState", [(1, 3, 8), (3, 1, 4)], [(1, 3, 8), (1, 3, 3)])
EINSUM = Form("Einsum", [(3, 3)], [(3, 3)], {"equation": "ij->ji"})
COMPRESS = Form("Compress", [(4, 3), (4,)], [(2, 3)], {"axis": 0})

#: (reason, refused form, nearest form that is taken)
UNEVEN, WIDTH = "groups its heads unevenly", "packs weights whose width its heads do not divide"
REFUSED: list[tuple[str, Form, Form]] = [
    ("mixes packed and unpacked heads", at(ATTENTION, 2, (2, 3, 5, 8)), ATTENTION),
    (UNEVEN, ATTENTION.with_(kv_num_heads=4), ATTENTION),
    (UNEVEN, ATTENTION.with_(kv_num_heads=0), ATTENTION),
    (UNEVEN, replace(ATTENTION, inputs=[(2, 6, 5, 4), (2, 4, 5, 4), (2, 4, 5, 4)]), ATTENTION),
    (UNEVEN, LINEAR.with_(kv_num_heads=4), LINEAR),
    (UNEVEN, GROUPED.with_(kv_num_heads=4), GROUPED),
    (UNEVEN, at(GROUPED, 1, (2, 2, 5, 8)), GROUPED),
    (
        "packs queries, keys and values of different sizes into one weight",
        PACKED.with_(qkv_hidden_sizes=[12, 12, 6]),
        PACKED.with_(qkv_hidden_sizes=[12, 12, 12]),
    ),
    (WIDTH, PACKED.with_(num_heads=5), PACKED),
    (WIDTH, QPACKED.with_(num_heads=5), QPACKED),
    (WIDTH, QPACKED.with_(num_heads=0), QPACKED),
    ("does not state its number of heads", HEADS.with_(num_heads=0), HEADS),
    ("packs biases of different sizes into one vector", at(WIDER, 3, (48,)), WIDER),
    ("packs biases of different sizes into one vector", at(BIASED, 3, (24,)), BIASED),
    (
        "packs queries, keys and values of different sizes into one tensor",
        at(at(GROUPED, 1, None), 2, None),
        GROUPED,
    ),
    ("keeps quantized keys and values", GROUPED.with_(k_quant_type="PER_TENSOR"), GROUPED.with_(k_quant_type="NONE")),
    ("keeps quantized keys and values", GROUPED.with_(kv_cache_bit_width=8), GROUPED),
    ("packs sequences of different lengths into one", ROTARY.with_(is_packed_batching=1), ROTARY),
    ("rotates tensors of unknown rank", at(ROTARY, 0, (2, 3, 1, 5, 8)), ROTARY),
    ("inserts an axis that is computed at run time", replace(EXPAND, known={}), EXPAND),
    ("flattens its input and selects single elements", replace(COMPRESS, attributes={}), COMPRESS),
    ("transposes a vector", at(PRODUCT.with_(transB=1), 0, (3,)), at(PRODUCT, 0, (3,))),
    (
        "takes a diagonal (a repeated index in one term of its equation)",
        replace(EINSUM.with_(equation="ii->i"), outputs=[(3,)]),
        EINSUM,
    ),
    (
        "groups its channels in two ways at once",
        at(at(DEFORMED.with_(group=2, offset_group=2), 1, (8, 2, 3, 3)), 2, (1, 36, 4, 4)),
        at(DEFORMED.with_(offset_group=2), 2, (1, 36, 4, 4)),
    ),
    ("ends in an activation along an axis, such as a softmax", ENDED.with_(activation_axis=1), ENDED),
    ("keeps a convolution state in its own layout", replace(CAUSAL, outputs=[*CAUSAL.outputs, (1,)]), CAUSAL),
    ("normalizes every position of a feature map on its own (spatial=0)", at(NORM, 1, (3, 4, 4)), NORM),
    ("has a quantization axis outside its tensor", SCALE.with_(axis=2), SCALE),
    ("has a quantization axis outside its tensor", SCALE.with_(axis=-3), SCALE.with_(axis=-1)),
    ("holds weights rearranged for one processor", BLOCKS.with_(weight_prepacked=1), BLOCKS),
    ("packs its weights in an unknown format", at(BLOCKS, 1, (8, 16)), BLOCKS),
    ("packs its weights in an unknown format", BLOCKS.with_(block_size=0), BLOCKS),
    ("reduces over axes that are computed at run time", replace(SUM, known={}), SUM),
    ("accumulates over an axis that is computed at run time", replace(RUNNING, known={}), RUNNING),
    ("takes a block shape that is computed at run time", replace(COLUMNS, known={1: [4, 4]}), COLUMNS),
    ("transforms an axis that is computed at run time", replace(FOURIER, known={}), FOURIER),
]


def answer(form: Form) -> Rule | Mover | Locked | Structural:
    entry = lookup(form.domain, form.op)
    return entry(form.info()) if callable(entry) else entry


@pytest.mark.parametrize(("reason", "refused", "taken"), REFUSED, ids=lambda x: "" if isinstance(x, Form) else x[:40])
def test_a_form_without_a_rule_is_refused_and_its_neighbour_is_not(reason: str, refused: Form, taken: Form) -> None:
    assert answer(refused) == Locked(reason)
    found = answer(taken)
    assert not isinstance(found, Locked)
    if isinstance(found, Rule):
        bind(found, taken.info())


def refusals() -> Iterator[str]:
    """The reasons that functions of the rules give."""
    for path in sorted(Path(rules.__file__).parent.glob("*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Locked":
                        if isinstance(call.args[0], ast.Constant):
                            yield str(call.args[0].value)


def test_every_refusal_of_a_rule_stands_in_the_table() -> None:
    assert set(refusals()) == {reason for reason, _, _ in REFUSED}
