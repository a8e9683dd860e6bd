"""Paired speed of models under OpenVINO's CPU plugin, in the peers' environment.

    python time_openvino.py '{"pairs": [["a.onnx", "b.onnx"], …], "shape": [1, 3, 224, 224], "threads": 1}'

Prints one JSON line: per pair, how many times faster the second is.  Pairs are rows of runs that alternate, and one
thread is timed by processor time, as in ``onnxprune/latency/stopwatch.py``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import openvino

SECONDS, MIN_PAIRS, MAX_PAIRS, ROW_SECONDS = 3.0, 7, 60, 0.04


def runner(core: openvino.Core, path: str, image: np.ndarray, threads: int) -> Callable[[], object]:
    model = core.read_model(path)
    model.reshape({model.inputs[0].any_name: list(image.shape)})
    settings = {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([image])


def fastest(run: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(count):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def speed(pair: Sequence[Callable[[], object]], clock: Callable[[], float]) -> float:
    warm = min(fastest(run, 3, clock) for run in pair)
    count = int(np.clip(ROW_SECONDS / warm, 1, 32))
    ratios: list[float] = []
    start = time.perf_counter()
    while len(ratios) < MIN_PAIRS or (len(ratios) < MAX_PAIRS and time.perf_counter() - start < SECONDS):
        ratios.append(fastest(pair[0], count, clock) / fastest(pair[1], count, clock))
    return float(np.median(ratios))


def main() -> None:
    options = json.loads(sys.argv[1])
    core = openvino.Core()
    image = np.random.default_rng(0).random(options["shape"], dtype=np.float32)
    found = []
    for first, second in options["pairs"]:
        pair = [runner(core, path, image, options["threads"]) for path in (first, second)]
        found.append(speed(pair, time.process_time if options["threads"] == 1 else time.perf_counter))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
