"""Made-up results, so that the command line and the reports are tested without pruning anything."""

from __future__ import annotations

import onnx

from onnxprune.plan import Cut, Plan
from onnxprune.result import (
    Change,
    Comparison,
    CurvePoint,
    Drop,
    GroupCurve,
    GroupRow,
    Inspection,
    Outlook,
    Refitted,
    Report,
    Result,
    SearchStep,
    Verification,
)
from onnxprune.target import Budget

LOCK = "Softmax '/attention/Softmax' mixes the positions of axis 3 of '/attention/MatMul_output_0'"


def groups(count: int) -> tuple[GroupRow, ...]:
    """``count`` free groups and two locked ones; one name would be markup, one HTML, if taken for such."""
    rows = [
        GroupRow(
            i,
            f"/backbone/layer{i // 4 + 1}/layer{i // 4 + 1}.{i % 4}/conv{i % 2 + 1}/Conv",
            width := 64 * 2 ** min(3, i // 12),
            width if i % 7 == 6 else max(1, width * (30 + (i * 37) % 65) // 100),
            (1 + (i * 13) % 9) / (6 * max(1, count)),
        )
        for i in range(count)
    ]
    rows.append(GroupRow(count, "/attention/[bold]qkv/MatMul", 192, 192, 0.031, LOCK))
    rows.append(GroupRow(count + 1, "<script>alert(1)</script>", 1000, 1000, 0.0004, "graph output 'logits'"))
    return tuple(rows)


def report(count: int = 52) -> Report:
    rows = groups(count)
    curves = tuple(
        GroupCurve(
            row.name,
            tuple(CurvePoint(row.before * k // 8, 3e-5 * (1 + row.id % 5) * (8 - k) ** 3.2) for k in range(8, 0, -1)),
        )
        for row in rows
        if row.locked is None
    )
    return Report(
        model="models/resnet50.onnx",
        output="models/resnet50.pruned.onnx",
        macs=Change(4_089_184_256, 2_012_340_224),
        params=Change(25_530_472, 13_912_300),
        bytes=Change(102_169_600, 55_700_100),
        latency_ms=Change(41.3, 24.6),
        latency_spread=(0.6, 0.4),
        drop=Drop("top-1 changed", 0.0093, 1024),
        accuracy=Change(0.8012, 0.7958),
        groups=rows,
        choices=("attention: whole heads are cut, not the size of heads",),
        verify=Verification(True, True, True, 3.1e-07),
        seconds={"load": 0.4, "couple": 0.9, "calibrate": 61.0, "select": 20.0, "refit": 95.1, "verify": 2.1, "total": 184.0},
        peak_rss_bytes=2_310_000_000,
        notes=("first sample fed to 'x': float32 1×3×224×224, min/mean/max per channel -2.1/0.1/2.2",),
        settings={"budget": "--max-drop 0.01", "samples": "256", "select": "qr", "seed": "0"},
        curves=curves,
        search=tuple(SearchStep(1 - k / 10, 0.00012 * k**3.1) for k in range(8)),
        refits=tuple(Refitted(row.name, 0.31, 0.04, bool(row.id % 6)) for row in rows[:count]),
        budgets=(Budget("max_drop", 0.01),),
    )


def plan(count: int = 52) -> Plan:
    free = [row for row in groups(count) if row.locked is None]
    return Plan("0123456789abcdef" * 2, tuple(Cut(row.name, row.before, tuple(range(row.after))) for row in free))


def result(count: int = 52) -> Result:
    return Result(onnx.ModelProto(), plan(count), report(count))


def inspection(count: int = 52) -> Inspection:
    return Inspection(
        model="models/resnet50.onnx",
        macs=4_089_184_256,
        params=25_530_472,
        bytes=102_169_600,
        nodes=122,
        groups=groups(count),
        prunable_macs_share=0.978,
        choices=("attention: whole heads are cut, not the size of heads",),
        inputs=("x: float32 batch×3×224×224",),
        notes=("batch of 'x' is dynamic: measured at 1",),
        operators=(("Conv", 0.978), ("MatMul", 0.022)),
        outlook=(Outlook(0.75, 0.56, 0.57), Outlook(0.5, 0.25, 0.26)),
    )


def comparison() -> Comparison:
    return Comparison(
        a="a.onnx",
        b="b.onnx",
        macs=Change(4_089_184_256, 2_012_340_224),
        params=Change(25_530_472, 13_912_300),
        bytes=Change(102_169_600, 55_700_100),
        latency_ms=None,
        latency_spread=None,
        drop=Drop("output error", 0.0213, 256),
        accuracy=None,
        outputs=(("boxes", 0.0213), ("scores", 0.0101)),
    )
