"""Times layers on this machine.  It needs only numpy, and onnxruntime or OpenVINO, so it also runs on a device.

``onnxprune inspect MODEL --layers FILE`` writes a *layers file* (JSON).  It lists small models: each has one layer at
one input width and several output widths.  A *table* (JSON) has the seconds of each layer (see :func:`measure`);
``--latency-table`` reads it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
LAYERS, TABLE = "onnxprune_layers", "onnxprune_latency_table"
#: The name of a timed node ends with its output width.
WIDTH = re.compile(r"layer\.(\d+)")
#: Kernels beside the timed ones that do not count: layout changes, and the pooling that keeps outputs small.
BESIDE = re.compile("reorder|pool|reduce|constant|convert|input|output|memory", re.IGNORECASE)
#: Minimum and maximum number of runs per model, and the seconds after which no new run starts.
MIN_RUNS, MAX_RUNS, SECONDS = 6, 60, 0.12
#: Output width of a probe -> the block that pads it to the first width; input width -> its alignment step, the first
#: being aligned.
PROBE_OUT, PROBE_IN = {64: 1, 60: 8, 52: 16, 36: 32}, {64: 1, 62: 2, 61: 4}
#: Times that differ by less than this factor count as equal.
SAME = 1.03


def onnxruntime_seconds(model: bytes, feeds: Mapping[str, np.ndarray], threads: int) -> dict[str, list[float]]:
    """\"OPERATOR NODE\" (node names as onnxruntime's profiler gives them) -> the seconds of each run."""
    # This file also runs on its own.  Importing onnxruntime 1.32 would record events.  The user's own setting wins.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        repeat(lambda: session.run(None, dict(feeds)))
        with open(session.end_profiling(), encoding="utf-8") as file:
            try:
                events = json.load(file)
            except ValueError as error:
                # On a full disk onnxruntime writes a part, and tells nobody.
                raise OSError(f"the profile that onnxruntime wrote is incomplete: {error}") from error
    seconds: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = f"{event['args'].get('op_name', '')} {event['name'].removesuffix('_kernel_time')}"
            seconds.setdefault(name, []).append(event["dur"] * 1e-6)
    return seconds


def openvino_seconds(model: bytes, feeds: Mapping[str, np.ndarray], threads: int) -> dict[str, list[float]]:
    """The same from the performance counters of OpenVINO's CPU plugin."""
    import openvino  # type: ignore[import-not-found, import-untyped, unused-ignore]  # a runtime of the device, not a dependency

    core = openvino.Core()
    settings = {"PERF_COUNT": "YES", "INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    seconds: dict[str, list[float]] = {}

    def once() -> None:
        request.infer(dict(feeds))
        for row in request.profiling_info:
            if row.real_time.total_seconds() > 0:
                seconds.setdefault(f"{row.node_type} {row.node_name}", []).append(row.real_time.total_seconds())

    repeat(once)
    return seconds


RUNTIMES: Mapping[str, Callable[[bytes, Mapping[str, np.ndarray], int], dict[str, list[float]]]] = {
    "onnxruntime": onnxruntime_seconds,
    "openvino": openvino_seconds,
}


def repeat(run: Callable[[], object]) -> None:
    """Run for :data:`SECONDS`, but at least ``MIN_RUNS`` and at most ``MAX_RUNS`` times."""
    start, count = time.perf_counter(), 0
    while count < MIN_RUNS or (count < MAX_RUNS and time.perf_counter() - start < SECONDS):
        run()
        count += 1


def typical(seconds: list[float]) -> float:
    """Mean of the faster half.  Disturbances only slow a run down; the mean smooths the microsecond ticks of clocks."""
    ordered = np.sort(seconds)
    return float(ordered[: max(1, (len(ordered) + 1) // 2)].mean())


def time_entry(entry: Json, runtime: str, threads: int) -> dict[int, float]:
    """Output width -> seconds of the layer, for one entry of a layers file."""
    generator = np.random.default_rng(0)
    feeds = {name: generator.random(shape).astype(entry["dtype"]) for name, shape in entry["inputs"].items()}
    by_width: dict[int, float] = {}
    for name, seconds in RUNTIMES[runtime](base64.b64decode(entry["model"]), feeds, threads).items():
        operator, _, node = name.partition(" ")
        width = WIDTH.search(node)
        if width is not None and BESIDE.search(operator) is None:
            by_width[int(width[1])] = by_width.get(int(width[1]), 0.0) + typical(seconds)
    return by_width


def measure(
    document: Json, runtime: str = "onnxruntime", threads: int = 1, report: Callable[[str], None] = lambda _: None
) -> Json:
    """The table of a layers file, as ``--latency-table`` takes it.

    ``{"onnxprune_latency_table": 1, "device": str, "runtime": str, "threads": int, "block": int, "align": int,
    "unaligned": float, "per_byte": float, "per_mac": float, "layers": {KEY: [[inputs, outputs, seconds], …]}}``.
    ``layers`` has the seconds of each layer at some input and output widths.  :mod:`onnxprune.budget.rounding` explains
    ``block`` and ``align``.  ``unaligned`` is the slowdown of a layer with unaligned input channels.  ``per_byte`` is
    the seconds per byte that an elementwise operator moves.  ``per_mac`` is the seconds per multiply-accumulate outside
    of layers.

    Raises:
        ValueError: ``document`` is not a layers file.
    """
    if document.get(LAYERS) != 1:
        raise ValueError(f"not a layers file: no '{LAYERS}': 1")
    layers: dict[str, list[list[float]]] = {}
    probes: dict[str, dict[int, float]] = {"widths": {}, "inputs": {}, "byte": {}, "mac": {}}
    for entry in document["entries"]:
        report(f"{entry['key']}, {entry['in']} in")
        seconds_by_width = time_entry(entry, runtime, threads)
        if entry["key"] == "inputs":
            probes["inputs"][entry["in"]] = next(iter(seconds_by_width.values()))
        elif entry["key"] in probes:
            probes[entry["key"]] = seconds_by_width
        else:
            points = [
                [entry["in"], width, seconds * entry["scale"]] for width, seconds in sorted(seconds_by_width.items())
            ]
            layers.setdefault(entry["key"], []).extend(points)
    widths, inputs = probes["widths"], probes["inputs"]
    padded = [block for width, block in PROBE_OUT.items() if widths[width] * SAME > widths[max(PROBE_OUT)]]
    slow = [align for width, align in PROBE_IN.items() if inputs[width] > inputs[max(PROBE_IN)] * SAME]
    return {
        TABLE: 1,
        "device": processor(),
        "runtime": f"{runtime} {version(runtime)}",
        "threads": threads,
        "block": max(padded),
        "align": {2: 4, 4: 2}.get(min(slow, default=1), 1),
        "unaligned": max(1.0, inputs[min(PROBE_IN)] / inputs[max(PROBE_IN)]),
        "per_byte": sum(probes["byte"].values()) / document["probe_bytes"],
        "per_mac": sum(probes["mac"].values()) / document["probe_macs"],
        "layers": layers,
    }


def processor() -> str:
    """The processor's name, or what the system reveals of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="ignore").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model", "Hardware"))]
    return f"{named[0] if named else os.uname().machine} x {os.cpu_count()}" if hasattr(os, "uname") else "unknown"


def version(runtime: str) -> str:
    """The version of an installed runtime."""
    from importlib.metadata import version as installed

    return installed(runtime)
