"""Every rule obeys the slice law: cutting the inputs and running equals running and cutting the outputs."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from case import MS, Case
from law import (
    check_pipeline,
    check_rule,
    execute,
    free_factors,
    info_of,
    info_of_shapes,
    one_node,
    runs,
    shaped,
    surround,
)
from op_cases import CASES
from operator_forms import FORMS, Form

from onnxprune.coupling.rule import Locked, NodeInfo, Rule, bind
from onnxprune.coupling.rules import TABLE, lookup

sys.path.append(str(Path(__file__).parent.parent / "tools"))
import audit_rules


@cache
def built(case: Case):
    return one_node(case.op, case.inputs, case.attributes, case.domain, case.outputs, case.opset)


def bound_of(case: Case):
    model = built(case)
    feeds = {f"i{k}": x for k, x in enumerate(case.inputs) if x is not None}
    results = dict(zip((f"o{k}" for k in range(case.outputs)), execute(model, feeds), strict=True))
    info = info_of(model, feeds, results)
    entry = lookup(info.node.domain, info.node.op)
    rule = entry(info) if callable(entry) else entry
    return bind(rule, info) if isinstance(rule, Rule) else None


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_project_case_obeys_its_rule(case: Case) -> None:
    bound = bound_of(case)
    if bound is None:
        assert case.free == ""
        return
    assert sorted(free_factors(bound)) == sorted(case.free.split()), str(bound)
    verdicts = check_rule(built(case), case.inputs, bound, case.tolerance)
    assert all(verdicts.values()), f"{bound}: {verdicts}"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_project_case_survives_random_cuts(case: Case) -> None:
    model = surround(built(case), case.inputs, case.chained)
    assert model is not None
    groups, worst = check_pipeline(model, case.tolerance, 3)
    assert worst <= max(case.tolerance, 1e-4)
    frozen = bound_of(case) is not None and case.free == ""
    assert groups > 0 or not case.chained or frozen


def info_of_form(form: Form) -> NodeInfo:
    return info_of_shapes(form.op, MS, form.inputs, form.outputs, form.attributes)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.op}-{len(f.inputs)}")
def test_rule_of_an_operator_without_processor_kernel(form: Form) -> None:
    info = info_of_form(form)
    entry = lookup(MS, form.op)
    rule = entry(info) if callable(entry) else entry
    assert isinstance(rule, Rule)
    assert str(bind(rule, info)) == form.text


@cache
def backend_cases():
    """operator -> ONNX's own single-node cases: (name, model, inputs by slot)."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    found: dict[str, list[tuple[str, onnx.ModelProto, list[np.ndarray | None]]]] = {}
    for case in collected:
        node = case.model.graph.node[0]
        if len(case.model.graph.node) > 1 or not case.data_sets or node.domain not in ("", "ai.onnx"):
            continue
        given = case.data_sets[0][0]
        if not all(isinstance(x, np.ndarray) and x.dtype.kind in "fiub" for x in given):
            continue
        feeds = dict(zip((i.name for i in case.model.graph.input), given, strict=False))
        if all(name in feeds for name in node.input if name):
            inputs = [feeds[name] if name else None for name in node.input]
            found.setdefault(node.op_type, []).append((case.name, case.model, inputs))
    return found


#: Values that a cut may change: random draws, and a loss that is a mean over what is left.
RANDOM = frozenset({"Bernoulli", "Dropout"})
#: Operators whose outputs are no tensors, which no random weights can be summed with.
SEQUENCES = frozenset({"SplitToSequence"})
#: Cases without a float output to sum, or that do not run where what is around them is float32.
LEFT_OUT = {"SoftmaxCrossEntropyLoss": 2, "Einsum": 1}


#: Cases whose shapes leave no factor of two positions or more to cut, by operator: batches and channels of one, and
#: axes that the operator mixes.  Where a rule loses a factor, more cases check nothing than stand here.
NO_FACTOR = {
    "Attention": 1, "AveragePool": 11, "BitCast": 1, "CausalConvWithState": 1, "CenterCropPad": 3, "Col2Im": 4,
    "Conv": 6, "ConvTranspose": 1, "CumProd": 5, "DeformConv": 3, "Det": 1, "Einsum": 1, "GlobalAveragePool": 1,
    "GlobalMaxPool": 1, "Hardmax": 1, "LayerNormalization": 6, "LogSoftmax": 1, "LpPool": 1, "MaxPool": 12,
    "MaxUnpool": 2, "RMSNormalization": 6, "ReduceLogSumExp": 2, "ReduceMax": 2, "ReduceMean": 2, "ReduceMin": 2,
    "ReduceProd": 2, "Resize": 39, "ReverseSequence": 2, "Scatter": 1, "ScatterElements": 6, "ScatterND": 2,
    "Softmax": 1, "TopK": 2, "Trilu": 11, "Upsample": 1,
}


@pytest.mark.parametrize("op", sorted(backend_cases()))
def test_onnx_own_cases_obey_their_rule(op: str) -> None:
    wrong: list[str] = []
    unchecked: list[str] = []
    for name, model, inputs in backend_cases()[op]:
        node = model.graph.node[0]
        feeds = {i: x for i, x in zip(node.input, inputs, strict=True) if x is not None}
        results = execute(shaped(model, feeds), feeds)
        if not all(isinstance(y, np.ndarray) for y in results):
            continue
        info = info_of(model, feeds, dict(zip((o for o in node.output if o), results, strict=False)))
        entry = lookup(info.node.domain, info.node.op)
        rule = entry(info) if callable(entry) else entry
        if isinstance(rule, Rule) and op not in RANDOM:
            bound = bind(rule, info)
            verdicts = check_rule(model, inputs, bound, 1e-4)
            wrong += [f"{name}: {factor} in '{bound}'" for factor, fine in verdicts.items() if not fine]
            unchecked += [] if verdicts else [name]
    assert not wrong, "\n".join(wrong)
    assert len(unchecked) <= NO_FACTOR.get(op, 0), f"cases that check no factor: {unchecked}"


@pytest.mark.parametrize("op", sorted(backend_cases()))
def test_onnx_own_cases_survive_random_cuts(op: str) -> None:
    wrong: list[str] = []
    left_out: list[str] = []
    for name, model, inputs in backend_cases()[op][:40]:
        chained = [k for k, x in enumerate(inputs) if x is not None and x.dtype in (np.float32, np.float64)]
        if not chained or op in RANDOM:
            continue
        if op in SEQUENCES:
            continue
        surrounded = surround(model, inputs, chained)
        if surrounded is None or not runs(surrounded):
            left_out.append(name)
            continue
        _, worst = check_pipeline(surrounded, 1e-4, 1)
        if worst > 1e-4:
            wrong.append(f"{name}: {worst:.1e}")
    assert not wrong, "\n".join(wrong)
    assert len(left_out) <= LEFT_OUT.get(op, 0), f"cases that nothing checks: {left_out}"


def test_no_operator_of_the_installed_onnx_is_without_an_entry() -> None:
    known = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    assert sorted(known - set(TABLE)) == []


#: Operators of onnxruntime's own domain that its optimizers and quantizers put into files.
RUNTIME_MADE = """
    FusedConv NhwcConv NhwcFusedConv NhwcMaxPool FusedGemm FusedMatMul TransposeMatMul
    QLinearConv QLinearAdd QLinearMul QLinearAveragePool QLinearGlobalAveragePool QLinearConcat QLinearSigmoid
    QLinearLeakyRelu QLinearSoftmax QLinearWhere QGemm QAttention QuantizeLinear DequantizeLinear
    DynamicQuantizeMatMul DynamicQuantizeLSTM MatMulIntegerToFloat MatMulNBits MatMulBnb4
    Attention MultiHeadAttention GroupQueryAttention PackedAttention DecoderMaskedMultiHeadAttention
    EmbedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization SimplifiedLayerNormalization
    LayerNormalization SkipGroupNorm GroupNorm Gelu FastGelu BiasGelu QuickGelu BiasAdd BiasSplitGelu BiasDropout
    BiasSoftmax RotaryEmbedding GemmaRotaryEmbedding RelativePositionBias GatedRelativePositionBias MoE QMoE
    GatherBlockQuantized ConvTransposeWithDynamicPads Pad Inverse Trilu Unique
"""


@pytest.mark.parametrize("op", RUNTIME_MADE.split())
def test_what_a_runtime_writes_into_files_has_an_entry(op: str) -> None:
    assert (MS, op) in TABLE


def test_every_current_operator_of_the_standard_has_an_entry_since_opset_seven() -> None:
    newest = onnx.defs.onnx_opset_version()
    names = {
        schema.name
        for opset in range(7, newest + 1)
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.since_version <= opset
    }
    assert sorted(name for name in names if ("", name) not in TABLE) == []
    assert len(names) > 190


def test_the_operator_table_of_the_guide_is_current() -> None:
    """Operator for operator; word for word where the installed packages are those that it was written with."""
    page = (audit_rules.ROOT / "onnxprune" / "guide" / "operators.md").read_text()
    _, rest = page.split(audit_rules.BEGIN)
    told = rest.split(audit_rules.END)[0]
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| ")][1:]
    names = {(row[0].lstrip("| "), name) for row in rows for name in row[1].split()}
    assert names == {(domain or "ai.onnx", op) for domain, op in TABLE}
    lines = audit_rules.table(audit_rules.examples())
    if f"onnx {version('onnx')}, onnxruntime {version('onnxruntime')}" in told:
        assert audit_rules.replaced(page, lines) == page, "run: python tools/audit_rules.py --write"
    assert not [line.operator for line in lines if line.kind == "MISSING"]


def test_every_refusal_finishes_its_sentence() -> None:
    for key, entry in TABLE.items():
        if isinstance(entry, Locked):
            assert entry.reason[0].islower() and not entry.reason.endswith("."), key


def test_an_operator_of_an_unknown_domain_locks() -> None:
    assert isinstance(lookup("my.company", "Conv"), Locked)
