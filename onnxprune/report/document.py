"""The JSON documents of ``--json``: plain dicts with finite numbers, and null for what was not measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from onnxprune.result import Change, Comparison, Drop, GroupRow, Inspection, Report, Tuned, Tuning
from onnxprune.shown import in_json

Json = dict[str, object]


def to_text(document: Json) -> str:
    """One JSON document that ends in a newline.  NaN and infinity become null; hidden characters become escapes."""
    return in_json(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def of_report(report: Report) -> Json:
    """The document of a pruning run or an applied plan."""
    return {
        "model": report.model,
        "output": report.output,
        "macs": _counts(report.macs),
        "params": _counts(report.params),
        "bytes": _counts(report.bytes),
        "latency_ms": _change(report.latency_ms),
        "latency_spread_ms": _spread(report.latency_spread),
        "drop": _drop(report.drop),
        "synthetic_data": report.drop_source == "made up",
        "accuracy": _change(report.accuracy),
        "scores": {name: _change(score) for name, score in report.scores},
        "groups": _groups(report.groups),
        "choices": list(report.choices),
        "verify": {
            "checker": report.verify.checker,
            "onnxruntime": report.verify.onnxruntime,
            "signature": report.verify.signature,
            "masked_max_rel_err": report.verify.masked_max_rel_err,
            "passed": report.verify.passed,
            "complaints": list(report.verify.complaints),
            "estimates": list(report.verify.estimates),
        },
        "refits": [
            {"node": r.node, "before": r.before, "after": r.after, "accepted": r.accepted} for r in report.refits
        ],
        "search": [{"macs_ratio": step.macs_ratio, "drop": step.drop} for step in report.search],
        "tuning": None if report.tuning is None else of_tuning(report.tuning),
        "notes": list(report.notes),
        "settings": dict(report.settings),
        "rounding": None if report.rounding is None else asdict(report.rounding),
        "seconds": dict(report.seconds),
        "peak_rss_bytes": report.peak_rss_bytes,
    }


def of_tuning(tuning: Tuning) -> Json:
    """What tuning did.  ``loss`` is null before the first step, ``same_top1`` if the outputs are not class scores."""
    return {
        "gained": tuning.gained,
        "held_out_error": {"before": tuning.before, "after": tuning.after},
        "stages": [{"name": s.name, "drop": _drop(s.drop), "accuracy": s.accuracy} for s in tuning.stages],
        "curve": [
            {
                "seconds": p.seconds,
                "samples": p.samples,
                "loss": p.loss,
                "held_out_error": p.held,
                "same_top1": p.same_top1,
            }
            for p in tuning.curve
        ],
        "seconds": tuning.seconds,
        "samples": {"tuned_on": tuning.samples, "held_out": tuning.held},
        "tensors": tuning.weights,
        "device": tuning.device,
        "notes": list(tuning.notes),
    }


def of_tuned(model: str, tuned: Tuned) -> Json:
    """The document of ``onnxprune tune``."""
    return {"model": model, "output": None if tuned.path is None else str(tuned.path), **of_tuning(tuned.tuning)}


def of_inspection(inspection: Inspection) -> Json:
    """The document of ``onnxprune inspect``."""
    return {
        "model": inspection.model,
        "inputs": list(inspection.inputs),
        "nodes": inspection.nodes,
        "macs": inspection.macs,
        "params": inspection.params,
        "bytes": inspection.bytes,
        "prunable_macs_share": inspection.prunable_macs_share,
        "operators_macs_share": dict(inspection.operators),
        "outlook": [{"kept": o.kept, "macs": o.macs, "params": o.params} for o in inspection.outlook],
        "groups": _groups(inspection.groups),
        "choices": list(inspection.choices),
        "notes": list(inspection.notes),
    }


def of_comparison(comparison: Comparison) -> Json:
    """The document of ``onnxprune compare``: ``before`` is the first model, ``after`` the second."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "macs": _counts(comparison.macs),
        "params": _counts(comparison.params),
        "bytes": _counts(comparison.bytes),
        "latency_ms": _change(comparison.latency_ms),
        "latency_spread_ms": _spread(comparison.latency_spread),
        "drop": _drop(comparison.drop),
        "synthetic_data": comparison.drop_source == "made up",
        "accuracy": _change(comparison.accuracy),
        "scores": {name: _change(score) for name, score in comparison.scores},
        "outputs": [{"name": name, "rel_l2_err": error} for name, error in comparison.outputs],
        "operators_ms": {row.operator: _change(row.milliseconds) for row in comparison.operators},
    }


def _groups(rows: Sequence[GroupRow]) -> list[Json]:
    return [
        {
            "id": row.id,
            "name": row.name,
            "before": row.before,
            "after": row.after,
            "macs_share": row.macs_share,
            "locked": row.locked,
        }
        for row in rows
    ]


def _counts(change: Change) -> Json:
    return {"before": round(change.before), "after": round(change.after)}


def _change(change: Change | None) -> Json | None:
    return None if change is None else {"before": change.before, "after": change.after}


def _spread(spread: tuple[float, float] | None) -> Json | None:
    return None if spread is None else {"before": spread[0], "after": spread[1]}


def _drop(drop: Drop | None) -> Json | None:
    if drop is None:
        return None
    document: Json = {"metric": drop.metric, "value": drop.value, "samples": drop.samples}
    if drop.low is not None:
        document |= {"low": drop.low, "high": drop.high}
    return document | ({"figures": dict(drop.figures)} if drop.figures else {})


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
