"""Numbers and sentences for the terminal and HTML reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath

from onnxprune.plan import Rounding
from onnxprune.result import Change, Drop, DropSource, Inspection, Report, Stage, Tuning, Verification

TOP1 = "top-1 changed"
VALUES = "values changed"
#: Metric -> what its drop means.  {NAME} stands for a figure of the task.
AGREEMENTS: Mapping[str, str] = {
    "AP50 lost": "its detections agree with the original's at AP50 {AP50} (AP50-95 {AP50-95})",
    "mean IoU lost": "its masks agree with the original's at a mean IoU of {mean IoU}",
    "keypoint similarity lost": "its keypoints agree with the original's at an OKS of {OKS}",
    "cosine distance": "its embeddings are at a mean cosine of {mean cosine} to the original's",
    "strings changed": "{drop} of its strings change (character error {character error})",
    "relative error per channel": "its outputs change by {drop} per channel",
}
#: From this share of the latency on, its error is told in words, too: another program took the cores.
UNSURE = 0.1
#: What to do if the result is not faster.
SLOW = " Cut more, or give a budget in time, such as --latency 0.7 ('onnxprune help faster')."
#: Metrics whose drops are shown in percent.
SHARES = (TOP1, VALUES, *(name for name in AGREEMENTS if name != "cosine distance"))


def si(value: float) -> str:
    """``125.7 M``: up to four digits and a decimal prefix."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor * 0.9995:
            scaled = value / factor
            return f"{scaled:.{2 if scaled < 9.995 else 1}f} {prefix}"
    return f"{value:.0f}"


def byte_text(value: float) -> str:
    """``3.40 MB``, decimal."""
    text = si(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def milliseconds(value: float) -> str:
    """Three digits: ``12.3 ms``."""
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def percent(share: float) -> str:
    """``1.2%``; small shares keep two significant digits."""
    points = share * 100
    if not math.isfinite(points):
        return "n/a"
    if points == 0 or abs(points) >= 0.095:
        return f"{points:.1f}%"
    return f"{points:.2g}%" if abs(points) >= 0.001 else "<0.001%"


def decimals(value: float) -> str:
    """Three significant digits: ``0.0123``, ``3.1e-07``."""
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """``8.4 s``, ``2 min 5 s``, ``1 h 2 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def rounding_text(rounding: Rounding) -> str:
    """The channel counts that the run preferred, and the option that gives the same on another machine."""
    if rounding.block is None:
        return f"to multiples of {rounding.setting}"
    counts = f"to counts that run fast with kernels of {rounding.block} channels ({rounding.because})"
    return f"{counts}; --round {rounding.setting} gives the same on another CPU" if rounding.setting else counts


def spent(seconds: Mapping[str, float]) -> str:
    """The total, and the longest stages: ``2 min 5 s (select 1 min 4 s, refit 40.1 s)``."""
    total = seconds["total"]
    stages = sorted(((value, name) for name, value in seconds.items() if name != "total"), reverse=True)
    most = [f"{name} {duration(value)}" for value, name in stages[:2] if value >= 0.2 * total and value >= 1]
    return duration(total) + (f" ({', '.join(most)})" if most else "")


def change_text(change: Change) -> str:
    """``−53.1%``, ``+2.0%`` or ``same``."""
    if change.before == change.after:
        return "same"
    if not change.before:
        return "new"
    share = change.ratio - 1
    return f"{'−' if share < 0 else '+'}{percent(abs(share))}"


def points_text(change: Change) -> str:
    """A difference of shares in percentage points: ``−0.7 points``."""
    points = (change.after - change.before) * 100
    if abs(points) < 0.005:
        return "same"
    return f"{'−' if points < 0 else '+'}{abs(points):.2f} points"


def drop_value(drop: Drop) -> str:
    """The drop in the unit of its metric."""
    return percent(drop.value) if drop.metric in SHARES else decimals(drop.value)


def could_be(drop: Drop) -> tuple[float, float] | None:
    """The 95 % confidence interval of a drop, or None if unknown.

    For the share of changed top-1 answers it is Wilson's interval.
    """
    if drop.low is not None and drop.high is not None:
        return drop.low, drop.high
    if drop.metric != TOP1 or not drop.samples:
        return None
    n, p, z = drop.samples, drop.value, 1.96
    centre, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + side * width) / (1 + z * z / n) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def drop_sentence(drop: Drop | None, source: DropSource = "held out") -> str:
    """What the drop means, as the end of a sentence."""
    if drop is None:
        return "the drop was not measured ('onnxprune compare' measures it)"
    held_out = f"{drop.samples:,} held-out sample{'' if drop.samples == 1 else 's'}"
    if source == "made up":
        held_out = f"{drop.samples:,} made-up samples, which tells little about real ones (give --data)"
    elif source == "alike":
        held_out += ", which tells little: the original gives the same answer for all of them"
    if drop.metric == TOP1 and drop.samples == 1:
        return f"the top-1 answer {'changes' if drop.value else 'stays the same'} on {held_out}"
    if drop.metric == TOP1:
        return f"the top-1 answer changes in {percent(drop.value) if drop.value else 'none'} of {held_out}"
    if drop.metric == VALUES:
        return f"{percent(drop.value) if drop.value else 'none'} of its outputs' values change on {held_out}"
    if drop.metric in AGREEMENTS:
        words = {name: f"{value:.3f}" for name, value in drop.figures}
        sentence = AGREEMENTS[drop.metric].replace("{drop}", percent(drop.value))
        for name, value in words.items():
            sentence = sentence.replace("{" + name + "}", value)
        return f"{sentence} on {held_out}"
    if drop.metric == "output error":
        return f"its outputs change by {percent(drop.value)} on {held_out}"
    if math.isinf(drop.value):
        return f"{drop.metric} falls to minus infinity on {held_out}"
    return f"{drop.metric} changes by {decimals(drop.value)} on {held_out}"


def same_speed(change: Change, spread: tuple[float, float] | None) -> bool:
    """Whether the latencies differ by less than the error of their paired ratio (``spread[1]``, in ms)."""
    within = spread is not None and abs(change.before - change.after) <= spread[1]
    return within or f"{change.ratio:.2f}" == "1.00"


def speed_text(change: Change | None, spread: tuple[float, float] | None) -> str | None:
    """``1.80× faster``; None if latency was not measured."""
    if change is None or not change.after or not change.before:
        return None
    if same_speed(change, spread):
        return "as fast as before (within the measurement error)"
    factor = change.before / change.after
    return f"{times(factor)} faster" if factor >= 1 else f"{times(1 / factor)} slower"


def _about(change: Change | None, spread: tuple[float, float] | None) -> str:
    if change is None or spread is None or same_speed(change, spread):
        return ""
    return "about " if spread[1] > UNSURE * change.after else ""


def times(factor: float) -> str:
    """``1.80×``, ``21.0×``."""
    return f"{factor:.2f}×" if factor < 9.995 else f"{factor:.1f}×"


def verdict(report: Report) -> str:
    """The outcome in one sentence."""
    name = PurePath(report.model).name
    if report.macs.after >= report.macs.before and report.params.after >= report.params.before:
        return f"{name} keeps its size: nothing was cut."
    parts = [
        f"{percent(1 - change.ratio)} fewer {what}"
        for what, change in (("MACs", report.macs), ("parameters", report.params))
        if change.after < change.before
    ]
    latency = report.latency_ms
    speed = speed_text(latency, report.latency_spread)
    parts += [f"{_about(latency, report.latency_spread)}{speed}"] if speed else []
    remedy = ""
    if latency is not None and (latency.ratio > 1 or same_speed(latency, report.latency_spread)):
        name, remedy = f"NOT FASTER here: {name}", SLOW
    accuracy = report.accuracy
    measured = ""
    if accuracy is not None:
        measured = f", and accuracy goes from {percent(accuracy.before)} to {percent(accuracy.after)}"
    return f"{name}: {', '.join(parts)}; {drop_sentence(report.drop, report.drop_source)}{measured}.{remedy}"


def prunable(inspection: Inspection) -> str:
    """How much of a model can be pruned, in one sentence."""
    free = sum(row.locked is None for row in inspection.groups)
    name, share = PurePath(inspection.model).name, percent(inspection.prunable_macs_share)
    groups = f"{free} group{'' if free == 1 else 's'}"
    return f"{name}: {share} of the MACs are in prunable layers ({groups} of channels)."


def size_text(inspection: Inspection) -> str:
    """MACs, parameters, bytes and nodes of a model, in one line."""
    counts = f"{si(inspection.macs)} MACs, {si(inspection.params)} parameters"
    return f"{counts}, {byte_text(inspection.bytes)}, {inspection.nodes:,} nodes"


def operators(inspection: Inspection) -> str:
    """MACs by operator type: ``Conv 99.9%, Gemm 0.1%``."""
    most = [f"{op} {percent(share)}" for op, share in inspection.operators[:4]]
    more = len(inspection.operators) - len(most)
    return ", ".join([*most, f"{more} more" if more else ""]).removesuffix(", ")


def checks(verify: Verification) -> tuple[tuple[str, bool], ...]:
    """(name, passed) of each check."""
    return (
        ("checker", verify.checker),
        ("onnxruntime", verify.onnxruntime),
        ("signature", verify.signature),
    )


def estimates(verify: Verification) -> str:
    """Why the cut and the masked model may differ."""
    count = len(verify.estimates)
    nodes = f"'{verify.estimates[0]}'" + (f" and {count - 1} more normalizations" if count > 1 else "")
    return f"it cannot be exact: {nodes} now take{'s' if count == 1 else ''} the mean or variance over fewer channels"


def gain(tuning: Tuning) -> str:
    """The outcome of tuning in one sentence."""
    if not tuning.after < tuning.before:
        return "tuning gained nothing: the weights are unchanged"
    share = 1 - tuning.after / tuning.before
    chance = "" if tuning.gained else ", which may be chance"
    return (
        f"tuned: the outputs are {percent(share)} closer to the original's on {tuning.held:,} held-out samples{chance}"
    )


def stage(stage: Stage) -> str:
    """The quality of the model at a stage: ``top-1 changed 4.1%, accuracy 90.2%``."""
    drop = f"{stage.drop.metric} {drop_value(stage.drop)}"
    return drop if stage.accuracy is None else f"{drop}, accuracy {percent(stage.accuracy)}"


def effort_of(tuning: Tuning) -> str:
    """``8,192 samples (4.0 passes over 2,048) in 10 min 0 s on cpu; held-out error 0.24 to 0.11``."""
    fed = tuning.curve[-1].samples if tuning.curve else 0
    return (
        f"{fed:,} samples ({fed / max(tuning.samples, 1):.1f} passes over {tuning.samples:,}) in "
        f"{duration(tuning.seconds)} on {tuning.device}; held-out error {decimals(tuning.before)} to "
        f"{decimals(tuning.after)}"
    )
