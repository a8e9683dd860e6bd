"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.tuning.operators.call import Call, Entry, OperatorTable, standard
from onnxprune.tuning.operators.convolution import activated


def _gemm(call: Call) -> Tensor:
    a = call.need(0).T if call.integer("transA", 0) else call.need(0)
    b = call.need(1).T if call.integer("transB", 0) else call.need(1)
    y, bias = a @ b, call.get(2)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    y = y if alpha == 1 else y * alpha
    return y if bias is None else y + (bias if beta == 1 else bias * beta)


def _turned(x: Tensor, across: bool, batch: bool) -> Tensor:
    """``across`` swaps the last two axes.  ``batch`` first moves axis 0 to the second-to-last place."""
    if batch and x.dim() > 2:
        x = x.permute(*range(1, x.dim() - 1), 0, x.dim() - 1)
    return x.transpose(-1, -2) if across and x.dim() > 1 else x


def _fused(call: Call) -> Tensor:
    a = _turned(call.need(0), bool(call.integer("transA", 0)), bool(call.integer("transBatchA", 0)))
    b = _turned(call.need(1), bool(call.integer("transB", 0)), bool(call.integer("transBatchB", 0)))
    return torch.matmul(a, b) * call.number("alpha", 1.0)


def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.text("equation", "").replace(" ", ""), *[x for x in call.inputs if x is not None])


def _integer_product(call: Call) -> Tensor:
    a, b = (_centred(call, slot, slot + 2) for slot in (0, 1))
    return torch.matmul(a, b).to(torch.int32)


def _centred(call: Call, slot: int, point: int) -> Tensor:
    x, zero = call.need(slot).double(), call.get(point)
    if zero is None:
        return x
    # One zero point per row of the left operand needs an axis.  One per column of the right operand broadcasts.
    return x - (zero.double().unsqueeze(-1) if slot == 0 and zero.dim() else zero.double())


def _distances(call: Call) -> Tensor:
    apart = (call.need(0).unsqueeze(1) - call.need(1).unsqueeze(0)).pow(2).sum(-1)
    return apart if call.text("metric", "sqeuclidean") == "sqeuclidean" else apart.sqrt()


TABLE: OperatorTable = {
    **standard(
        {
            "MatMul": Entry(lambda call: torch.matmul(call.need(0), call.need(1))),
            "Gemm": Entry(_gemm),
            "Einsum": Entry(_einsum),
            "MatMulInteger": Entry(_integer_product),
            "Det": Entry(lambda call: torch.linalg.det(call.x)),
        }
    ),
    ("com.microsoft", "FusedMatMul"): Entry(_fused),
    ("com.microsoft", "TransposeMatMul"): Entry(_fused),
    ("com.microsoft", "FusedGemm"): Entry(lambda call: activated(call, _gemm(call))),
    ("com.microsoft", "Inverse"): Entry(lambda call: torch.linalg.inv(call.x)),
    ("com.microsoft", "CDist"): Entry(_distances),
}
