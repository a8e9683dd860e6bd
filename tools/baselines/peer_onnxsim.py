"""Prune with onnxsim's structured pruning, in the peers' environment: a job as JSON on the command line.

    python peer_onnxsim.py '{"model": …, "data": …, "input": …, "whole": …, "method": "wanda", "global": false, "jobs": […]}'

Jobs as in ``peer_torch_pruning.py``.  BatchNormalization is folded first, as its documentation asks for.
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import onnx
import onnxsim
from onnxsim.pruning import apply_structured_pruning, apply_structured_wanda_pruning

TOLERANCE, PRECISION = 0.01, 5e-4


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates per sample of Conv, Gemm and MatMul."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.value_info[:]
    shapes = {}
    for value in onnx.shape_inference.infer_shapes(found, data_prop=True).graph.value_info:
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    weights = {t.name: math.prod(t.dims) for t in found.graph.initializer}
    total = 0
    for node in found.graph.node:
        if node.op_type == "Conv":
            total += weights[node.input[1]] * math.prod(shapes[node.output[0]][2:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += weights[node.input[1]]
    return total


def main() -> None:
    options = json.loads(sys.argv[1])
    model, _ = onnxsim.simplify(onnx.load(options["model"]))
    onnx.save(model, options["whole"])
    images = np.load(options["data"])["images"]
    feeds = [{options["input"]: part} for part in np.array_split(images, max(1, len(images) // 32))]
    full = macs(model)

    def pruned(sparsity: float) -> onnx.ModelProto:
        if options["method"] == "wanda":
            return apply_structured_wanda_pruning(model, feeds, sparsity=sparsity, global_sparsity=options["global"])
        return apply_structured_pruning(model, sparsity=sparsity, global_sparsity=options["global"])

    shares = []
    for job in options["jobs"]:
        low, high = 0.0, 0.95
        nearest: tuple[float, onnx.ModelProto] | None = None
        while high - low > PRECISION:
            middle = (low + high) / 2
            trial = pruned(middle)
            kept = macs(trial) / full
            if nearest is None or abs(kept - job["kept"]) < abs(nearest[0] - job["kept"]):
                nearest = (kept, trial)
            if abs(kept - job["kept"]) < TOLERANCE / 4:
                break
            low, high = (middle, high) if kept > job["kept"] else (low, middle)
        assert nearest is not None
        shares.append(nearest[0])
        if abs(nearest[0] - job["kept"]) <= TOLERANCE:
            onnx.save(nearest[1], job["file"])
    print(json.dumps(shares))


if __name__ == "__main__":
    main()
