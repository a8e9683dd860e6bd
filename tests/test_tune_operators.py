"""Every torch function of the table: forward as onnxruntime, gradient as finite differences."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from case import MS, Case
from law import close, execute, one_node, shaped
from op_cases import CASES
from test_rules import RANDOM, backend_cases
from tune_cases import OPSET_CASES

torch = pytest.importorskip("torch")

from onnxprune.tuning.attributes import attributes_of  # noqa: E402
from onnxprune.tuning.operators import TABLE  # noqa: E402
from onnxprune.tuning.operators.call import Call, Entry, Unsupported  # noqa: E402
from onnxprune.tuning.operators.types import to_torch  # noqa: E402

ALL = (*CASES, *OPSET_CASES)
KNOWN = tuple(case for case in ALL if (case.domain, case.op) in TABLE)


def call_of(node: onnx.NodeProto, opset: int, inputs) -> Call:
    return Call(node.op_type, opset, tuple(inputs), attributes_of(node), len(node.output))


def opset_of(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if not o.domain)


def answers(entry: Entry, call: Call):
    found = entry.run(call)
    return found if isinstance(found, tuple) else (found,)


@cache
def built(case: Case) -> onnx.ModelProto:
    return one_node(case.op, case.inputs, case.attributes, case.domain, case.outputs, case.opset)


def wrong_outputs(model: onnx.ModelProto, inputs, entry: Entry, tolerance: float) -> list[str]:
    node = model.graph.node[0]
    feeds = {name: x for name, x in zip(node.input, inputs, strict=True) if name and x is not None}
    wanted = execute(shaped(model, feeds), feeds)
    given = [None if x is None else to_torch(x) for x in inputs]
    got = answers(entry, call_of(node, opset_of(model), given))
    complaints = []
    places = [k for k, name in enumerate(node.output) if name]
    for place, want in zip(places, wanted, strict=True):
        have = got[place] if place < len(got) else None
        if have is None:
            complaints.append(f"output {place} is left out")
            continue
        array = have.numpy()
        # Half precision is computed in float32, unsigned 16 to 64 bits in wider signed types.
        if array.dtype.kind != want.dtype.kind and {array.dtype.kind, want.dtype.kind} != {"i", "u"}:
            complaints.append(f"output {place} is {array.dtype}, not {want.dtype}")
        loose = max(tolerance, 2e-2) if want.dtype.name in ("float16", "bfloat16") else tolerance
        if not close(array, np.asarray(want), loose):
            complaints.append(f"output {place} differs, shape {array.shape} {want.shape}")
    return complaints


@pytest.mark.parametrize("case", KNOWN, ids=lambda c: f"{c.id}-{c.domain}-{c.opset}")
def test_forward_is_that_of_onnxruntime(case: Case) -> None:
    assert not wrong_outputs(built(case), case.inputs, TABLE[case.domain, case.op], max(case.tolerance, 1e-5))


#: Kinks lie where finite differences look, or the derivative is not that of the function by design.
NO_DIFFERENCES = {(domain, op) for (domain, op), entry in TABLE.items() if entry.rounds or entry.chooses}


@pytest.mark.parametrize(
    "case", [c for c in KNOWN if (c.domain, c.op) not in NO_DIFFERENCES], ids=lambda c: f"{c.id}-{c.domain}-{c.opset}"
)
def test_gradient_is_that_of_finite_differences(case: Case) -> None:
    entry, model = TABLE[case.domain, case.op], built(case)
    given = [None if x is None else to_torch(x) for x in case.inputs]
    moved = [
        k
        for k, x in enumerate(given)
        if x is not None and x.is_floating_point() and x.numel() and k not in (*entry.host, *entry.stored)
    ]
    if not moved:
        pytest.skip("no input with a gradient")

    def function(*values):
        inputs = [None if x is None else x.double() if x.is_floating_point() else x for x in given]
        for place, value in zip(moved, values, strict=True):
            inputs[place] = value
        found = answers(entry, call_of(model.graph.node[0], case.opset, inputs))
        return tuple(y for y in found if y is not None and y.is_floating_point() and y.requires_grad)

    leaves = [given[k].double().requires_grad_() for k in moved]
    if not function(*leaves):
        pytest.skip("no output with a gradient")
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("op", sorted(op for op in backend_cases() if ("", op) in TABLE and op not in RANDOM))
def test_onnx_own_cases(op: str) -> None:
    wrong, ran = [], 0
    for name, model, inputs in backend_cases()[op]:
        entry = TABLE["", op]
        node = model.graph.node[0]
        feeds = {i: x for i, x in zip(node.input, inputs, strict=True) if x is not None}
        try:
            execute(shaped(model, feeds), feeds)
        except Exception:
            continue
        try:
            complaints = wrong_outputs(model, inputs, entry, 1e-4)
        except Unsupported:
            continue
        ran += 1
        wrong += [f"{name}: {text}" for text in complaints]
    assert not wrong, "\n".join(wrong)


def test_the_table_knows_what_real_models_are_made_of() -> None:
    assert len(TABLE) > 150
    assert all(domain in ("", MS) for domain, _ in TABLE)
